"""Pictures: both descriptors by hand, and features that pictures share."""

import os
import signal

import numpy as np
import pytest
from PIL import Image

from shelfspace.vectors import features, images


def picture(left: tuple, right: tuple, side: int = 64) -> np.ndarray:
    """Two halves, side by side."""
    pixels = np.zeros((side, side, 3))
    pixels[:, : side // 2], pixels[:, side // 2 :] = left, right
    return pixels


def test_colours_by_hand():
    found = images.colour(picture((255, 0, 0), (0, 0, 70)))
    assert np.flatnonzero(found).tolist() == [1, 48]  # (0, 0, 1) and (3, 0, 0), to the base of four
    np.testing.assert_allclose(found[[1, 48]], np.sqrt(0.5))


def test_edges_by_hand():
    step = images.shape(picture((0, 0, 0), (255, 255, 255))).reshape(4, 4, 8)
    assert step[:, 1:3, 0] == pytest.approx(np.full((4, 2), 8**-0.5))  # both cells at the step see half of it, in four rows
    assert step.sum() == pytest.approx(8 * 8**-0.5)
    down = images.shape(picture((0, 0, 0), (255, 255, 255)).transpose(1, 0, 2)).reshape(4, 4, 8)
    assert down[1:3, :, 4] == pytest.approx(np.full((2, 4), 8**-0.5))
    np.testing.assert_allclose(images.shape(255 - picture((0, 0, 0), (255, 255, 255))).reshape(4, 4, 8), step, atol=1e-12)
    assert not images.shape(picture((9, 9, 9), (9, 9, 9))).any()


@pytest.fixture
def folder(tmp_path):
    """Eight red and eight blue pictures; of each, half with an upright edge and half with a level one."""
    rng = np.random.default_rng(0)
    for i in range(16):
        ground = (200, 20, 20) if i < 8 else (20, 20, 200)
        pixels = picture(ground, tuple(c // 2 for c in ground)) + rng.integers(0, 9, (64, 64, 3))
        pixels = pixels if i % 2 else pixels.transpose(1, 0, 2)
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / f"p{i:02d}.png")
    (tmp_path / "p90.png").write_bytes(b"no picture")
    (tmp_path / "notes.txt").write_text("")
    Image.new("P", (3, 900)).save(tmp_path / "stranger.gif")
    return tmp_path


def test_alike_pictures_share_features(folder):
    ids = np.array([f"p{i:02d}" for i in (*range(16), 90, 91)])
    found = images.of_folder(folder, ids, words=2)
    assert found.product_ids.tolist() == ids[:16].tolist()
    assert found.names.tolist() == sorted(found.names) == ["colour:00", "colour:01", "shape:00", "shape:01"]
    dense = found.matrix.toarray()
    assert (dense.sum(axis=1) == 2).all()
    assert len(np.unique(dense[:8, :2], axis=0)) == len(np.unique(dense[8:, :2], axis=0)) == 1
    assert not np.array_equal(dense[0, :2], dense[8, :2]) and np.array_equal(dense[0::2, 2:], dense[[0] * 8, 2:])
    again = images.of_folder(folder, ids, words=2)
    assert np.array_equal(again.matrix.toarray(), dense) and isinstance(again, features.Features)


def test_what_does_not_fit_is_refused(folder):
    with pytest.raises(ValueError, match="is no folder"):
        images.of_folder(folder / "nowhere", np.array(["p00"]))
    with pytest.raises(ValueError, match="name each by its product's id"):
        images.of_folder(folder, np.array(["p90", "q"]))


def test_a_pipe_among_the_pictures_is_passed_over(folder):
    os.mkfifo(folder / "p91.png")  # who opens it waits for somebody to write
    signal.signal(signal.SIGALRM, lambda *_: pytest.fail("The pipe was opened."))
    signal.alarm(20)
    try:
        found = images.of_folder(folder, np.array([f"p{i:02d}" for i in (*range(16), 91)]))
    finally:
        signal.alarm(0)
    assert "p91" not in found.product_ids and len(found.product_ids) == 16
