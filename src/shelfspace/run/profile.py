"""Where a run's time and memory went: by stage, and by cell of the executed notebooks, as papermill and the pipeline noted them."""

from __future__ import annotations

from pathlib import Path

import nbformat

from shelfspace.files import run_files

LONGEST = 15


def read(run_dir: str | Path, longest: int = LONGEST) -> str:
    """Two tables as text.

    Parameters
    ----------
    run_dir : path
        A run with executed notebooks.
    longest : int
        Cells to show.

    Returns
    -------
    str
        Stages and their parts, with seconds (of the kernel, from start to end; of the cells alone) and the most memory that the kernel
        held (MB; "–" where the system did not say); then the cells that took longest, under the heading that they stand below.

    Raises
    ------
    ValueError
        If there is no executed notebook.
    """
    run_dir = Path(run_dir)
    paths = [*run_files.notebooks(run_dir), *sorted((run_dir / ".stages").glob("*.ipynb"))]
    if not paths:
        raise ValueError(f"{run_dir} holds no executed notebook; run `shelfspace report` first.")
    stages, cells = [], []
    for path in sorted(paths, key=lambda path: path.name):
        notebook, heading = nbformat.read(path, as_version=4), ""
        own = []
        for cell in notebook.cells:
            if cell.cell_type == "markdown":
                heading = next((line.lstrip("# ") for line in cell.source.splitlines() if line.startswith("#")), heading)
            noted = cell.metadata.get("papermill", {})
            if cell.cell_type == "code" and noted.get("duration") is not None:
                own.append(
                    (noted["duration"], noted.get("peak_mb"), path.stem, heading, cell.source.splitlines()[0] if cell.source else "")
                )
        peaks = [peak for _, peak, *_ in own if peak is not None]
        whole = notebook.metadata.get("papermill", {}).get("duration") or 0.0
        stages.append((path.stem, whole, sum(seconds for seconds, *_ in own), max(peaks, default=None)))
        cells += own
    lines = [f"{'notebook, or part of it':<32}{'seconds':>9}{'in cells':>10}{'peak MB':>9}"]
    lines += [f"{name:<32}{whole:9.1f}{inside:10.1f}{_mb(peak):>9}" for name, whole, inside, peak in stages]
    lines += ["", f"{'the longest cells':<32}{'seconds':>9}{'peak MB':>9}  under"]
    cells.sort(key=lambda cell: -cell[0])
    lines += [f"{name:<32}{seconds:9.1f}{_mb(peak):>9}  {heading}: {first[:60]}" for seconds, peak, name, heading, first in cells[:longest]]
    return "\n".join(lines)


def _mb(peak: float | None) -> str:
    return "–" if peak is None else f"{peak:,.0f}"
