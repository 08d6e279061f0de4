"""Where a run's time and memory went, from what its executed notebooks say."""

from __future__ import annotations

import pytest

from shelfspace.files import stages
from shelfspace.run import profile


def test_a_profile_names_every_notebook_and_the_longest_cells(small_run):
    table, _, cells = profile.read(small_run.folder, longest=5).partition("\n\n")
    names = [line.split()[0] for line in table.splitlines()[1:]]
    parts = [f"{stage.name}.{part}" for stage in stages.stages() for part in stage.parts]
    assert {stage.name for stage in stages.stages()} <= set(names) <= {stage.name for stage in stages.stages()} | set(parts)
    for line in table.splitlines()[1:]:
        whole, inside, peak = (float(text.replace(",", "")) for text in line.split()[-3:])
        assert 0 < inside <= whole and peak > 10
    seconds = [float(line[32:41]) for line in cells.splitlines()[1:]]
    assert len(seconds) == 5 and seconds == sorted(seconds, reverse=True)


def test_a_folder_without_notebooks_has_no_profile(tmp_path):
    with pytest.raises(ValueError, match="holds no executed notebook; run `shelfspace report` first"):
        profile.read(tmp_path)
