"""The simulated shop: what it promises of its log, its ground truth and its files."""

import hashlib
import os
import subprocess
import sys

import duckdb
import numpy as np
import pandas as pd
import pytest

from shelfspace.shop import catalogue, simulation, tables, write


@pytest.fixture(scope="module")
def small():
    return simulation.simulate(users=4_000, products=600, seed=3)


@pytest.fixture(scope="module")
def visits(small):
    """One row per visit in order of user and time; a product that follows itself is one visit."""
    views = small.events[small.events["event"] != "search"].sort_values(["user_id", "timestamp"], kind="stable")
    following = views["user_id"].eq(views["user_id"].shift()) & views["product_id"].eq(views["product_id"].shift())
    views = views[~following].astype({"user_id": str, "product_id": str})
    return views.merge(small.products[["product_id", "category"]], on="product_id").reset_index(drop=True)


def test_events_have_the_promised_columns_and_refer_to_products_and_users(small):
    events = small.events
    assert list(events.columns) == ["user_id", "session_id", "timestamp", "event", "product_id", "query"]
    assert events["timestamp"].dtype == "datetime64[us]" and events["timestamp"].is_monotonic_increasing
    assert set(events["event"]) == {"view", "search", "add_to_cart", "purchase"}
    searches = events["event"] == "search"
    assert events.loc[searches, "product_id"].isna().all() and events.loc[searches, "query"].notna().all()
    assert events.loc[~searches, "product_id"].notna().all() and events.loc[~searches, "query"].isna().all()
    assert set(events["product_id"].dropna()) <= set(small.products["product_id"])
    assert set(events["user_id"]) == set(small.users["user_id"])
    assert len(small.users) == 4_000 and small.users["user_id"].is_unique


def test_times_lie_within_the_days_and_have_nights(small):
    times = small.events["timestamp"]
    assert times.min() >= tables.START and times.max() < tables.START + np.timedelta64(28, "D")
    hours = times.dt.hour.value_counts()
    assert hours[20] > 4 * hours[3]
    assert times.dt.date.nunique() == 28


def test_sessions_belong_to_one_user_and_are_those_of_the_thirty_minute_rule(small):
    events = small.events.sort_values(["user_id", "timestamp"], kind="stable")
    assert events.groupby("session_id")["user_id"].nunique().eq(1).all()
    gap = events["timestamp"].diff().dt.total_seconds()
    new = events["user_id"].ne(events["user_id"].shift()) | (gap > 1_800)
    assert (new.cumsum().to_numpy() == pd.factorize(events["session_id"])[0] + 1).all()


def test_a_purchase_follows_a_cart_add_and_that_a_view_in_the_same_session(small):
    kinds = small.events[small.events["event"] != "search"].reset_index(names="row")
    keys = ["session_id", "product_id"]
    first = kinds.pivot_table(index=keys, columns="event", values="row", aggfunc="min", observed=True)
    carts = first[first["add_to_cart"].notna()]
    assert (carts["view"] < carts["add_to_cart"]).all()
    purchases = first[first["purchase"].notna()]
    assert len(purchases) > 100 and (purchases["add_to_cart"] < purchases["purchase"]).all()
    counts = kinds["event"].value_counts()
    assert counts["view"] > 5 * counts["add_to_cart"] > 5 * counts["purchase"]


def test_products_are_varied_and_their_ids_tell_nothing(small):
    products = small.products
    assert products["product_id"].is_monotonic_increasing and products["product_id"].str.fullmatch(r"P\d{5}").all()
    assert products["name"].is_unique and products["name"].str.len().between(8, 90).all()
    assert products["category"].nunique() == len(catalogue.CATALOGUE)
    assert products["category"].eq(products["category"].shift()).mean() < 0.1  # neighbours in id, not in category
    assert (products["price"] > 0).all() and (products["price"].round(2) == products["price"]).all()
    assert products[["name", "category", "brand", "price", "description"]].notna().all().all()
    assert products["pull"].sum() == pytest.approx(1.0)
    nouns = {row.name: row.nouns.split(",") for row in catalogue.CATALOGUE}
    for row in products.itertuples():
        assert any(noun in row.description and noun in row.name for noun in nouns[row.category])


def test_the_catalogue_names_only_categories_it_has():
    names = [row.name for row in catalogue.CATALOGUE]
    assert len(set(names)) == len(names) and len(names) >= 30
    for place, row in enumerate(catalogue.CATALOGUE):
        assert set(filter(None, row.complements.split(","))) <= set(names) - {row.name}
        assert row.department in catalogue.BRANDS
        assert not row.fits or row.fits in names[:place]
        assert len(row.features.split(";")) == 2


def test_complements_are_directed_and_fit_the_model_line(small):
    of = small.products.set_index("product_id")
    pairs = small.complements
    assert not pairs.duplicated().any() and (pairs["product_id"] != pairs["complement_id"]).all()
    left, right = of.loc[pairs["product_id"]], of.loc[pairs["complement_id"]]
    allowed = {(row.name, goal) for row in catalogue.CATALOGUE for goal in row.complements.split(",")}
    assert set(zip(left["category"], right["category"], strict=True)) <= allowed
    made_for = right["category"].isin([row.name for row in catalogue.CATALOGUE if row.fits]).to_numpy()
    assert made_for.sum() > 50 and (left["line"].to_numpy() == right["line"].to_numpy())[made_for].all()
    assert (left["category"].to_numpy() == "phones").any()


def test_users_have_true_traits(small):
    users = small.users
    assert users["decay"].between(0.02, 8.0).all() and 0.3 < users["decay"].median() < 0.55
    assert users["price_tier"].std() > 0.5
    assert set(users["favourite_category"]) <= {row.name for row in catalogue.CATALOGUE}
    assert set(users["favourite_brand"]) <= {name for names in catalogue.BRANDS.values() for name in names.split()}


def test_users_are_active_enough_and_products_are_all_seen(small, visits):
    distinct = visits.groupby("user_id")["product_id"].nunique()
    assert (distinct >= 5).mean() >= 0.75
    assert 12 < len(small.events) / 4_000 < 15
    assert visits["product_id"].nunique() >= 0.99 * 600


def test_popularity_has_a_head_and_a_tail(visits):
    counts = visits["product_id"].value_counts()
    assert 0.25 < counts.iloc[:60].sum() / counts.sum() < 0.5
    assert counts.iloc[0] > 20 * counts.iloc[-1]


def test_returns_are_as_frequent_as_in_real_logs(visits):
    last = ~visits.duplicated("user_id", keep="last")
    seen = visits.duplicated(["user_id", "product_id"])
    assert 0.15 < seen[last].mean() < 0.35


def test_the_next_product_follows_recent_interest_and_lasting_taste(small, visits):
    """Next visits keep to the newest category, less so across sessions, and to the favourite one."""
    same_user = visits["user_id"].eq(visits["user_id"].shift())
    within = same_user & visits["session_id"].eq(visits["session_id"].shift())
    stays = visits["category"].eq(visits["category"].shift())
    by_chance = (visits["category"].value_counts(normalize=True) ** 2).sum()
    assert stays[within].mean() > 8 * by_chance
    assert 3 * by_chance < stays[same_user & ~within].mean() < stays[within].mean()
    favourite = visits["user_id"].map(small.users.set_index("user_id")["favourite_category"])
    assert (visits["category"] == favourite).mean() > 4 * by_chance


def test_users_with_a_larger_decay_leave_earlier_sessions_behind(small, visits):
    decay = visits["user_id"].map(small.users.set_index("user_id")["decay"])
    first = ~visits.duplicated("session_id") & visits["user_id"].eq(visits["user_id"].shift())
    days = visits["timestamp"].diff().dt.total_seconds() / 86_400
    after_a_while = first & days.between(1, 6)
    stays = visits["category"].eq(visits["category"].shift())
    slow, quick = after_a_while & (decay < 0.25), after_a_while & (decay > 0.8)
    assert slow.sum() > 200 and quick.sum() > 200
    assert stays[slow].mean() > 1.2 * stays[quick].mean()


def test_what_is_in_the_cart_calls_for_its_complement(small, visits):
    pairs = set(zip(small.complements["product_id"], small.complements["complement_id"], strict=True))
    events = small.events[small.events["event"] != "search"].sort_values(["user_id", "timestamp"], kind="stable")
    in_cart = set(zip(*(events.loc[events["event"] == "add_to_cart", c] for c in ("session_id", "product_id"))))
    before = visits.shift()
    same = visits["session_id"].eq(before["session_id"])
    moves = visits[same].assign(previous=before.loc[same, "product_id"])
    goes = pd.Series([pair in pairs for pair in zip(moves["previous"], moves["product_id"])], index=moves.index)
    cart = [key in in_cart for key in zip(moves["session_id"], moves["previous"])]
    assert goes[cart].mean() > 1.5 * goes[~np.array(cart)].mean() > 0.02


def test_decayed_interest_predicts_better_than_the_mean_and_the_last_visit(visits):
    """Guess the category of the last visit from decayed counts of categories: best at an interior decay."""
    categories, names = pd.factorize(visits["category"])
    days = (visits["timestamp"] - visits["timestamp"].min()).dt.total_seconds().to_numpy() / 86_400
    users = pd.factorize(visits["user_id"])[0]
    last = np.flatnonzero(np.diff(users, append=-1))
    enough = np.bincount(users)[users[last]] >= 6
    newest = days[last - 1][users]

    def rank_of_target(decay):
        weight = np.exp(-decay * np.maximum(newest - days, 0.0))
        weight[last] = 0.0
        score = np.zeros((len(last), len(names)))
        np.add.at(score, (users, categories), weight)
        target = score[np.arange(len(last)), categories[last]][:, None]
        rank = 1 + (score > target).sum(axis=1) + ((score == target).sum(axis=1) - 1) / 2
        return (1 / rank[enough]).mean()

    interior = rank_of_target(0.5)
    assert interior > rank_of_target(0.0) + 0.015
    assert interior > rank_of_target(1e4) + 0.02


def test_embeddings_find_the_category_and_the_complements_again(small, visits):
    """A count-based stand-in for word2vec: the spectrum of shifted co-occurrence within a window of three."""
    place = pd.Series(range(600), index=small.products["product_id"])
    items, users = place[visits["product_id"]].to_numpy(), pd.factorize(visits["user_id"])[0]
    together = np.zeros((600, 600))
    for step in (1, 2, 3):
        near = users[step:] == users[:-step]
        np.add.at(together, (items[step:][near], items[:-step][near]), 1.0)
    together += together.T
    total = together.sum(axis=1)
    information = np.log(np.maximum(together * together.sum() / np.outer(total, total), 1.0))
    left, values, _ = np.linalg.svd(information)
    vectors = left[:, :50] * np.sqrt(values[:50])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    cosine = vectors @ vectors.T
    category = small.products["category"].to_numpy()
    same = (category[:, None] == category) & ~np.eye(600, dtype=bool)
    other = category[:, None] != category
    rng = np.random.default_rng(0)
    auc = np.mean([(rng.choice(c[s], 200) > rng.choice(c[o], 200)).mean()
                   for c, s, o in zip(cosine, same, other, strict=True) if s.any()])  # fmt: skip
    assert auc > 0.95
    pairs = (
        place[small.complements["product_id"]].to_numpy(),
        place[small.complements["complement_id"]].to_numpy(),
    )
    assert np.mean([(cosine[a, b] > cosine[a, other[a]]).mean() for a, b in zip(*pairs, strict=True)]) > 0.8


@pytest.mark.parametrize(("users", "products", "days"), [(1, len(catalogue.CATALOGUE), 1), (50, 60, 3), (300, 200, 1)])
def test_small_shops_work(users, products, days):
    small = simulation.simulate(users=users, products=products, days=days)
    assert small.events["user_id"].nunique() == users and len(small.products) == products
    times = small.events["timestamp"]
    assert times.min() >= tables.START and times.max() < tables.START + np.timedelta64(days, "D")
    assert small.products["name"].is_unique


def test_users_beyond_one_block_and_many_products(small):
    large = simulation.simulate(users=21_000, products=6_000)
    assert large.events["session_id"].nunique() == large.events["session_id"].max()
    assert large.events.groupby("session_id")["user_id"].nunique().eq(1).all()
    assert large.products["name"].is_unique
    assert large.events["user_id"].nunique() == 21_000


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"users": 0}, "users is 0; it must be a whole number of at least 1."),
        ({"users": 2.5}, "users is 2.5; it must be a whole number of at least 1."),
        ({"products": 10}, f"products is 10; .* at least {len(catalogue.CATALOGUE)}, one for each category."),
        ({"days": 0}, "days is 0; it must be a whole number of at least 1."),
        ({"seed": -1}, "seed is -1; it must be a whole number of at least 0."),
    ],
)
def test_impossible_sizes_are_refused_in_a_sentence(given, sentence):
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        simulation.simulate(**given)


def test_another_seed_gives_another_shop():
    one, other = (simulation.simulate(users=50, products=60, seed=seed) for seed in (0, 1))
    assert not one.products["name"].equals(other.products["name"])
    assert len(one.events) != len(other.events) or not one.events.equals(other.events)


WRITE = """
import sys
from pathlib import Path
from shelfspace.shop import simulation, write
made = simulation.simulate(users=200, products=80, seed=5)
for ending in ("csv", "parquet", "jsonl"):
    write.write(made, Path(sys.argv[1]) / f"log.{ending}")
write.write_truth(made, sys.argv[1])
"""


def test_one_seed_writes_the_same_bytes_in_every_process(tmp_path):
    hashes = []
    for salt in ("1", "2"):
        folder = tmp_path / salt
        subprocess.run([sys.executable, "-c", WRITE, str(folder)], check=True, env=os.environ | {"PYTHONHASHSEED": salt})
        files = sorted(folder.iterdir())
        hashes.append({file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files})
    truth = {f"truth_{name}.parquet" for name in ("complements", "products", "substitutes", "users")}
    assert hashes[0] == hashes[1] and set(hashes[0]) == {"log.csv", "log.parquet", "log.jsonl"} | truth


@pytest.mark.parametrize("ending", ["csv", "parquet", "jsonl"])
def test_written_files_hold_the_joined_events(tmp_path, ending, monkeypatch):
    made = simulation.simulate(users=100, products=80)
    monkeypatch.setattr(write, "BATCH", 500)
    path = write.write(made, tmp_path / "new" / f"log.{ending}")
    assert [file.name for file in path.parent.iterdir()] == [path.name]  # nothing temporary is left
    read = duckdb.sql(f"from '{path}'").df()
    assert tuple(read.columns) == write.OUTPUT and len(read) == len(made.events)
    expected = made.events.astype({"product_id": object}).merge(made.products, on="product_id", how="left")
    for column in ("user_id", "product_id", "event", "query", "name", "category", "brand", "description"):
        assert (read[column].fillna("") == expected[column].astype(object).fillna("")).all(), column
    assert np.allclose(read["price"], expected["price"], equal_nan=True)
    assert (pd.to_datetime(read["timestamp"]).astype("datetime64[us]") == expected["timestamp"]).all()


def test_another_ending_is_refused_and_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    made = simulation.simulate(users=5, products=60)
    with pytest.raises(ValueError, match=r"log.xlsx must end in one of .csv, .parquet, .jsonl"):
        write.write(made, tmp_path / "log.xlsx")
    (tmp_path / "log.csv").write_text("before")
    joined = write._joined

    def broken(events, products):
        yield next(joined(events, products))
        raise OSError("the second batch is lost")

    monkeypatch.setattr(write, "_joined", broken)
    with pytest.raises(Exception, match="the second batch is lost"):
        write.write(made, tmp_path / "log.csv")
    assert [file.name for file in tmp_path.iterdir()] == ["log.csv"]
    assert (tmp_path / "log.csv").read_text() == "before"


def test_truth_can_be_read_back(tmp_path):
    made = simulation.simulate(users=20, products=60)
    for path in write.write_truth(made, tmp_path / "truth"):
        frame = getattr(made, path.stem.removeprefix("truth_"))
        assert pd.read_parquet(path).astype(str).equals(frame.astype(str))


@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_a_shop_simulated_into_a_file_is_the_same_to_the_byte(tmp_path, ending):
    made = simulation.simulate(users=20_300, products=60, days=3, seed=5, visits=2.0)  # more than a block of users
    write.write(made, tmp_path / f"one.{ending}")
    write.write_truth(made, tmp_path / "one")
    events = write.simulate(tmp_path / f"two.{ending}", 20_300, 60, 3, 5, 2.0, tmp_path / "two")
    assert events == len(made.events)
    assert (tmp_path / f"two.{ending}").read_bytes() == (tmp_path / f"one.{ending}").read_bytes()
    for path in (tmp_path / "one").iterdir():
        assert (tmp_path / "two" / path.name).read_bytes() == path.read_bytes()
