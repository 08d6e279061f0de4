"""Where the notebooks and the project lie: in a checkout of the repository, or in what pip installed."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
CHECKOUT = PACKAGE.parents[1] if (PACKAGE.parents[1] / "pyproject.toml").is_file() else None
"""The repository's root; None where the package was installed from a wheel, which holds the notebooks beside the modules."""
ROOT = CHECKOUT or Path.cwd()
"""What relative paths count from in notebooks and in the DAG."""
NOTEBOOKS = (CHECKOUT or PACKAGE) / "notebooks"


def copy_notebooks(folder: str | Path) -> list[Path]:
    """Write the notebooks, their start page and their settings into a folder, to be changed and run from there.

    Returns
    -------
    list of Path
        What was written.

    Raises
    ------
    ValueError
        If the folder holds one of the files already; nothing is written then.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file; name a folder for the notebooks.")
    files = {path.name: path.read_bytes() for path in sorted(NOTEBOOKS.iterdir()) if path.is_file()}
    if CHECKOUT:
        files["jupytext.toml"] = (CHECKOUT / "jupytext.toml").read_bytes()
    for name in files:
        if (folder / name).exists():
            raise ValueError(f"{folder / name} is there already and would be replaced; name another folder.")
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return [folder / name for name in files]
