"""What the toys of the page play with: products, quantised vectors, a map of them, and a few customers' histories.

`read` takes them from a run folder as one JSON-able dict. The browser does with them what `shelfspace.models.users` and
`shelfspace.models.baselines` do here: decayed weights, user embeddings, cosines. Vectors travel as one byte per number, so the
two agree on `restore(*quantise(vectors))`, not on the vectors themselves.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path

import numpy as np
import pandas as pd

from shelfspace.files import run_files
from shelfspace.page import player
from shelfspace.page.palette import LABELS, color_of, colors_of, label_of
from shelfspace.page.words import clean, short
from shelfspace.sequences import arrays
from shelfspace.vectors import embeddings

NAME, GROUP = 80, 40  # characters of a product's name, and of its category
CUSTOMERS, VISITS = 12, 16  # histories to choose from, and their newest visits
COLOURED = 10  # groups that can be told apart by colour and marker
QUARTERS = ("fewest events", "few", "many", "most events")  # groups of a log without categories


def read(run_dir: str | Path, room: int = 3_000_000) -> dict | None:
    """Everything the toys need, from the files of a run.

    Parameters
    ----------
    run_dir : path
    room : int
        Bytes of JSON to keep within, the player's apart. Where it does not do for all products, the most visited ones are taken, and
        those in the customers' histories.

    Returns
    -------
    dict or None
        None where the run has no product embeddings. Else ``total`` (products of the run), ``names``, ``counts``,
        ``group`` (place in ``groups``, -1 for none), ``groups``, ``grouped_by``, ``coloured``, ``spaces``, ``map``,
        ``customers``, ``decay``, ``decay_time``, ``embedding``, ``player`` (`shelfspace.page.player`; None where the run followed
        nobody). Products stand in order of their visits, the most
        visited first. Arrays are base64 of little-endian numbers.

    Raises
    ------
    ValueError
        If a file is missing or cannot be read.
    """
    run_dir = Path(run_dir)
    files = sorted((run_dir / "product_embeddings").glob("*.parquet"), key=_order)
    if not files:
        return None
    try:
        products = pd.read_parquet(run_dir / "products.parquet")
        products["product_id"] = products.product_id.astype(str)
        products = products.sort_values("product_id", ignore_index=True)
        spaces = {file.stem: embeddings.load(file) for file in files}
        table = arrays.load(run_dir / "sequences.parquet")
        spots = run_dir / "tsne.parquet"
        spots = pd.read_parquet(spots) if spots.exists() else pd.DataFrame({"product_id": []})
        chosen = run_dir / "decay.json"
        chosen = run_files.read_json(chosen) if chosen.exists() else {}
        ids = products.product_id.to_numpy().astype(str)
        stored = player.load(run_dir, arrays.examples(table, ids, "test"))
    except (OSError, ValueError, KeyError) as error:  # pyarrow's errors are ValueErrors or OSErrors
        raise ValueError(f"The toys of the page need files of {run_dir} that cannot be read: {clean(str(error))}") from None
    picked = _customers(arrays.examples(table, ids, "valid"))
    names = _names(products)
    followed = [] if stored is None else stored.visited()
    take = _most_visited(products["count"].to_numpy(), names, spaces, picked, followed, room)
    place = np.full(len(ids), -1)
    place[take] = np.arange(len(take))
    group, groups, grouped_by = _groups(products.iloc[take])
    drawn, spot = _map(spots, ids[take], spaces)
    frequent = np.bincount(group[drawn][group[drawn] >= 0], minlength=len(groups))
    frequent = [int(g) for g in np.argsort(-frequent, kind="stable")[:COLOURED] if frequent[g]]
    colors = colors_of([groups[g] for g in frequent])
    return {
        "total": len(ids),
        "names": [names[i] for i in take],
        "counts": products["count"].to_numpy()[take].tolist(),
        "group": group.tolist(),
        "groups": groups,
        "grouped_by": grouped_by,
        "coloured": [{"group": g, "color": colors[groups[g]]} for g in frequent],
        "spaces": [_space(name, found, ids[take]) for name, found in spaces.items()],
        "map": {"drawn": _pack(drawn.astype("<u4")), "spots": spot},
        "customers": [{k: place[v].tolist() if k == "items" else v for k, v in c.items()} | {"next": int(place[c["next"]])} for c in picked],
        "decay": float(chosen.get("decay", 0.1)),
        "decay_time": chosen.get("decay_time", "days"),
        "embedding": chosen.get("embedding", files[0].stem),
        "player": None if stored is None else player.data(stored, ids, place, names),
    }  # fmt: skip


def to_json(data: dict) -> str:
    """JSON that can stand inside a script element: no character of it can end the element."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for char in "<>&\u2028\u2029":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return text


def quantise(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One byte per number, with a scale per row: ``restore`` is off by at most half a 127th of the row's largest number.

    Parameters
    ----------
    vectors : ndarray of float, shape (n, dim)

    Returns
    -------
    codes : ndarray of int8, shape (n, dim)
    scales : ndarray of float32, shape (n,)
        0 for a row of zeros: a product without an embedding.
    """
    scales = (np.abs(vectors).max(axis=1) / 127).astype(np.float32)
    return np.rint(vectors / np.where(scales > 0, scales, 1)[:, None]).clip(-127, 127).astype(np.int8), scales


def restore(codes: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """The vectors that the browser works with, float32; see `quantise`."""
    return codes.astype(np.float32) * scales[:, None]


def _order(file: Path) -> tuple[int, str]:
    """word2vec before StarSpace, as everywhere, and others behind."""
    known = list(LABELS)
    return (known.index(file.stem) if file.stem in known else len(known), file.stem)


def _names(products: pd.DataFrame) -> list[str]:
    """What to call each product: its name, else its id; with the id behind where several have the same name."""
    ids = [short(identity, NAME) or "(no name)" for identity in products.product_id]
    if "name" not in products:
        return ids
    names = [short(n, NAME) if isinstance(n, str) and clean(n).strip() else i for n, i in zip(products.name, ids)]
    twice = pd.Series(names).duplicated(keep=False)
    return [f"{name} · {identity}" if same and name != identity else name for name, identity, same in zip(names, ids, twice)]


def _customers(valid: arrays.Examples) -> list[dict]:
    """A few valid users: their newest visits as places and ages in days, oldest first, and what they looked at next.

    No id goes along, and ages are rounded to a quarter of an hour. Those whose history spans the most days come first.
    """
    long = np.flatnonzero(valid.lengths >= 4)
    rows = np.random.default_rng(0).permutation(long if len(long) >= CUSTOMERS else len(valid))[:CUSTOMERS]
    found = []
    for row in rows:
        begin, end = max(valid.start[row], valid.end[row] - VISITS), valid.end[row]
        ages = (valid.times[end - 1] - valid.times[begin:end]).round(2)
        found.append({"items": valid.items[begin:end], "ages": ages.tolist(), "next": int(valid.target[row])})
    return sorted(found, key=lambda customer: -customer["ages"][0])


def _most_visited(counts, names, spaces, customers, followed, room: int) -> np.ndarray:
    """Places of the products that fit into `room` bytes, the most visited first; those that the customers saw are among them."""
    order = np.argsort(-counts, kind="stable")
    each = sum(4 / 3 * (found.vectors.shape[1] + 4) for found in spaces.values()) + 40
    needed = np.unique([*followed, *(i for customer in customers for i in (*customer["items"], customer["next"]))]).astype(int)
    sizes = np.array([len(names[i].encode()) for i in order]) + each
    fits = order[np.cumsum(sizes) <= room - sizes.mean() * len(needed)]
    keep = np.isin(order, np.concatenate([fits, needed]))
    return order[keep]


def _groups(products: pd.DataFrame) -> tuple[np.ndarray, list[str], str]:
    """Each product's group, the groups' names, and what they are: categories, or quarters by number of events."""
    if "category" in products and products.category.nunique() > 1:
        texts = [short(c, GROUP) if isinstance(c, str) else "" for c in products.category.astype(object)]
        groups = sorted(set(texts) - {""})
        place = {name: i for i, name in enumerate(groups)} | {"": -1}
        return np.array([place[text] for text in texts]), groups, "category"
    rank = products["count"].rank(method="first").to_numpy() - 1
    return (rank * len(QUARTERS) // max(1, len(products))).astype(int), list(QUARTERS), "number of events"


def _map(spots: pd.DataFrame, ids: np.ndarray, spaces) -> tuple[np.ndarray, dict]:
    """Which products are on the map, and where: x and y of each as 16-bit numbers in one square, per space."""
    rows = pd.Series(np.arange(len(spots)), index=spots.product_id.astype(str)).reindex(ids)
    drawn = np.flatnonzero(rows.notna())
    found = {}
    for name in spaces:
        if f"{name}_x" in spots:
            xy = spots[[f"{name}_x", f"{name}_y"]].to_numpy(dtype=float)[rows.to_numpy()[drawn].astype(int)]
            if len(xy):
                middle, half = (xy.max(axis=0) + xy.min(axis=0)) / 2, np.ptp(xy, axis=0).max() / 2 or 1.0
                found[name] = _pack(np.rint((xy - middle) / half * 32_767).astype("<i2"))
    return (drawn if found else drawn[:0]), found


def _space(name: str, found: embeddings.Embeddings, ids: np.ndarray) -> dict:
    codes, scales = quantise(embeddings.align(found, ids)[0])
    return {
        "name": name,
        "label": label_of(name),
        "color": color_of(name),
        "dim": codes.shape[1],
        "codes": _pack(codes),
        "scales": _pack(scales.astype("<f4")),
    }


def _pack(array: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
