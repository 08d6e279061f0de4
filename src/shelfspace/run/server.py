"""The process that kernels are forked from (`multiprocessing`'s forkserver): it imports the libraries once.

It loads libraries, has Numba load its own (`shelfspace.run.compiler`), and no other module of this package, so that a change of these
is seen by the next kernel.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
import sys
import threading
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import forkserver, resource_tracker

LIBRARIES = (
    *("ipykernel.kernelapp", "ipykernel.debugger", "IPython.core.completerlib", "IPython.extensions.storemagic"),
    *("numpy", "pandas", "pyarrow.parquet", "scipy.sparse", "scipy.stats", "matplotlib.pyplot", "seaborn"),
    *("sklearn.neighbors", "numba", "duckdb", "ibis.backends.duckdb", "lightgbm", "openTSNE", "faiss", "h5py", "tensorflow"),
    "shelfspace.run.compiler",
)

THREADS = str(max(1, (os.cpu_count() or 1) // 2))  # of a kernel; half of the cores, as two run side by side
QUIET = {
    "OMP_NUM_THREADS": THREADS,
    "TF_NUM_INTRAOP_THREADS": THREADS,
    "OMP_WAIT_POLICY": "passive",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TF_ENABLE_ONEDNN_OPTS": "0",
    "CUDA_VISIBLE_DEVICES": "",
    "PYTHONHASHSEED": "0",
    "TQDM_NCOLS": "54",  # progress bars fit behind the stage's name, and look the same in every terminal
    "JUPYTER_PREFER_ENV_PATH": "1",  # this environment's kernel, not one that the user registered by the same name
    "PYDEVD_DISABLE_FILE_VALIDATION": "1",
}

_lock = threading.Lock()  # of what follows, and of the module that a process of the server must not take for its own
_asked = False


@contextmanager
def environment() -> Iterator[None]:
    """Set what the kernels need where the caller has not, and take it back at the end."""
    new = {name: value for name, value in QUIET.items() if name not in os.environ}
    os.environ.update(new)
    try:
        yield
    finally:
        for name in new:
            os.environ.pop(name, None)


def start() -> None:
    """Have it import, while this process goes on; nothing where it was started before, or where a system has no such thing."""
    global _asked
    with _lock:
        if _asked or "forkserver" not in multiprocessing.get_all_start_methods():
            return
        multiprocessing.set_forkserver_preload(list(LIBRARIES))
        resource_tracker.ensure_running()  # which lets SIGINT through again when it has started
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # which the server inherits: Ctrl-C is for this process alone
        try:
            with environment(), _no_main():
                forkserver.ensure_running()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        _asked = True
        atexit.register(_end)


def is_started() -> bool:
    """Whether `process` can be asked for one; it waits until all is imported."""
    return _asked


def process(target: Callable, *given) -> multiprocessing.Process:
    """A process of the server, at work."""
    forked = multiprocessing.get_context("forkserver").Process(target=target, args=given)
    with _lock, _no_main():
        forked.start()
    return forked


def _end() -> None:
    """End with this process, also while it imports."""
    with suppress(AttributeError, TypeError, OSError):
        os.kill(forkserver._forkserver._forkserver_pid, signal.SIGKILL)


class _no_main:
    """While a process is started, the program has no main module, which `multiprocessing` would else run again in it."""

    def __enter__(self) -> None:
        self.main = sys.modules["__main__"]
        sys.modules["__main__"] = types.ModuleType("__main__")

    def __exit__(self, *_) -> None:
        sys.modules["__main__"] = self.main
