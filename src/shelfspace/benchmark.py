"""A published split of session recommendation through the same code as the report, to compare with published figures.

SPLIT_DIR holds ``train_sessions.parquet`` (session, items: the products of each session in order) and
``test_prefixes.parquet`` (prefix, target). Training uses every prefix of every training session. A test row is scored as
it stands: all products are candidates, those of the prefix too, and a target that no training session holds stays in,
with whatever score a model has for a product that it never met. There are no times, so age is rank.

What has to be chosen (decays, when `dense` stops) is chosen on the last training sessions, never on test rows.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from shelfspace import baselines, embeddings, metrics, recommender, tied, users, word2vec
from shelfspace.metrics import Model
from shelfspace.sequences import Corpus, Examples

DIM = 100
DECAYS = (0.1, 0.3, 0.7, 1.5, 3.0)
HELD_OUT = 0.05  # share of the training sessions, the last ones, on which baselines are tuned
JUDGES = 5000  # of their prefixes, at most
DENSE_EPOCHS = 5  # at most
RECENCY = 2.0  # how much more often recent sessions train tied
NEGATIVES = 8192  # products that tied draws at each step


@dataclass(frozen=True)
class Split:
    """A published split.

    Attributes
    ----------
    product_ids : ndarray of str, shape (n_products,)
        All products of training sessions and test rows, sorted.
    items : ndarray of int32
        Products of the training sessions, one after the other, as places in `product_ids`.
    offsets : ndarray of int64, shape (n_sessions + 1,)
    test : Examples
    """

    product_ids: np.ndarray
    items: np.ndarray
    offsets: np.ndarray
    test: Examples

    def corpus(self, sessions: slice = slice(None)) -> Corpus:
        """Training sessions as a corpus for embeddings and baselines."""
        offsets = self._offsets(sessions)
        used, items = np.unique(self.items[offsets[0] : offsets[-1]], return_inverse=True)
        return Corpus(self.product_ids[used], items.astype(np.int32), offsets - offsets[0])

    def examples(self, sessions: slice = slice(None)) -> Examples:
        """Every prefix of every training session with the product that came next; each session was counted."""
        offsets = self._offsets(sessions)
        targets = np.diff(offsets) - 1
        start = np.repeat(offsets[:-1], targets)
        end = start + 1 + np.arange(targets.sum()) - np.repeat(np.cumsum(targets) - targets, targets)
        return replace(_examples(self.items, start, end, self.items[end]), trained=np.repeat(offsets[1:], targets))

    def _offsets(self, sessions: slice) -> np.ndarray:
        first, last, _ = sessions.indices(len(self.offsets) - 1)
        return self.offsets[first : last + 1]


def read(folder: str | Path) -> Split:
    """Read SPLIT_DIR.

    Raises
    ------
    ValueError
        If a file or column is missing, or its rows do not fit, in one sentence that says what would.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder; a split is a folder with train_sessions.parquet and test_prefixes.parquet.")
    sessions, offsets = _lists(folder / "train_sessions.parquet", "items")
    prefixes, starts = _lists(folder / "test_prefixes.parquet", "prefix")
    target = _column(folder / "test_prefixes.parquet", "target").to_numpy(zero_copy_only=False)
    if len({values.dtype.kind for values in (sessions, prefixes, target)}) > 1:
        raise ValueError(f"{folder} holds products as numbers and as text; items, prefix and target must be of one type.")
    values, places = np.unique(np.concatenate([sessions, prefixes, target]).astype(str), return_inverse=True)
    items, seen, wanted = np.split(places.astype(np.int32), [len(sessions), len(sessions) + len(prefixes)])
    if not (np.diff(offsets) > 1).any():
        raise ValueError(f"{folder / 'train_sessions.parquet'} holds no session of two products, so there is nothing to learn.")
    if len(target) == 0:
        raise ValueError(f"{folder / 'test_prefixes.parquet'} holds no row, so there is nothing to measure.")
    if (np.diff(starts) < 1).any():
        row = int(np.flatnonzero(np.diff(starts) < 1)[0])
        raise ValueError(f"{folder / 'test_prefixes.parquet'}: the prefix of row {row} is empty; it needs at least one product.")
    kept = np.concatenate([[0], np.cumsum(np.diff(offsets)[np.diff(offsets) > 0])])
    return Split(values, items, kept.astype(np.int64), _examples(seen, starts[:-1], starts[1:], wanted))


def _column(path: Path, name: str) -> pa.Array:
    """One column of a Parquet file, without gaps."""
    if not path.is_file():
        raise ValueError(f"{path} is missing; a split is a folder with train_sessions.parquet and test_prefixes.parquet.")
    try:
        file = pq.ParquetFile(path)
    except pa.ArrowInvalid:
        raise ValueError(f"{path} is not a Parquet file.") from None
    if name not in file.schema_arrow.names:
        raise ValueError(f"{path} has no column {name!r}; it has {', '.join(file.schema_arrow.names)}.")
    column = file.read(columns=[name])[name].combine_chunks()
    if column.null_count:
        raise ValueError(f"{path}: column {name!r} has {column.null_count} empty rows; fill or drop them.")
    return column


def _lists(path: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    """A column of lists of products: all values, and where each list begins."""
    column = _column(path, name)
    if not (pa.types.is_list(column.type) or pa.types.is_large_list(column.type)):
        raise ValueError(f"{path}: column {name!r} holds {column.type}; it must hold lists of products.")
    values = column.flatten()
    if values.null_count:
        raise ValueError(f"{path}: lists in column {name!r} have {values.null_count} empty products; fill or drop them.")
    lengths = column.value_lengths().to_numpy(zero_copy_only=False)
    return values.to_numpy(zero_copy_only=False), np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def _examples(items: np.ndarray, start: np.ndarray, end: np.ndarray, target: np.ndarray) -> Examples:
    """Examples without times, events and users."""
    nothing = np.zeros(len(target), dtype=np.int8)
    return Examples(
        items, np.zeros(len(items)), np.zeros(len(items), np.int8), start, end, target, nothing, nothing.astype(str)
    )


def makers(split: Split, seed: int = 0, progress: bool = True) -> dict[str, Callable[[], Model]]:
    """The models by name, each as a function that trains it.

    Parameters
    ----------
    split : Split
    seed : int
        Of everything random.
    progress : bool
        Show progress bars.
    """
    ids, sessions = split.product_ids, len(split.offsets) - 1
    cut = sessions - max(1, round(HELD_OUT * sessions))
    early, late = slice(0, cut), slice(cut, sessions)
    if not len(split.examples(early)) or not len(split.examples(late)):  # too small to hold any out
        early = late = slice(0, sessions)
    judges = split.examples(late)
    judges = judges[np.sort(np.random.default_rng(seed).permutation(len(judges))[:JUDGES])]
    judges = replace(judges, trained=judges.start)  # what they judge was counted in the early sessions alone
    corpus = split.corpus()
    counts = baselines.visit_counts(corpus, ids)

    @cache
    def vectors(dim: int = DIM) -> tuple[np.ndarray, np.ndarray]:
        return embeddings.align(word2vec.train(corpus, dim=dim, seed=seed, progress=progress), ids)

    def best(make: Callable[..., Model]) -> dict:
        grid = {"decay": DECAYS, "decay_time": ["rank"]}
        return metrics.sweep({"": make}, {"": grid}, judges)[1][""]

    def tuned(make: Callable[[Corpus], Callable[..., Model]]) -> Model:
        return make(corpus)(**best(make(split.corpus(early))))

    def dense() -> Model:
        settings = (*best(partial(baselines.nearest_to_user, *vectors())).values(), vectors()[1])
        train = split.examples(early)
        inputs, judged = (users.user_embeddings(part, vectors()[0], *settings) for part in (train, judges))
        recommender.deterministic(seed)
        network = recommender.dense(inputs, len(ids))
        recommender.train(network, inputs, train.target, judged, judges.target, epochs=DENSE_EPOCHS, progress=progress)
        return recommender.recommend(network, vectors()[0], *settings)

    def ours() -> Model:
        train = split.examples()
        recommender.deterministic(seed)
        model = tied.start(*vectors(), corpus, ids, decay_time="rank", seed=seed)
        chances = tied.recency(train, RECENCY)
        tied.train(model, train, negatives=NEGATIVES, chances=chances, seed=seed, progress=progress)
        return tied.recommend(model)

    return {
        "popular": lambda: baselines.popular(counts),
        "own_products": lambda: tuned(lambda part: partial(baselines.own_products, baselines.visit_counts(part, ids))),
        "cooccurrence": lambda: tuned(lambda part: partial(baselines.item_to_item, baselines.cooccurrence(part, ids))),
        "markov": lambda: baselines.markov(corpus, ids),
        "session_knn": lambda: baselines.session_knn(corpus, ids),
        "word2vec_last": lambda: baselines.nearest_to_last(*vectors()),
        "dense": dense,
        "tied": ours,
    }


def run(
    folder: str | Path,
    names: Sequence[str] = (),
    *,
    seed: int = 0,
    progress: bool = True,
    say: Callable[[str], None] = lambda text: None,
) -> dict:
    """Train and measure every model on a split.

    Parameters
    ----------
    folder : str or Path
        SPLIT_DIR.
    names : sequence of str
        Models to run; all by default.
    seed : int
        Of everything random.
    progress : bool
        Show progress bars.
    say : callable
        Takes one line for each model when it is done.

    Returns
    -------
    dict
        "split" (name and sizes), "seed", and "models": for each name hit_rate@K and mrr@K (shares, with their "ci95"),
        "train_seconds", "test_seconds" and "peak_mb". Embeddings count for the first model that needs them.

    Raises
    ------
    ValueError
        If the folder does not fit (see `read`) or a name is unknown.
    """
    split = read(folder)
    known = makers(split, seed, progress)
    for name in names:
        if name not in known:
            raise ValueError(f"There is no model {name!r}; it must be one of {', '.join(known)}.")
    met = np.isin(split.test.target, split.items)
    size = {
        "name": Path(folder).resolve().name,
        "products": len(split.product_ids),
        "train_sessions": len(split.offsets) - 1,
        "train_examples": len(split.examples()),
        "test_rows": len(split.test),
        "test_rows_of_unknown_targets": int((~met).sum()),
    }
    say("{name}: {train_sessions:,} sessions, {train_examples:,} training examples, {test_rows:,} test rows ".format(**size)
        + "({test_rows_of_unknown_targets:,} with a target never met), {products:,} products".format(**size))  # fmt: skip
    found = {}
    for name in names or known:
        reset = _reset_peak()
        begun = time.perf_counter()
        model = known[name]()
        trained = time.perf_counter()
        rank = metrics.evaluate(model, split.test).ranks
        found[name] = metrics.summary(rank, seed) | {
            "train_seconds": trained - begun,
            "test_seconds": time.perf_counter() - trained,
            "peak_mb": _peak_mb(reset),
        }
        say(_line(name, found[name]))
    return {"split": size, "seed": seed, "models": found}


def table(result: dict) -> str:
    """The result of `run` as text: a line for each model, HR@20 and MRR@20 in %."""
    head = f"{'model':<16}{'HR@20':>8}{'MRR@20':>8}{'train s':>9}{'test s':>8}{'peak MB':>9}"
    return "\n".join([head] + [_line(name, found) for name, found in result["models"].items()])


def _line(name: str, found: dict) -> str:
    return (
        f"{name:<16}{100 * found['hit_rate@20']:8.2f}{100 * found['mrr@20']:8.2f}{found['train_seconds']:9.1f}"
        f"{found['test_seconds']:8.1f}{found['peak_mb']:9.0f}"
    )


def _reset_peak() -> bool:
    """Start the process's peak memory afresh, where the system can (Linux)."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
        return True
    except OSError:
        return False


def _peak_mb(reset: bool) -> float:
    """Peak memory of the process in MB: since `_reset_peak` if that worked, else since its start."""
    if reset:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024**2 if sys.platform == "darwin" else 1024)
