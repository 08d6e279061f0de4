"""Compiled kernels: none reads or writes past the end of an array, which would kill the process or spoil what lies beside it."""

import os
import re
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src" / "shelfspace"


def test_every_kernel_stays_within_its_arrays(tmp_path):
    """All of them, each compiled anew with bounds checks, as they stand; one that is added must be called there, too."""
    own = {"NUMBA_BOUNDSCHECK": "1", "NUMBA_OPT": "0", "NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(SOURCE.parent)}
    done = subprocess.run([sys.executable, Path(__file__).with_name("bounds.py")], env=os.environ | own, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    written = sum(len(re.findall(r"^\s*@n(?:um)?ba?\.njit", path.read_text(), re.M)) for path in SOURCE.rglob("*.py"))
    assert len(done.stdout.split()) == written > 15
