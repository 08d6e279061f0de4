"""What the session player and "Where it fails" show: a few test customers visit by visit, and the place of every test target.

`load` reads what the chapter on evaluation left (`shelfspace.models.journeys`), `data` makes it small enough for a page. Weights, the
user embedding and its place on the map are not among it: the browser computes them from the visits, as `shelfspace.models.users` does.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from shelfspace.files import run_files
from shelfspace.page.palette import PALETTE, label_of
from shelfspace.page.words import short
from shelfspace.sequences.arrays import EVENT_LEVELS, Examples

BYTES = 700_000
"""All that `data` gives takes no more as JSON, for at most `shelfspace.models.journeys.CUSTOMERS` of them."""
EXTRA = 250_000  # bytes of it for names of products that the page does not hold otherwise
DOTS = 4_000  # test targets that are drawn
PARTS = {
    "network": ("the network's score", ("tied", "score")),
    "together": ("what goes together", ("cooccurrence", "session_knn", "ease", "goes_together")),
    "next": ("what follows what", ("markov", "came_after")),
    "near": ("near the user embedding", ("word2vec_user", "starspace_user", "near", "similarity")),
    "own": ("own visits to it", ("own", "seen_before")),
    "popularity": ("its popularity", ("popularity",)),
    "facts": ("category, brand, price", ("category", "brand", "price")),
    "customer": ("the customer's habits", ("customer",)),
}
"""How the parts of a score are told: name, words, and the parts that count as one."""
TARGETS = ("popular", "middling", "rare")
HISTORIES = ("up to 5 visits", "6 to 15 visits", "over 15 visits")


@dataclass(frozen=True)
class Stored:
    """What a run left for the player.

    Attributes
    ----------
    examples : Examples
        The test users'.
    ranks, followed : DataFrame
        See `shelfspace.models.journeys.ranks` and `shelfspace.models.journeys.follow`; rows of `followed` are in order of customer
        and visit.
    model, baseline : str
        The recommender that leaves the pipeline, and the baseline that the valid users like best.
    """

    examples: Examples
    ranks: pd.DataFrame
    followed: pd.DataFrame
    model: str
    baseline: str

    def rows(self) -> np.ndarray:
        """Whom it follows, as rows of `examples`, in the order of the choice."""
        return self.followed["row"].drop_duplicates().to_numpy()

    def visited(self) -> np.ndarray:
        """The products in their histories and those that came next, as places in the product table."""
        ends = [(self.examples.start[row], self.examples.end[row]) for row in self.rows()]
        seen = [self.examples.items[start:end] for start, end in ends]
        return np.unique(np.concatenate([*seen, self.examples.target[self.rows()]])).astype(int)


def load(run_dir: str | Path, examples: Examples) -> Stored | None:
    """Read what a run left; None where it followed nobody.

    Parameters
    ----------
    run_dir : path
    examples : Examples
        The test users' of the same run, of which those count that were asked for.

    Raises
    ------
    ValueError
        If a file cannot be read, or is of other test users.
    """
    run_dir = Path(run_dir)
    files = ("test_ranks.parquet", "journeys.parquet", "metrics.json", "recommender.json", "params.json")
    if not all((run_dir / name).exists() for name in files):
        return None
    ranks, followed = pd.read_parquet(run_dir / "test_ranks.parquet"), pd.read_parquet(run_dir / "journeys.parquet")
    metrics, leaving = run_files.read_json(run_dir / "metrics.json"), run_files.read_json(run_dir / "recommender.json")
    if followed.empty:
        return None
    examples = examples.sample(len(ranks), run_files.read_json(run_dir / "params.json")["seed"])
    if not np.array_equal(ranks.user_id.astype(str), examples.user_ids):
        raise ValueError("test_ranks.parquet tells of other test users than sequences.parquet; run 06_evaluate again.")
    baseline = metrics["columns"]["all"]["baseline"]
    return Stored(examples, ranks, followed, str(leaving["model"]), baseline)


def data(stored: Stored, product_ids: np.ndarray, place: np.ndarray, names: Sequence[str]) -> dict:
    """All of it for the page.

    Parameters
    ----------
    stored : Stored
    product_ids : ndarray of str, shape (n_products,)
        The product table, sorted.
    place : ndarray of int, shape (n_products,)
        Where each product stands among those that the page holds; -1 for one that it does not, whose name then goes along.
    names : sequence of str
        Of all products.

    Returns
    -------
    dict
        ``model``, ``baseline`` (labels), ``parts`` (name, label, color; the last is start), ``digits``, ``products``, ``codes``,
        ``extra`` (names), ``journeys``, ``dots``. A score is the sum of its codes, a whole number for each part, over 10**digits
        (`quantise`). Of each journey: ``items``, ``ages`` (days before the newest visit, to a hundredth), ``events``, ``steps`` (after how many visits a
        list stands in `products` and `codes`, how long it is, the next product and its place), ``dot`` (its place among the dots).
    """
    found, rows = stored.followed, stored.rows()
    of_table = np.searchsorted(product_ids, found.product_id.to_numpy(str))
    following = np.searchsorted(product_ids, found.next_id.to_numpy(str))
    needed = np.unique(np.concatenate([of_table, following]))
    extra = needed[place[needed] < 0]
    place = place.copy()
    place[extra] = (place >= 0).sum() + np.arange(len(extra))
    parts, values = _grouped(found)
    codes, digits = quantise(values)
    dots = _dots(len(stored.ranks), rows)
    lists = found.assign(next=place[following]).groupby(["row", "visits"], sort=False)
    steps = lists.agg(length=("rank", "size"), next=("next", "first"), next_rank=("next_rank", "first")).reset_index()
    return {
        "model": label_of(stored.model),
        "baseline": label_of(stored.baseline),
        "parts": parts,
        "digits": digits,
        "products": _pack(place[of_table].astype("<u4")),
        "codes": _pack(codes.astype("<i2")),
        "extra": _within([names[i] for i in extra], EXTRA),
        "journeys": [_journey(stored.examples, row, steps[steps["row"] == row], place, dots) for row in rows],
        "dots": {
            "total": len(stored.ranks),
            "ours": _pack(stored.ranks[stored.model].to_numpy()[dots].astype("<u4")),
            "baseline": _pack(stored.ranks[stored.baseline].to_numpy()[dots].astype("<u4")),
            "kinds": _pack(_kinds(stored.ranks.iloc[dots])),
            "events": [name.replace("_", " ") for name in EVENT_LEVELS],
            "targets": list(TARGETS),
            "histories": list(HISTORIES),
        },
    }


def quantise(parts: np.ndarray) -> tuple[np.ndarray, int]:
    """Parts of scores as whole numbers; their sum is the score, rounded once, so that the order stays and shown digits add up.

    Parameters
    ----------
    parts : ndarray of float, shape (n, n_parts)

    Returns
    -------
    codes : ndarray of int64, shape (n, n_parts)
        ``parts * 10**digits``, rounded, within 16 bits. What rounding leaves over goes to the largest part of a row.
    digits : int
        Behind the point: 3, or as many as there is room for.
    """
    digits = min(3, int(np.floor(np.log10(32_000 / max(np.abs(parts).max(initial=0), 1e-9)))))
    codes = np.rint(parts * 10.0**digits).astype(np.int64)
    rest = np.rint(parts.sum(axis=1) * 10.0**digits).astype(np.int64) - codes.sum(axis=1)
    codes[np.arange(len(codes)), np.abs(codes).argmax(axis=1)] += rest
    return codes, digits


def _grouped(found: pd.DataFrame) -> tuple[list[dict], np.ndarray]:
    """How the parts are told, and their values, float, shape (n, n_parts); parts that are 0 throughout are left out, but for start."""
    told, values = [], []
    known = {part: name for name, (_, members) in PARTS.items() for part in members}
    raw = {column.removeprefix("part_"): found[column].to_numpy(float) for column in found if column.startswith("part_")}
    start = raw.pop("start", np.zeros(len(found)))
    groups = list(dict.fromkeys([*PARTS, *(part for part in raw if part not in known)]))
    for name in groups:
        of_group = [value for part, value in raw.items() if known.get(part, part) == name]
        if of_group and np.any(of_group):
            label = PARTS[name][0] if name in PARTS else label_of(name)
            told.append({"name": name, "label": label, "color": PALETTE[groups.index(name) % len(PALETTE)]})
            values.append(np.sum(of_group, axis=0))
    same = np.ptp(start, axis=0) < 1e-3  # not where places are kept for new products
    told.append({"name": "start", "label": "start, the same for all" if same else "start", "color": "#999999"})
    return told, np.column_stack([*values, start])


def _journey(examples: Examples, row: int, steps: pd.DataFrame, place: np.ndarray, dots: np.ndarray) -> dict:
    """One customer for the page; no id goes along."""
    own = slice(examples.start[row], examples.end[row])
    times = examples.times[own]
    return {
        "items": place[examples.items[own]].tolist(),
        "ages": (times[-1] - times).round(2).tolist(),
        "events": examples.events[own].tolist(),
        "seen": bool((examples.items[own] == examples.target[row]).any()),
        "steps": steps[["visits", "length", "next", "next_rank"]].to_numpy().tolist(),
        "dot": int(np.flatnonzero(dots == row)[0]),
    }


def _dots(n: int, rows: np.ndarray) -> np.ndarray:
    """The test targets that are drawn: those of `rows` and others at random, in order."""
    others = np.setdiff1d(np.random.default_rng(0).permutation(n), rows, assume_unique=True)
    others = np.random.default_rng(0).permutation(others)[: max(0, DOTS - len(rows))]
    return np.sort(np.concatenate([rows, others])).astype(int)


def _kinds(ranks: pd.DataFrame) -> np.ndarray:
    """seen + 2 · event + 8 · target + 32 · history of each target, uint8, as places in their lists."""
    event, target, history = (
        pd.Categorical(ranks[name], list(levels)).codes
        for name, levels in (("event", EVENT_LEVELS), ("target", TARGETS), ("history", HISTORIES))
    )
    return (ranks.seen.to_numpy() + 2 * event + 8 * target + 32 * history).astype(np.uint8)


def _within(names: list[str], room: int) -> list[str]:
    """The names, cut where all of them would take more than so many bytes."""
    total = sum(len(name.encode()) + 3 for name in names)
    return names if total <= room else [short(name, max(8, int(0.9 * max(map(len, names)) * room / total))) for name in names]


def _pack(array: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
