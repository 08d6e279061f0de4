"""What a run of the DAG may read, write and call, whoever triggers it: settings of the machine that runs the tasks.

==================  ==========================================================  =====================================
variable            what a trigger may name                                     where it is not set
==================  ==========================================================  =====================================
SHELFSPACE_DATA     logs and pictures in these folders, with ":" between        the project's ``data``
SHELFSPACE_OUT      run folders in these folders, with ":" between              the project's ``reports``
SHELFSPACE_ENGINES  these values of ``engine_url``, with commas between         none: DuckDB, and Spark on the machine
==================  ==========================================================  =====================================
"""

from __future__ import annotations

import glob
import os
import re
from pathlib import Path

from shelfspace.files.places import ROOT


def check(data: str, out: str | Path, engine_url: str = "", images: str = "", start: str = "") -> None:
    """Refuse what the settings do not allow.

    Parameters
    ----------
    data : str
        "shop", or a file, folder or pattern; a relative one counts from `shelfspace.files.places.ROOT`, as `out` and `images` do.
    out : str or Path
        The run folder.
    engine_url, images, start : str
        See the parameters of the notebooks; "" for none.

    Raises
    ------
    ValueError
        Naming what was asked for, and the setting that would allow it.
    """
    if data != "shop":
        _check_path("data", data, "SHELFSPACE_DATA", "data")
    if images:
        _check_path("images", images, "SHELFSPACE_DATA", "data")
    _check_path("out", str(out), "SHELFSPACE_OUT", "reports")
    if start:
        _check_path("start", start, "SHELFSPACE_OUT", "reports")
    urls = [url.strip() for url in os.environ.get("SHELFSPACE_ENGINES", "").split(",")]
    if engine_url and engine_url not in urls:
        raise ValueError(
            f"engine_url is {engine_url!r}, which SHELFSPACE_ENGINES does not name; it names {', '.join(filter(None, urls)) or 'none'}."
        )


def _check_path(name: str, given: str, setting: str, default: str) -> None:
    """Refuse a path, or a pattern with a match, that leads out of the folders of a setting, also by a link."""
    roots = [Path(root).resolve() for root in os.environ.get(setting, "").split(os.pathsep) if root] or [(ROOT / default).resolve()]
    parts = (ROOT / given).parts
    fixed = next((place for place, part in enumerate(parts) if re.search(r"[*?\[]", part)), len(parts)) if name == "data" else len(parts)
    if ".." not in parts and "\0" not in given and given:
        places = [Path(*parts[:fixed]), *map(Path, glob.glob(str(ROOT / given), recursive=True) if fixed < len(parts) else ())]
        places += [file for place in places if name != "out" and place.is_dir() for file in place.iterdir()]
        if all(_inside(place.resolve(), roots, name != "out") for place in places):
            return
    raise ValueError(f"{name} is {given!r}, which {setting} does not allow; it must be in {' or '.join(map(str, roots))}.")


def _inside(place: Path, roots: list[Path], itself: bool) -> bool:
    return any(root in place.parents or (itself and root == place) for root in roots)
