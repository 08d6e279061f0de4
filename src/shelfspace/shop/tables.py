"""The simulated shop as tables: its events with readable ids, and the truth behind them."""

from __future__ import annotations

import numpy as np
import pandas as pd

from shelfspace.shop.assortment import Catalogue
from shelfspace.shop.catalogue import BRANDS, CATALOGUE

START = np.datetime64("2024-03-04T00:00:00", "us")  # a Monday
EVENTS = ("search", "view", "add_to_cart", "purchase")


def truth(shop: Catalogue, traits: dict[str, np.ndarray]) -> dict[str, pd.DataFrame]:
    """The ground truth by name, as in `shelfspace.shop.simulation.Shop`: products, users, complements and substitutes, in order of id."""
    by_id, place = _by_id(shop)
    columns = "product_id name category brand price description department line tier pull".split()
    products = shop.frame.assign(tier=shop.tier)[columns].iloc[by_id].reset_index(drop=True)
    favourite = traits["favourite"]
    departments = list(BRANDS)
    of_category = np.array([departments.index(row.department) for row in CATALOGUE])
    categories = np.array([row.name for row in CATALOGUE], dtype=object)[favourite]
    brands = np.array([BRANDS[name].split() for name in departments], dtype=object)[np.arange(len(BRANDS)), traits["brands"]]
    users = pd.DataFrame({
        "user_id": _user_ids(len(favourite)),
        "decay": traits["decay"].round(4),
        "price_tier": traits["tier"].round(4),
        "favourite_category": categories[:, 0],
        "favourite_brand": brands[np.arange(len(brands)), of_category[favourite[:, 0]]],
        "favourite_categories": [",".join(row) for row in categories],
        "favourite_brands": [",".join(row) for row in brands],
    })  # fmt: skip
    ids = products["product_id"].to_numpy()
    moves = {"complements": ("complement_id", shop.complements), "substitutes": ("substitute_id", shop.substitutes)}
    return {"products": products, "users": users} | {name: _moves(ids, place, goal, *chances) for name, (goal, chances) in moves.items()}


def _moves(ids: np.ndarray, place: np.ndarray, goal: str, places: np.ndarray, cumulative: np.ndarray) -> pd.DataFrame:
    """Where moves from each product go, and with what chance: product_id, `goal`, chance; by both ids."""
    chance = np.diff(cumulative, axis=1, prepend=0.0)
    owner, slot = np.nonzero(chance > 0)
    first, second = place[owner], place[places[owner, slot]]
    order = np.lexsort((second, first))
    return pd.DataFrame({"product_id": ids[first[order]], goal: ids[second[order]], "chance": chance[owner, slot][order]})


def _user_ids(users: int) -> list[str]:
    width = max(6, len(str(users - 1)))
    return [f"U{number:0{width}d}" for number in range(users)]


def _by_id(shop: Catalogue) -> tuple[np.ndarray, np.ndarray]:
    """The products' order by id, and the place of each in it."""
    by_id = np.argsort(shop.frame["product_id"].to_numpy(dtype=str), kind="stable")
    place = np.empty(len(by_id), dtype=np.int32)
    place[by_id] = np.arange(len(by_id), dtype=np.int32)
    return by_id, place


def ids(shop: Catalogue, users: int) -> tuple[pd.Index, pd.Index, np.ndarray]:
    """What `columns` needs of all users and products: their ids, in order, and the place of each product among these."""
    by_id, place = _by_id(shop)
    return pd.Index(_user_ids(users)), pd.Index(shop.frame["product_id"].iloc[by_id]), place


def columns(shop: Catalogue, log: dict[str, np.ndarray], ids: tuple[pd.Index, pd.Index, np.ndarray]) -> pd.DataFrame:
    """Events as columns of `shelfspace.shop.simulation.Shop.events`; `number` is that of the session."""
    user_ids, product_ids, place = ids
    return pd.DataFrame({
        "user_id": pd.Categorical.from_codes(log["user"], user_ids),
        "session_id": log["number"],
        "timestamp": START + (log["time"] * 1_000).astype("timedelta64[us]"),
        "event": pd.Categorical.from_codes(log["event"], EVENTS),
        "product_id": pd.Categorical.from_codes(np.where(log["product"] < 0, -1, place[log["product"]]), product_ids),
        "query": pd.Categorical.from_codes(log["query"], shop.texts),
    })  # fmt: skip
