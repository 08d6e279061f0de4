"""The toys of the page: their data, their maths against Python's, and how they behave in a browser by mouse and keyboard."""

from __future__ import annotations

import base64
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import drop_chapters_without_toys, violations
from test_report import HOSTILE

from shelfspace.measure import ranking
from shelfspace.models import baselines, users
from shelfspace.page import playground, report
from shelfspace.page.words import clean
from shelfspace.sequences import arrays
from shelfspace.vectors import embeddings

DECAYS = (0.0, 0.03, 0.7, 10.0)


@pytest.fixture(scope="module")
def data(small_run) -> dict:
    return playground.read(small_run.folder)


def numbers(text: str, dtype: str, *shape: int) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), dtype).reshape(shape or -1)


def vectors_of(data: dict, space: dict) -> np.ndarray:
    """What the browser works with in a space."""
    return playground.restore(numbers(space["codes"], "i1", len(data["names"]), space["dim"]), numbers(space["scales"], "<f4"))


def examples_of(data: dict) -> arrays.Examples:
    """The customers' histories, as the Python side takes them."""
    lengths = [len(customer["items"]) for customer in data["customers"]]
    end = np.cumsum(lengths)
    flat = np.concatenate([customer["items"] for customer in data["customers"]]).astype(np.int32)
    times = -np.concatenate([customer["ages"] for customer in data["customers"]])
    target = np.array([customer["next"] for customer in data["customers"]])
    none = np.zeros(len(end), np.int8)
    return arrays.Examples(flat, times, np.zeros(len(flat), np.int8), end - lengths, end, target, none, none.astype(str))


# --- the data ---


def test_quantised_vectors_are_as_near_as_promised():
    vectors = np.random.default_rng(0).normal(size=(200, 30)).astype(np.float32)
    vectors[7] = 0
    codes, scales = playground.quantise(vectors)
    assert codes.dtype == np.int8 and scales.dtype == np.float32 and scales[7] == 0
    error = np.abs(playground.restore(codes, scales) - vectors).max(axis=1)
    assert (error <= np.abs(vectors).max(axis=1) / 127 / 2 * 1.001).all()
    assert not playground.restore(codes, scales)[7].any()


def test_quantised_neighbours_are_the_neighbours(small_run, data):
    ids = pd.read_parquet(small_run.folder / "products.parquet").sort_values("count", ascending=False, kind="stable").product_id
    for space in data["spaces"]:
        exact, _ = embeddings.align(
            embeddings.load(small_run.folder / "product_embeddings" / f"{space['name']}.parquet"), ids.to_numpy().astype(str)
        )
        coarse = vectors_of(data, space)
        cosines = [embeddings.normalise(v) @ embeddings.normalise(v).T for v in (exact, coarse)]
        assert np.abs(cosines[0] - cosines[1]).max() < 0.02


def test_data_are_the_runs_and_name_nobody(small_run, data):
    products = pd.read_parquet(small_run.folder / "products.parquet")
    table = arrays.load(small_run.folder / "sequences.parquet").to_pandas()
    assert data["total"] == len(products) == len(data["names"]) and data["grouped_by"] == "category"
    assert data["counts"] == sorted(products["count"], reverse=True)
    assert [space["name"] for space in data["spaces"]] == ["word2vec", "starspace"]
    text = playground.to_json(data)
    assert not any(user in text for user in table.user_id.unique())
    valid = table[table.split == "valid"].user_id.nunique()
    assert len(data["customers"]) == min(valid, playground.CUSTOMERS)
    for customer in data["customers"]:
        assert 4 <= len(customer["items"]) <= playground.VISITS and customer["ages"][-1] == 0
        assert customer["ages"] == sorted(customer["ages"], reverse=True)
    assert json.loads(text) == data


def test_a_small_room_keeps_the_most_visited_and_all_that_the_customers_saw(small_run, data):
    room = len(playground.to_json(data | {"player": None})) * 9 // 10  # most products are in the histories
    few = playground.read(small_run.folder, room)
    assert len(playground.to_json(few | {"player": None})) <= room and len(few["names"]) < few["total"] == data["total"]
    needed = {data["names"][i] for c in data["customers"] for i in (*c["items"], c["next"])}
    needed |= {data["names"][i] for j in data["player"]["journeys"] for i in (*j["items"], j["steps"][-1][2])}
    missing = [name for name in data["names"] if name not in few["names"]]
    assert needed <= set(few["names"])
    rest = [name for name in few["names"] if name not in needed]
    assert rest == [name for name in data["names"][: data["names"].index(missing[0])] if name not in needed]
    for ours, theirs in zip(few["customers"], data["customers"]):
        assert [few["names"][i] for i in ours["items"]] == [data["names"][i] for i in theirs["items"]]
    drawn = numbers(few["map"]["drawn"], "<u4")
    assert drawn.max() < len(few["names"]) and all(len(numbers(s, "<i2")) == 2 * len(drawn) for s in few["map"]["spots"].values())


def copy_of(small_run, folder: Path, **columns) -> Path:
    """A copy of the small run whose product table has other columns; None drops one."""
    shutil.copytree(small_run.folder, folder)
    products = pd.read_parquet(folder / "products.parquet")
    for name, values in columns.items():
        products = products.drop(columns=name) if values is None else products.assign(**{name: values(products)})
    products.to_parquet(folder / "products.parquet", index=False)
    return folder


def test_a_log_without_names_and_categories(small_run, tmp_path):
    bare = playground.read(copy_of(small_run, tmp_path / "run", name=None, category=None))
    assert bare["grouped_by"] == "number of events" and bare["groups"] == list(playground.QUARTERS)
    assert set(bare["names"]) == set(pd.read_parquet(small_run.folder / "products.parquet").product_id)
    assert np.bincount(bare["group"]).max() - np.bincount(bare["group"]).min() <= 1
    assert bare["group"][0] == 3 and bare["group"][-1] == 0


def test_names_that_several_products_share_are_told_apart(small_run, tmp_path):
    same = playground.read(copy_of(small_run, tmp_path / "run", name=lambda p: ["Twin", None, "  "] + ["Twin"] * (len(p) - 3)))
    assert len(set(same["names"])) == len(same["names"]) and sum(n.startswith("Twin · P") for n in same["names"]) == len(same["names"]) - 2


def test_what_is_missing_is_said(small_run, tmp_path):
    folder = copy_of(small_run, tmp_path / "run")
    (folder / "sequences.parquet").write_text("no")
    with pytest.raises(ValueError, match="The toys of the page need files of .* that cannot be read"):
        playground.read(folder)
    (folder / "sequences.parquet").unlink()
    with pytest.raises(ValueError, match="sequences.parquet"):
        playground.read(folder)
    shutil.rmtree(folder / "product_embeddings")
    assert playground.read(folder) is None


def test_json_cannot_leave_its_element():
    text = playground.to_json({"names": ["</script><script>alert(1)</script>", "<!--", "a & b\u2028"]})
    assert not re.search("[<>&\u2028]", text) and json.loads(text)["names"][2] == "a & b\u2028"


# --- in a browser ---


@pytest.fixture
def open_run(open_file, small_run):
    return lambda **options: open_file(small_run.folder / "report.html", **options)


def test_the_maths_of_the_browser_is_pythons(open_run, data):
    page = open_run()
    examples = examples_of(data)
    for place, space in enumerate(data["spaces"]):
        vectors = vectors_of(data, space)
        known = vectors.any(axis=1)
        index, cosine = embeddings.nearest(vectors, vectors, k=10, exclude=np.arange(len(vectors)))
        for item in range(0, len(vectors), 10):
            found = page.evaluate(f"shelfspace.nearest(shelfspace.spaces[{place}], {item}, 10)")
            assert [i for i, _ in found] == index[item].tolist()
            np.testing.assert_allclose([c for _, c in found], cosine[item], atol=2e-6)
        for clock in users.DECAY_TIMES:
            for decay in DECAYS:
                expected = baselines.nearest_to_user(vectors, known, decay, clock)(examples)
                matrix = users.history_weights(examples, len(vectors), decay, clock, known).toarray()
                ranks = ranking.ranks(expected, examples.target)
                for row, customer in enumerate(data["customers"]):
                    weights, scores, rank = page.evaluate(
                        f"""(() => {{
                            const space = shelfspace.spaces[{place}], {{ items, ages, next }} = shelfspace.data.customers[{row}];
                            const share = shelfspace.weights(space, items, ages, {decay}, "{clock}");
                            const scores = shelfspace.cosines(space, shelfspace.embed(space, items, share));
                            return [share, [...scores], shelfspace.rank(scores, next)];
                        }})()"""
                    )
                    np.testing.assert_allclose(np.bincount(customer["items"], weights, len(vectors)), matrix[row], atol=1e-6)
                    np.testing.assert_allclose(scores, expected[row], atol=2e-6)
                    assert (
                        rank == ranks[row]
                        or np.abs(np.delete(expected[row], customer["next"]) - expected[row][customer["next"]]).min() < 1e-6
                    )


def test_products_without_a_vector_weigh_nothing_and_come_last(open_run):
    found = open_run().evaluate("""(() => {
        const space = { dim: 2, vectors: Float32Array.of(1, 0, 0, 0, 0, 2), norms: Float64Array.of(1, 0, 2) };
        const share = shelfspace.weights(space, [0, 2, 1], [900, 800, 0], 5, "days");
        const scores = shelfspace.cosines(space, shelfspace.embed(space, [0, 2, 1], share));
        return [share, [...scores], shelfspace.best(scores, 3), shelfspace.nearest(space, 1, 3)];
    })()""")
    assert found[0] == [pytest.approx(np.exp(-500)), 1, 0]  # old visits do not underflow to nothing
    assert found[1][1] == -2 and found[2] == [2, 0] and found[3] == []


def names_in(page, selector: str) -> list[str]:
    return page.locator(f"{selector} .product").all_inner_texts()


def findable(data: dict) -> list[str]:
    """Names that a search finds alone, the most visited first: no other product has all of their words."""
    texts = [f"{name} {data['groups'][group] if group >= 0 else ''}".lower() for name, group in zip(data["names"], data["group"])]
    return [name for name in data["names"] if sum(all(word in text for word in name.lower().split()) for text in texts) == 1]


def nearest_names(data: dict, space: int, name: str, k: int = 10) -> list[str]:
    vectors, item = vectors_of(data, data["spaces"][space]), data["names"].index(name)
    index, _ = embeddings.nearest(vectors, vectors[item], k=k, exclude=np.array([item]))
    return [data["names"][i] for i in index[0]]


def test_explorer_by_mouse_and_by_keyboard(open_run, data):
    page = open_run()
    sides = [f"#play--explorer [data-space={name}]" for name in ("word2vec", "starspace")]
    assert names_in(page, sides[0]) == nearest_names(data, 0, data["names"][0])
    wanted = findable(data)[10]
    page.locator("#explorer-search").fill(wanted.upper())
    page.locator("#explorer-search-list [role=option]").first.click()
    assert wanted in page.locator("#play--explorer .now").inner_text()
    for place, side in enumerate(sides):
        assert names_in(page, side) == nearest_names(data, place, wanted)
    both = page.locator(f"{sides[0]} .both").count()
    assert both == len(set(names_in(page, sides[0])) & set(names_in(page, sides[1])))
    following = names_in(page, sides[1])[2]
    page.locator(f"{sides[1]} .product").nth(2).click()
    assert names_in(page, sides[0]) == nearest_names(data, 0, following)

    page.locator("#explorer-search").focus()
    page.keyboard.type(wanted)
    assert page.locator("#explorer-search").get_attribute("aria-expanded") == "true"
    page.keyboard.press("ArrowDown")
    assert page.locator("#explorer-search").get_attribute("aria-activedescendant") == "explorer-search-list-0"
    page.keyboard.press("Enter")
    assert names_in(page, sides[0]) == nearest_names(data, 0, wanted)
    page.keyboard.type("zzzz")
    assert "No product has all of these words" in page.locator("#explorer-search-list").inner_text()
    page.keyboard.press("Escape")
    assert page.locator("#explorer-search-list").is_hidden() and page.noise == []


def test_map_by_mouse_and_by_keyboard(open_run, data):
    page = open_run()
    canvas, now = page.locator("#play--map canvas"), page.locator("#map-now")
    canvas.scroll_into_view_if_needed()
    blank = canvas.evaluate("c => c.toDataURL()")
    # Point at the place where the first drawn product must be, by the page's own data.
    drawn, spots = numbers(data["map"]["drawn"], "<u4"), numbers(data["map"]["spots"]["word2vec"], "<i2", -1, 2) / 32_767
    box = canvas.bounding_box()
    far = max(range(len(drawn)), key=lambda i: np.sort(np.hypot(*(spots - spots[i]).T))[1])  # the loneliest one
    x, y = box["width"] * (0.5 + 0.48 * spots[far][0]), box["width"] * (0.5 - 0.48 * spots[far][1])
    canvas.hover(position={"x": x, "y": y})
    wanted = data["names"][drawn[far]]
    assert wanted in page.locator("#play--map .tip").inner_text()
    canvas.click(position={"x": x, "y": y})
    assert wanted in now.inner_text() and names_in(page, "#play--map .near") == nearest_names(data, 0, wanted, 8)
    assert canvas.evaluate("c => c.toDataURL()") != blank
    page.locator("[name=map-space][value=starspace]").check()
    assert names_in(page, "#play--map .near") == nearest_names(data, 1, wanted, 8) and "StarSpace" in now.inner_text()
    group = page.locator("#play--map .legend button").first
    group.click()
    assert group.get_attribute("aria-pressed") == "true"
    page.locator("#map-search").fill(findable(data)[3])
    page.locator("#map-search-list [role=option]").first.click()
    assert now.locator("strong").inner_text() == findable(data)[3]

    canvas.focus()
    page.keyboard.press("Escape")
    assert "No product is chosen" in now.inner_text() and page.locator("#play--map .near li").count() == 0
    seen = set()
    for key in ("ArrowRight", "ArrowRight", "ArrowUp", "ArrowLeft", "ArrowDown", "ArrowDown"):
        page.keyboard.press(key)
        seen.add(now.inner_text())
    assert len(seen) > 2
    page.keyboard.press("Enter")
    assert "8 nearest in StarSpace" in now.inner_text()
    assert names_in(page, "#play--map .near") == nearest_names(data, 1, now.locator("strong").inner_text(), 8)
    picture = canvas.evaluate("c => c.toDataURL()")
    page.keyboard.press("+")
    assert canvas.evaluate("c => c.toDataURL()") != picture and page.noise == []


def test_decay_by_mouse_and_by_keyboard(open_run, data):
    page = open_run()
    vectors = [vectors_of(data, space) for space in data["spaces"]]

    def expected(decay, clock, row=0):
        examples, found = examples_of(data)[row : row + 1], []
        for v in vectors:
            scores = baselines.nearest_to_user(v, v.any(axis=1), decay, clock)(examples)[0]
            found.append([data["names"][i] for i in np.argsort(-scores, kind="stable")[:10]])
        return found

    def shown():
        return [names_in(page, f"#play--decay [data-space={space['name']}]") for space in data["spaces"]]

    def weights():
        return [float(number.get_attribute("title")) for number in page.locator("#play--decay tbody .cosine span:last-child").all()]

    assert shown() == expected(data["decay"], data["decay_time"])
    page.locator("[name=decay-time][value=days]").check()
    slider = page.locator("#decay-d")
    slider.scroll_into_view_if_needed()
    box = slider.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    seen = []
    for share in (0.4, 0.6, 0.8, 0.99):
        page.mouse.move(box["x"] + share * box["width"], box["y"] + box["height"] / 2)
        seen.append((weights()[0], float(page.locator("#play--decay output").inner_text().split()[0])))
    page.mouse.up()
    assert [w for w, _ in seen] == sorted(w for w, _ in seen) and seen[0][0] < seen[-1][0]  # the newest weighs ever more
    assert shown() == expected(seen[-1][1], "days")

    slider.focus()
    page.keyboard.press("Home")
    assert "the plain mean" in slider.get_attribute("aria-valuetext") and len(set(weights())) == 1
    assert shown() == expected(0.0, "days")
    for _ in range(50):
        page.keyboard.press("ArrowRight")
    decay = float(page.locator("#play--decay output").inner_text().split()[0])
    assert shown() == expected(decay, "days") and sum(weights()) == pytest.approx(1)
    page.keyboard.press("Shift+Tab")  # to the ways of counting age
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert page.locator("#play--decay input:checked[name=decay-time]").get_attribute("value") == "rank"
    assert shown() == expected(decay, "rank")
    page.locator("#decay-customer").select_option("1")
    assert shown() == expected(decay, "rank", 1)
    assert data["names"][data["customers"][1]["next"]] in page.locator("#play--decay .now").inner_text()
    page.get_by_label("Leave out products of the history").check()
    history = {data["names"][i] for i in data["customers"][1]["items"]}
    assert not any(history & set(names) for names in shown())
    assert page.noise == []


def test_a_history_of_ones_own(open_run, data):
    page = open_run()
    page.locator("#decay-customer").select_option("own")
    assert "The history is empty" in page.locator("#play--decay .now").inner_text()
    first, second = findable(data)[:2]
    for name in (first, second):
        page.locator("#decay-search").fill(name)
        page.keyboard.press("Enter")
    rows = page.locator("#play--decay tbody tr")
    assert rows.count() == 2 and rows.first.locator("th").inner_text() == second
    page.locator("[name=decay-time][value=days]").check()
    rows.nth(1).locator("input").fill("30")
    page.locator("#decay-d").focus()
    page.keyboard.press("End")
    assert "100%" in rows.first.inner_text()
    vectors = vectors_of(data, data["spaces"][0])
    index, _ = embeddings.nearest(vectors, vectors[data["names"].index(second)], k=10)
    assert names_in(page, "#play--decay [data-space=word2vec]") == [data["names"][i] for i in index[0]]
    page.locator("#play--decay [data-space=word2vec] .product").nth(3).click()  # look at a recommendation
    assert rows.count() == 3 and rows.first.get_attribute("data-item") == str(index[0][3])
    rows.first.get_by_role("button").click()
    assert rows.count() == 2 and page.noise == []


def test_everything_is_reached_with_the_keyboard(open_run):
    page = open_run()
    page.locator("#explorer-search").focus()
    reached = set()
    for _ in range(400):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id || document.activeElement.className || document.activeElement.tagName"))
        if "decay-unseen" in reached and page.evaluate("document.activeElement.closest('.toy') === null"):
            break
    assert {"map-search", "CANVAS", "decay-customer", "decay-d", "decay-search", "decay-unseen", "product", "remove"} <= reached


def add(page, name: str, gap: float = 0) -> None:
    """Add a visit of one's own to those of the player."""
    page.locator("#player-gap").fill(str(gap))
    page.locator("#player-search").fill(name)
    page.locator("#player-search-list [role=option]").first.click()


@pytest.mark.parametrize("width, scheme", [(360, "dark"), (1440, "light")])  # the others are tested on a smaller page
def test_real_report_fits_and_has_no_violation(open_run, width, scheme):
    page = open_run(width=width, scheme=scheme)
    page.locator("#play--player .ranked summary").first.click()
    add(page, page.evaluate("shelfspace.data.names[0]"), 1)
    page.locator("#play--player .ranked summary").first.click()
    assert page.evaluate("document.scrollingElement.scrollWidth <= window.innerWidth")
    page.locator("#map-search").fill("a")
    page.locator("#map-search-list [role=option]").first.click()
    page.locator("#explorer-search").fill("a")  # with its list of products open
    assert page.evaluate("document.scrollingElement.scrollWidth <= window.innerWidth")
    page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    assert page.evaluate("document.scrollingElement.scrollWidth <= window.innerWidth")
    assert violations(page) == "" and page.noise == []


def test_toys_stand_in_their_chapters(open_run):
    page = open_run()
    for chapter, toy in (("03-validate-embeddings", "explorer"), ("03-validate-embeddings", "map"), ("04-user-embeddings", "decay")):
        assert page.locator(f"[id='{chapter}'] #play--{toy}").is_visible()


def test_without_javascript_and_on_paper_the_toys_stay_away(open_run):
    page = open_run(javascript=False)
    assert not page.locator(".toys:visible").count() and page.locator("#play noscript").count() == 1
    page = open_run()
    page.emulate_media(media="print")
    assert page.locator("#play").is_hidden() and not page.locator(".toys:visible").count() and page.pdf()[:4] == b"%PDF"


def test_hostile_names_are_text(open_file, small_run, tmp_path):
    evil = [HOSTILE, "x" * 10_000, "</script><script>alert(9)</script>", "\u202e", "'; alert(1); //", "${alert(2)}", "<b>"]
    folder = copy_of(
        small_run, tmp_path / "run",
        name=lambda p: [evil[i % len(evil)] for i in range(len(p))],
        category=lambda p: [[HOSTILE, "<img src=x onerror=alert(3)>", None, "y" * 10_000][i % 4] for i in range(len(p))],
    )  # fmt: skip
    drop_chapters_without_toys(folder)
    page = open_file(report.render(folder), width=360)
    page.locator("#play--player .ranked summary").first.click()
    for toy in ("explorer", "map", "decay", "player"):
        page.locator(f"#{toy}-search").fill("script")
        page.locator(f"#{toy}-search-list [role=option]").first.click()
    told = " ".join(page.locator(".toys").all_inner_texts())
    assert "</script><script>alert(9)</script>" in told and clean(HOSTILE)[:30] in told
    page.locator("#play--player .ranked summary").first.click()
    page.locator("#play--map canvas").hover()
    assert page.locator(".toys :is(img, b, iframe)").count() == 0 and page.locator("script").count() == 3
    assert page.evaluate("document.scrollingElement.scrollWidth <= window.innerWidth")
    assert violations(page) == "" and page.noise == []
