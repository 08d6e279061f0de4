"""The training theatre: the trainers' own numbers, the chapter's example first, and how it behaves in a browser."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from test_playground import open_run  # noqa: F401, a fixture

from shelfspace.files import stages
from shelfspace.page import report, theatre
from shelfspace.vectors import skipgram

LAST = theatre.STEPS


def test_its_first_step_is_the_one_that_the_chapter_works_out_by_hand():
    (chapter,) = [stage for stage in stages.stages() if stage.name == "02_train_embeddings"]
    code = [cell.source for cell in chapter.notebook.cells if cell.cell_type == "code"]
    space = {"np": np, "starspace": theatre.starspace}
    for beginning in ("names = ", "cosines = ", "terms = ", "gradient = ", "loss, by_module = "):
        for cell in code:
            if cell.startswith(beginning):
                exec(cell, space)
    first = theatre.star()[1]
    assert tuple(space["names"]) == theatre.NAMES and np.array_equal(space["before"], theatre.BEFORE)
    assert [first["from"], first["to"], first["noise"]] == [space["bag"], space["label"], space["noise"]]
    np.testing.assert_allclose(first["vectors"], space["by_hand"], atol=5e-4)
    assert first["loss"] == pytest.approx(space["terms"].mean(), abs=1e-4) == pytest.approx(float(space["loss"]), abs=1e-4)


def test_its_pairs_are_those_of_the_chapter_and_its_steps_the_trainers():
    steps = theatre.word2vec()
    ada = [(0, 2), (2, 0), (2, 0), (0, 2), (0, 1), (1, 0)]  # phone A, phone B, phone A, case A under a window of one
    assert [(step["from"][0], step["to"]) for step in steps[1:9]] == [*ada, (3, 4), (4, 3)] and len(steps) == LAST + 1
    v, u = theatre.BEFORE, np.zeros_like(theatre.BEFORE)
    for step in steps[1:]:
        loss, v, u = skipgram.update(v, u, step["from"][0], step["to"], step["noise"], learning_rate=theatre.RATES["word2vec"])
        assert step["loss"] == pytest.approx(loss, abs=1e-4)
        np.testing.assert_allclose(step["vectors"], v, atol=6e-4)


def test_what_the_page_says_of_the_two_is_so():
    """StarSpace rests where the margin is kept, word2vec does not; both bring together what was seen together."""
    found = theatre.read()
    star, skip = found["starspace"], found["word2vec"]
    assert star[-1]["loss"] == 0 and star[-1]["vectors"] == star[-6]["vectors"] and star[1]["vectors"] != star[0]["vectors"]
    assert all(step["loss"] > 0.01 for step in skip[1:]) and skip[-1]["vectors"] != skip[-2]["vectors"]
    for steps in (star, skip):
        ends = [np.array(steps[i]["vectors"]) for i in (0, -1)]
        cosine = [v @ v.T / np.outer(*[np.linalg.norm(v, axis=1)] * 2) for v in ends]
        assert cosine[1][3, 4] > cosine[0][3, 4] and cosine[1][0, 2] > cosine[0][0, 2]


def test_adagrad_goes_on_from_the_updates_before():
    squares = np.zeros((5, 2), np.float32)
    _, once = theatre.starspace.update(theatre.BEFORE, [0, 1], 2, [3, 4], margin=2.0, squares=squares)
    kept = squares.copy()
    _, again = theatre.starspace.update(once, [0, 1], 2, [3, 4], margin=2.0, squares=squares)
    _, afresh = theatre.starspace.update(once, [0, 1], 2, [3, 4], margin=2.0)
    assert (squares >= kept).all() and kept[:2, 0].all() and np.abs(again - once).max() < np.abs(afresh - once).max()


def test_a_toy_takes_the_place_that_was_kept_for_it():
    html = '<p>a</p><p class="toy-place theatre">In the report\n…</p><p>b</p>'
    assert report.with_toys(html, {"theatre": r"<b>\1</b>", "near": "x"}) == r"<p>a</p><b>\1</b><p>b</p>"
    assert report.with_toys(html, {}) == "<p>a</p><p>b</p>" and report.with_toys("<p>a</p>", {"theatre": "x"}) == "<p>a</p>"


def test_a_toy_without_a_place_is_known():
    told = [SimpleNamespace(html='<p class="toy-place near">…</p>'), SimpleNamespace(html="<p>a</p>")]
    assert report.homeless({"near": "x", "decay": "y"}, told) == ["y"]


def drawn(page) -> dict:
    """Where the page draws the products, by side."""
    return page.evaluate("""Object.fromEntries([...document.querySelectorAll('#theatre [data-side]')].map((side) => [side.dataset.side,
        [...side.querySelectorAll('g')].map((g) => g.getAttribute('transform').match(/-?[\\d.]+/g).map((v, k) => (k ? -v : +v) / 100))]))""")


def test_forward_back_play_and_the_slider(open_run):  # noqa: F811
    page, found = open_run(), theatre.read()
    assert page.locator("section.chapter:has(#theatre)").get_attribute("id") == "02-train-embeddings"
    back, forward = page.locator("#theatre [data-move]").all()
    slider = page.locator("#theatre input")

    def at(step):
        shown = drawn(page)
        for side in ("word2vec", "starspace"):
            np.testing.assert_allclose(shown[side], found[side][step]["vectors"], atol=6e-4)

    at(0)
    assert back.is_disabled() and slider.input_value() == "0"  # and nothing plays by itself
    forward.click()
    forward.click()
    at(2)
    assert f"loss {found['word2vec'][2]['loss']:.3f}" in page.locator("#theatre [data-side=word2vec] .now").inner_text()
    back.click()
    at(1)
    assert "phone A + case A → phone B" in page.locator("#theatre [data-side=starspace] .now").inner_text()
    slider.focus()
    page.keyboard.press("End")
    at(LAST)
    assert forward.is_disabled() and not back.is_disabled()
    page.keyboard.press("ArrowLeft")
    at(LAST - 1)
    play = page.locator("#theatre [data-play]")
    play.click()
    for _ in range(50):
        page.wait_for_timeout(100)
        if slider.input_value() == str(LAST):
            break
    at(LAST)
    assert play.get_attribute("aria-pressed") == "false" and play.inner_text() == "Play" and page.noise == []
