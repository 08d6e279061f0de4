"""A published split: its files, checked and read, its training sessions as sequences and its test rows as examples."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from shelfspace.sequences.arrays import Corpus, Examples

HELD_OUT = 0.05  # share of the training sessions, the last ones, on which settings are tried
JUDGES = 10_000  # of their prefixes, at most


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
        `user_ids` are the test rows' sessions: the column session_id, or where there is none, as `of_sessions` tells them.
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

    def examples(self, sessions: slice = slice(None), shortest: int = 1) -> Examples:
        """Every prefix of every training session, of so many products at least, with the product that came next.

        Each session was counted (`Examples.trained`).
        """
        offsets = self._offsets(sessions)
        targets = np.diff(offsets) - 1
        start = np.repeat(offsets[:-1], targets)
        end = start + 1 + np.arange(targets.sum()) - np.repeat(np.cumsum(targets) - targets, targets)
        session = np.repeat(np.arange(len(self.offsets) - 1)[sessions], targets)
        found = _examples(self.items, start, end, self.items[end], session, np.repeat(offsets[1:], targets))
        return found if shortest == 1 else found[found.lengths >= shortest]

    def held_out(self, seed: int = 0, most: int = JUDGES) -> tuple[slice, Examples]:
        """The training sessions but for the last of them, and at most `most` prefixes of these, to try settings on.

        The prefixes are at least as long as the shortest one of a test row. Where the split is too small to hold any out, both
        are all sessions.
        """
        sessions = len(self.offsets) - 1
        cut = sessions - max(1, round(HELD_OUT * sessions))
        early, judges = slice(0, cut), self.examples(slice(cut, sessions))
        judges = judges[judges.lengths >= self.test.lengths.min()]
        if not len(self.examples(early)) or not len(judges):
            early, judges = slice(0, sessions), self.examples()
        judges = judges.sample(most, seed)
        return early, replace(judges, trained=judges.start)  # what they judge was counted in the early sessions alone

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
    if "session_id" in pq.read_schema(folder / "test_prefixes.parquet").names:
        session = _column(folder / "test_prefixes.parquet", "session_id").to_numpy(zero_copy_only=False)
    else:
        session = of_sessions(seen, starts, wanted)
    return Split(values, items, kept.astype(np.int64), _examples(seen, starts[:-1], starts[1:], wanted, session))


def of_sessions(items: np.ndarray, offsets: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Which rows are prefixes of one session, by their order alone.

    Files list a session's prefixes one after the other, the longest first or last. So a row belongs with the one before if it
    is that row one step earlier (its prefix and target are the other's prefix), or one step later, whichever
    the file has more often.

    Parameters
    ----------
    items : ndarray, shape (n_visits,)
        All prefixes, one after the other.
    offsets : ndarray of int64, shape (n + 1,)
        Where each begins.
    target : ndarray, shape (n,)

    Returns
    -------
    ndarray of int64, shape (n,)
        Number of each row's session, from 0.
    """
    whole = [(*items[a:b].tolist(), last) for a, b, last in zip(offsets[:-1], offsets[1:], target.tolist())]
    earlier = np.array([after == before[:-1] for before, after in zip(whole, whole[1:])], dtype=bool)
    later = np.array([after[:-1] == before for before, after in zip(whole, whole[1:])], dtype=bool)
    joined = earlier if earlier.sum() >= later.sum() else later
    return np.concatenate([[0], np.cumsum(~joined)]).astype(np.int64)


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


def _examples(items, start, end, target, session, trained=None) -> Examples:
    """Examples without times and events, owned by their sessions; what of these was counted ends at `trained`."""
    return Examples(
        items, np.zeros(len(items)), np.zeros(len(items), np.int8), start, end, target, np.zeros(len(target), np.int8),
        session.astype(str), trained,
    )  # fmt: skip
