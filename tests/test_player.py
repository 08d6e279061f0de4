"""The session player and "Where it fails": what is stored against the run, the browser's arithmetic against Python's, and how they behave."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from conftest import drop_chapters_without_toys, violations
from test_playground import add, numbers, open_run, vectors_of  # noqa: F401, one is a fixture

from shelfspace.files import run_files
from shelfspace.models import baselines, journeys, users
from shelfspace.page import player, playground, report
from shelfspace.sequences import arrays

PLAYER, FAILS = "#play--player", "#play--fails"


@pytest.fixture(scope="module")
def data(small_run) -> dict:
    return playground.read(small_run.folder)


@pytest.fixture(scope="module")
def run(small_run) -> dict:
    """The files that the player stands on."""
    ids = pd.read_parquet(small_run.folder / "products.parquet").product_id.to_numpy().astype(str)
    test = arrays.examples(arrays.load(small_run.folder / "sequences.parquet"), ids, "test")
    read = {name: pd.read_parquet(small_run.folder / f"{name}.parquet") for name in ("journeys", "test_ranks")}
    return read | {"ids": ids, "test": test, "metrics": run_files.read_json(small_run.folder / "metrics.json")}


def names_of_ids(small_run, data: dict) -> dict[str, str]:
    products = pd.read_parquet(small_run.folder / "products.parquet").sort_values("product_id")
    return dict(zip(products.product_id, playground._names(products)))


def name_of(data: dict, item: int) -> str:
    return [*data["names"], *data["player"]["extra"]][item]


# --- what is stored ---


def test_codes_add_up_to_the_score_and_keep_the_order():
    parts = np.random.default_rng(0).normal(size=(500, 9)) * [5, 1, 1, 0.1, 0.1, 0.01, 0.001, 0, 2]
    parts = parts[np.argsort(-parts.sum(axis=1))]
    codes, digits = player.quantise(parts)
    assert digits == 3 and np.abs(codes).max() < 2**15
    assert np.array_equal(codes.sum(axis=1), np.rint(1000 * parts.sum(axis=1)))
    assert (np.diff(codes.sum(axis=1)) <= 0).all() and np.abs(codes / 1000 - parts).max() < 0.006
    assert player.quantise(100 * parts)[1] == 1 and np.abs(player.quantise(100 * parts)[0]).max() < 2**15
    assert player.quantise(np.zeros((2, 3)))[0].tolist() == [[0] * 3] * 2


def test_the_players_data_are_the_runs_and_name_nobody(small_run, data, run):
    found, told, test = data["player"], run["journeys"], run["test"]
    names = names_of_ids(small_run, data)
    rows = told["row"].drop_duplicates().to_numpy()
    leaving = run_files.read_json(small_run.folder / "recommender.json")["model"]
    assert np.array_equal(rows, journeys.choose(test, run["test_ranks"][leaving].to_numpy()))
    assert len(found["journeys"]) == len(rows) and found["parts"][-1]["name"] == "start"
    products, codes = numbers(found["products"], "<u4"), numbers(found["codes"], "<i2", -1, len(found["parts"])).astype(int)
    assert [name_of(data, i) for i in products] == [names[i] for i in told.product_id]
    np.testing.assert_allclose(codes.sum(axis=1) / 10.0 ** found["digits"], told.score, atol=0.51 * 10.0 ** -found["digits"])
    for journey, row in zip(found["journeys"], rows):
        own = slice(test.start[row], test.end[row])
        assert [data["names"][i] for i in journey["items"]] == [names[run["ids"][i]] for i in test.items[own]]
        np.testing.assert_allclose(journey["ages"], test.times[own][-1] - test.times[own], atol=0.0051)
        assert journey["events"] == test.events[own].tolist() and journey["seen"] == test.seen()[row]
        visits, length, following, rank = journey["steps"][-1]
        assert visits == test.lengths[row] and name_of(data, following) == names[run["ids"][test.target[row]]]
        assert rank == run["test_ranks"][leaving][row]  # after the last visit it is what was measured
        assert len(journey["steps"]) == min(journeys.STEPS, visits)
        assert numbers(found["dots"]["ours"], "<u4")[journey["dot"]] == rank
    text = playground.to_json(found)
    assert not any(user in text for user in test.user_ids) and json.loads(text) == found
    assert len(text) <= player.BYTES


def test_the_first_twenty_are_those_that_leave_the_pipeline(small_run, run):
    """For whom recommendations.parquet was written from the same history."""
    told = run["journeys"]
    last = told[(told.visits == told.groupby("row").visits.transform("max")) & (told["rank"] <= 20)]
    left = pd.read_parquet(small_run.folder / "recommendations.parquet").set_index("user_id")
    for row, of in last.groupby("row"):
        assert of.product_id.tolist() == left.loc[run["test"].user_ids[row]].sort_values("rank").product_id.tolist()


def test_dots_are_the_targets_and_at_most_so_many(small_run, data, run, monkeypatch):
    dots, ranks = data["player"]["dots"], run["test_ranks"]
    assert dots["total"] == len(ranks) == len(numbers(dots["ours"], "<u4"))
    kinds = numbers(dots["kinds"], "u1")
    assert (
        np.array_equal(kinds & 1, ranks.seen)
        and [dots["events"][k] for k in (kinds >> 1) & 3] == ranks.event.str.replace("_", " ").tolist()
    )
    assert [dots["targets"][k] for k in (kinds >> 3) & 3] == ranks.target.tolist()
    assert [dots["histories"][k] for k in (kinds >> 5) & 3] == ranks.history.tolist()
    assert np.array_equal(numbers(dots["baseline"], "<u4"), ranks[run["metrics"]["columns"]["all"]["baseline"]])
    monkeypatch.setattr(player, "DOTS", 40)
    few = playground.read(small_run.folder)["player"]
    ours = numbers(few["dots"]["ours"], "<u4")
    assert len(ours) == 40 and all(ours[j["dot"]] == j["steps"][-1][3] for j in few["journeys"])


def test_products_that_the_page_does_not_hold_go_along_by_name(small_run, data):
    few = playground.read(small_run.folder, 30_000)
    assert few["player"]["extra"] and len(few["names"]) < len(data["names"])
    listed = [[name_of(of, i) for i in numbers(of["player"]["products"], "<u4")] for of in (few, data)]
    assert listed[0] == listed[1]
    assert all(max(j["items"]) < len(few["names"]) for j in few["player"]["journeys"])  # their vectors are there


def test_long_names_that_go_along_are_cut():
    names = ["x" * 80, "é" * 80, "short"]
    assert player._within(names, 1000) == names
    cut = player._within(names * 100, 10_000)
    assert sum(len(name.encode()) for name in cut) <= 10_000 and cut[2] == "short" and cut[0].startswith("xxxxxxxx")


def test_a_run_without_the_files_has_no_player_and_other_files_are_refused(small_run, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(small_run.folder, folder)
    ranks = pd.read_parquet(folder / "test_ranks.parquet")
    ranks.iloc[1:].to_parquet(folder / "test_ranks.parquet")
    with pytest.raises(ValueError, match="other test users"):
        playground.read(folder)
    (folder / "test_ranks.parquet").unlink()
    assert playground.read(folder)["player"] is None
    drop_chapters_without_toys(folder)
    text = report.render(folder).read_text(encoding="utf-8")
    assert 'id="play--decay"' in text and 'id="play--player"' not in text


# --- in a browser ---


def history(journey: dict, visits: int) -> arrays.Examples:
    """A customer's first visits, as Python takes them."""
    items, times = np.array(journey["items"][:visits], np.int32), -np.array(journey["ages"][:visits])
    none = np.zeros(1, np.int8)
    zero, end = np.array([0]), np.array([visits])
    return arrays.Examples(items, times, np.zeros(visits, np.int8), zero, end, np.array([0]), none, none.astype(str))


def shown(page) -> list[str]:
    return page.locator(f"{PLAYER} .ranked .what bdi").all_inner_texts()


def test_every_step_of_every_customer_is_pythons(open_run, data):  # noqa: F811
    """Lists, parts, weights, the place on the map, and the list of the page's own, after each visit."""
    page, found = open_run(), data["player"]
    space = next(s for s in data["spaces"] if s["name"] == data["embedding"])
    vectors = vectors_of(data, space)
    known = vectors.any(axis=1)
    products, codes = numbers(found["products"], "<u4"), numbers(found["codes"], "<i2", -1, len(found["parts"])).astype(int)
    drawn, spots = numbers(data["map"]["drawn"], "<u4"), numbers(data["map"]["spots"][space["name"]], "<i2", -1, 2) / 32_767
    xy = np.full((len(vectors), 2), np.nan)
    xy[drawn] = spots
    first = 0
    for number, journey in enumerate(found["journeys"]):
        steps = page.evaluate(f"""(() => {{
            const {{ play, state, update, journeys, listed, line, weigh, placed, main }} = shelfspace.player;
            play({number});
            return {[visits for visits, *_ in journey["steps"]]}.map((visits) => {{
                state.visit = visits;
                update();
                const {{ items, times }} = line(), so = items.slice(0, visits), share = weigh(so, times.slice(0, visits));
                return {{ share, at: placed(so, share), list: listed(journeys[{number}].steps.get(visits)).map(([i, own, sum]) => [i, [...own], sum]),
                    bars: [...document.querySelectorAll("{PLAYER} .visits span")].map((e) => e.dataset.weight).filter(Boolean).map(Number),
                    scores: [...shelfspace.cosines(main, shelfspace.embed(main, so, share))],
                    shown: [...document.querySelectorAll("{PLAYER} .ranked .what bdi")].map((e) => e.innerText),
                    now: document.querySelector("{PLAYER} .now").textContent }};
            }});
        }})()""")
        for (visits, length, following, rank), told in zip(journey["steps"], steps, strict=True):
            part = slice(first, first + length)
            first += length
            assert [i for i, _, _ in told["list"]] == products[part].tolist()
            assert [own for _, own, _ in told["list"]] == codes[part].tolist()
            assert all(sum(own) == score for _, own, score in told["list"])  # the parts sum to the score
            assert told["shown"] == [name_of(data, i) for i in products[part][:20]]
            assert name_of(data, following) in told["now"] and f"place {rank:,} of" in told["now"]
            one = history(journey, visits)
            matrix = users.history_weights(one, len(vectors), data["decay"], data["decay_time"], known).toarray()[0]
            np.testing.assert_allclose(np.bincount(one.items, told["share"], len(vectors)), matrix, atol=1e-6)
            np.testing.assert_allclose(told["bars"], told["share"], atol=1e-9)
            on_map = ~np.isnan(xy[:, 0]) & (matrix > 0)
            np.testing.assert_allclose(told["at"], (matrix[on_map] / matrix[on_map].sum()) @ xy[on_map], atol=1e-6)
            expected = baselines.nearest_to_user(vectors, known, data["decay"], data["decay_time"])(one)[0]
            np.testing.assert_allclose(told["scores"], expected, atol=2e-6)
    assert first == len(products) and page.noise == []


def test_scrubbing_by_mouse_keyboard_and_touch(open_run, data, browser, small_run):  # noqa: F811
    page, (first, *_) = open_run(), data["player"]["journeys"]
    slider, n = page.locator("#player-visit"), len(first["items"])
    assert slider.input_value() == str(n) and slider.get_attribute("min") == str(first["steps"][0][0])
    slider.focus()
    page.keyboard.press("ArrowLeft")
    assert slider.input_value() == str(n - 1) and f"Visit {n - 1} of {n}" in slider.get_attribute("aria-valuetext")
    assert "The next visit" in page.locator(f"{PLAYER} .now").inner_text()
    page.keyboard.press("Home")
    assert slider.input_value() == slider.get_attribute("min")
    page.locator(f"{PLAYER} .visits span").last.click()
    assert slider.input_value() == str(n) and "What came next" in page.locator(f"{PLAYER} .now").inner_text()
    page.locator("#player-customer").select_option("1")
    second = data["player"]["journeys"][1]
    assert f"of {len(second['items'])}" in page.locator(f"{PLAYER} output").inner_text() and page.noise == []
    context = browser.new_context(viewport={"width": 360, "height": 780}, has_touch=True, is_mobile=True, offline=True)
    try:
        phone = context.new_page()
        phone.goto((small_run.folder / "report.html").as_uri())
        phone.locator(f"{PLAYER} .visits span").nth(n - 2).tap()
        assert phone.locator("#player-visit").input_value() == str(n - 1)
        phone.locator(f"{PLAYER} .ranked summary").first.tap()
        phone.locator(f"{PLAYER} .ranked .part").first.wait_for()
        assert phone.locator(f"{PLAYER} .ranked .part").count() == len(data["player"]["parts"])
        phone.locator(f"{PLAYER} .switches label").first.tap()
        assert not phone.locator(f"{PLAYER} .switches input").first.is_checked()
    finally:
        context.close()


def test_scrubbing_is_quick(open_run):  # noqa: F811
    times = open_run().evaluate("""(() => {
        const { play, state, update, journeys } = shelfspace.player, times = [];
        journeys.forEach(({ steps }, i) => { play(i); for (const visit of steps.keys()) { const begun = performance.now(); state.visit = visit; update(); times.push(performance.now() - begun); } });
        return times;
    })()""")
    print(f"a step of the player takes {np.median(times):.1f} ms, at most {max(times):.1f} ms, in {len(times)}")
    assert np.median(times) < 100


def test_a_recommendation_opens_into_parts_that_can_be_switched_off(open_run, data):  # noqa: F811
    page, found = open_run(), data["player"]
    products, codes = numbers(found["products"], "<u4"), numbers(found["codes"], "<i2", -1, len(found["parts"])).astype(int)
    lengths = [length for _, length, _, _ in found["journeys"][0]["steps"]]
    part = slice(sum(lengths[:-1]), sum(lengths))
    entry = page.locator(f"{PLAYER} .ranked details").nth(2)
    entry.locator("summary").click()
    entry.locator(".part").first.wait_for()  # which come once the entry has told that it is open
    texts = entry.locator(".part > span:last-child").all_inner_texts()
    assert texts == [f"{code / 10.0 ** found['digits']:.{found['digits']}f}".replace("-0.000", "0.000") for code in codes[part][2]] or [
        float(text) for text in texts
    ] == pytest.approx(codes[part][2] / 10.0 ** found["digits"])
    score = float(entry.get_attribute("data-score"))
    assert sum(round(float(text) * 10 ** found["digits"]) for text in texts) == round(score * 10 ** found["digits"])  # to the shown digits
    item = entry.get_attribute("data-item")
    assert page.locator(f"{PLAYER} .switches input").count() == len(found["parts"]) - 1
    on = np.ones(len(found["parts"]), bool)
    for off in (np.abs(codes[part][:, :-1]).sum(axis=0).argmax(), 0):
        page.locator(f"{PLAYER} .switches input").nth(off).uncheck()
        on[off] = False
        left = codes[part][:, on].sum(axis=1)
        order = np.argsort(-left, kind="stable")
        assert shown(page) == [name_of(data, i) for i in products[part][order][:20]]
        following = found["journeys"][0]["steps"][-1][2]
        place = np.flatnonzero(products[part][order] == following)
        now = page.locator(f"{PLAYER} .now").inner_text()
        assert (f"; {place[0] + 1} without the parts" if len(place) else "not among the sixty") in now
    again = page.locator(f"{PLAYER} .ranked details[data-item='{item}']")
    assert again.count() == 0 or again.get_attribute("open") is not None  # what was open stays so
    page.locator(f"{PLAYER} [data-reset]").click()
    assert (
        shown(page) == [name_of(data, i) for i in products[part][:20]]
        and page.locator(f"{PLAYER} .switches input:not(:checked)").count() == 0
    )
    assert page.noise == []


def test_visits_of_ones_own_and_the_link_that_brings_them_back(open_run, data):  # noqa: F811
    page, journey = open_run(), data["player"]["journeys"][0]
    space = next(s for s in data["spaces"] if s["name"] == data["embedding"])
    vectors, chosen = vectors_of(data, space), [data["names"][3], data["names"][7]]
    page.locator(f"{PLAYER} .switches input").first.uncheck()
    add(page, chosen[0], 2)
    add(page, chosen[1], 0.5)
    n = len(journey["items"])
    assert page.locator("#player-visit").input_value() == str(n + 2) and page.locator(f"{PLAYER} .visits span").count() == n + 2
    longer = {"items": [*journey["items"], *(data["names"].index(page_name) for page_name in own_names(page))]}
    longer["ages"] = [age + 2.5 for age in journey["ages"]] + [0.5, 0.0]

    def expected(of, visits):
        scores = baselines.nearest_to_user(vectors, vectors.any(axis=1), data["decay"], data["decay_time"])(history(of, visits))[0]
        return [data["names"][i] for i in np.argsort(-scores, kind="stable")[:20]]

    assert shown(page) == expected(longer, n + 2)
    assert "answered by the page itself" in page.locator(f"{PLAYER} .now").inner_text()
    entry = page.locator(f"{PLAYER} .ranked details").first
    entry.locator("summary").click()
    entry.locator(".part").first.wait_for()  # which come once the entry has told that it is open
    values = [float(text) for text in entry.locator(".part > span:last-child").all_inner_texts()]
    assert sum(values) == pytest.approx(float(entry.get_attribute("data-score")), abs=0.0006 * len(values))
    slider = page.locator("#player-visit")
    slider.focus()
    page.keyboard.press("ArrowLeft")
    assert shown(page) == expected(longer | {"ages": [age - 0.5 for age in longer["ages"]]}, n + 1)
    link = page.locator(f"{PLAYER} [data-state]").get_attribute("href")
    lists = shown(page)

    other = open_run()
    other.goto(other.url.split("#")[0] + link)
    other.reload()
    assert shown(other) == lists and own_names(other) == own_names(page)
    assert other.locator("#player-visit").input_value() == str(n + 1) and not other.locator(f"{PLAYER} .switches input").first.is_checked()
    other.locator(f"{PLAYER} .added button").first.click()
    assert len(own_names(other)) == 1
    other.locator(f"{PLAYER} [data-reset]").click()
    assert own_names(other) == [] and other.locator("#player-visit").input_value() == str(n)
    other.locator("#player-customer").select_option("-1")
    assert "No visit yet" in other.locator(f"{PLAYER} .now").inner_text() and shown(other) == []
    add(other, chosen[0])
    assert shown(other) == expected({"items": [data["names"].index(own_names(other)[0])], "ages": [0.0]}, 1)
    assert page.noise == [] and other.noise == []


def own_names(page) -> list[str]:
    return page.locator(f"{PLAYER} .added bdi").all_inner_texts()


@pytest.mark.parametrize(
    "state", ["999&visit=-4&off=start,<b>&own=1e9@3,x,2@-1,@,0@1e6", "1.5", "", "-1&own=" + ",".join(["0@1"] * 500), "0&visit=NaN"]
)
def test_a_link_that_holds_anything_does_no_harm(open_run, data, state):  # noqa: F811
    page = open_run()
    page.evaluate("(state) => { location.hash = `player=${state}`; }", state)
    page.wait_for_timeout(50)
    assert page.locator(f"{PLAYER} output").count() == 1 and page.locator(f"{PLAYER} .added li").count() <= 50
    assert page.evaluate("shelfspace.player.state.visit") >= 0 and page.noise == []


def test_dots_by_mouse_keyboard_and_filter(open_run, data):  # noqa: F811
    page, dots = open_run(), data["player"]["dots"]
    ours, theirs, kinds = numbers(dots["ours"], "<u4"), numbers(dots["baseline"], "<u4"), numbers(dots["kinds"], "u1")
    now = page.locator("#fails-now")

    def counted(mask):
        return [
            int((mask & a & b).sum())
            for a, b in ((ours <= 20, theirs <= 20), (ours <= 20, theirs > 20), (ours > 20, theirs <= 20), (ours > 20, theirs > 20))
        ]

    def told():
        words = now.inner_text().replace(",", "")
        found = [
            words.split(key)[1].split()[0]
            for key in ("both find ", f"only {data['player']['model']} ", f"only {data['player']['baseline']} ", "neither ")
        ]
        return [int(word.rstrip(".")) for word in found]

    everybody = np.ones(len(ours), bool)
    assert told() == counted(everybody)
    for place, (shift, width) in enumerate(((0, 1), (1, 3), (3, 3), (5, 3))):
        page.locator(f"{FAILS} .filters select").nth(place).select_option("1")
        assert told() == counted(((kinds >> shift) & width) == 1)
        page.locator(f"{FAILS} .filters select").nth(place).select_option("-1")
    canvas = page.locator(f"{FAILS} canvas")
    canvas.scroll_into_view_if_needed()
    number = 3
    x, y = page.evaluate(f"shelfspace.player.where(shelfspace.data.player.journeys[{number}].dot)")
    canvas.hover(position={"x": x, "y": y})
    assert "This one: place" in page.locator(f"{FAILS} .one").inner_text()
    canvas.click(position={"x": x, "y": y})
    customer = page.evaluate("shelfspace.player.state.customer")
    at = [page.evaluate(f"shelfspace.player.where(shelfspace.data.player.journeys[{c}].dot)") for c in (customer, number)]
    assert customer == number or np.hypot(*np.subtract(*at)) < 8  # on top of each other
    assert page.evaluate("document.activeElement.id") == "player-visit"
    canvas.focus()
    seen = set()
    for _ in range(len(data["player"]["journeys"])):
        page.keyboard.press("ArrowRight")
        seen.add(page.locator(f"{FAILS} .one").inner_text())
    assert len(seen) == len(data["player"]["journeys"])  # the arrows reach every customer
    page.keyboard.press("ArrowLeft")
    chosen = int(page.locator(f"{FAILS} .one").inner_text().split("customer ")[1].rstrip("."))
    page.keyboard.press("Enter")
    assert page.locator("#player-customer").input_value() == str(chosen - 1) and page.noise == []


@pytest.mark.parametrize("width, scheme", [(768, "light"), (1440, "dark")])  # test_playground has the others, with this and all else open
def test_they_fit_and_have_no_violation(open_run, width, scheme):  # noqa: F811
    page = open_run(width=width, scheme=scheme)
    page.locator(f"{PLAYER} .ranked summary").first.click()
    add(page, page.evaluate("shelfspace.data.names[0]"), 1)
    page.locator(f"{PLAYER} .ranked summary").first.click()
    assert page.evaluate("document.scrollingElement.scrollWidth <= window.innerWidth")
    assert violations(page) == "" and page.noise == []


def test_they_are_short(open_run):  # noqa: F811
    """Words that stand there before anybody plays, list and names aside; screens of a phone."""
    page = open_run(width=360, height=780)
    toys = f"{PLAYER}, {FAILS}, #theatre"
    words = page.evaluate(f"""[...document.querySelectorAll("{toys}")].map((toy) => {{
        const copy = toy.cloneNode(true);
        copy.querySelectorAll("option, .ranked, script, [hidden]").forEach((e) => {{ if (e !== copy) e.remove(); }});
        return copy.textContent.trim().split(/\\s+/).length;
    }})""")
    heights = page.evaluate(f"""[...document.querySelectorAll("{toys}")].map((toy) => toy.getBoundingClientRect().height)""")
    print(f"words {words}, heights {heights}")
    assert sum(words) <= 400 and sum(heights) <= 5 * 780
