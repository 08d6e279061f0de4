"""Sequences and examples as flat arrays: what trainers (`Corpus`) and models (`Examples`) take, read from ``sequences.parquet``."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

EVENT_LEVELS = ("view", "add_to_cart", "purchase")  # weakest first; a visit carries its strongest


@dataclass(frozen=True)
class Corpus:
    """Training sequences in one flat array.

    Attributes
    ----------
    product_ids : ndarray of str, shape (n_products,)
        The vocabulary: the products that occur in the sequences.
    items : ndarray of int32, shape (n_visits,)
        Index into `product_ids`, all sequences one after the other.
    offsets : ndarray of int64, shape (n_sequences + 1,)
        Sequence s is ``items[offsets[s]:offsets[s + 1]]``.
    times : ndarray of float64, shape (n_visits,), optional
        Time of each visit in days since 1970 (UTC), where the sequences have times.
    events : ndarray of int8, shape (n_visits,), optional
        Index of each visit's event in `EVENT_LEVELS`.
    sessions : ndarray of int32, shape (n_visits,), optional
        Number of each visit's session within its sequence.
    user_ids : ndarray of str, shape (n_sequences,), optional
        Whose sequence it is.
    """

    product_ids: np.ndarray
    items: np.ndarray
    offsets: np.ndarray
    times: np.ndarray | None = None
    events: np.ndarray | None = None
    sessions: np.ndarray | None = None
    user_ids: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __iter__(self):
        """Yield each sequence as a list of product ids."""
        for start, end in zip(self.offsets[:-1], self.offsets[1:]):
            yield self.product_ids[self.items[start:end]].tolist()

    def places(self, product_ids: np.ndarray) -> np.ndarray:
        """Each visit's product as its place in a sorted product table that holds all of them; int, shape (n_visits,)."""
        return np.searchsorted(product_ids, self.product_ids)[self.items]


def passes(size: int, budget: int, least: int = 3) -> int:
    """Passes over `size` things that make about `budget` in all, at least `least` and at most 100."""
    return int(np.clip(round(budget / max(1, size)), least, 100))


@dataclass(frozen=True)
class Examples:
    """What a model may see and what it must find, for each of n targets.

    The histories are slices of one flat array, so that all prefixes of a sequence share its memory.

    Attributes
    ----------
    items : ndarray of int32, shape (n_visits,)
        Index of each visit's product in the product table.
    times : ndarray of float64, shape (n_visits,)
        Time of each visit in days since 1970 (UTC).
    events : ndarray of int8, shape (n_visits,)
        Index of each visit's event in `EVENT_LEVELS`.
    start, end : ndarray of int64, shape (n,)
        Example i's history is ``items[start[i]:end[i]]``, oldest first, never empty.
    target : ndarray of int32, shape (n,)
        Index of the product to find; it stands at ``items[end[i]]`` or later, outside the history.
    target_event : ndarray of int8, shape (n,)
        Index of the target's event in `EVENT_LEVELS`.
    user_ids : ndarray of str, shape (n,)
        Whose history it is.
    trained : ndarray of int64, shape (n,), optional
        ``items[start[i]:trained[i]]`` are the visits of the user's sequence that may train (`corpus`), and so stand in what a
        model counted; the score of example i leaves them out. Equal to `start`, the default, where nothing was counted.
    """

    items: np.ndarray
    times: np.ndarray
    events: np.ndarray
    start: np.ndarray
    end: np.ndarray
    target: np.ndarray
    target_event: np.ndarray
    user_ids: np.ndarray
    trained: np.ndarray | None = None

    def __post_init__(self):
        if self.trained is None:
            object.__setattr__(self, "trained", self.start)

    def __len__(self) -> int:
        return len(self.target)

    def __getitem__(self, rows) -> Examples:
        """The examples of the given rows (a slice, an index array or a mask)."""
        per_example = (self.start, self.end, self.target, self.target_event, self.user_ids, self.trained)
        return Examples(self.items, self.times, self.events, *(values[rows] for values in per_example))

    def sample(self, n: int, seed: int = 0) -> Examples:
        """So many of them, drawn at random, in the order in which they stand; all where there are no more."""
        return self[np.sort(np.random.default_rng(seed).permutation(len(self))[:n])]

    @property
    def lengths(self) -> np.ndarray:
        """Visits in each history, int64, shape (n,)."""
        return self.end - self.start

    def flat(self) -> tuple[np.ndarray, np.ndarray]:
        """Positions in `items` of all histories one after the other, and where each begins (n + 1 offsets)."""
        offsets = np.concatenate([[0], np.cumsum(self.lengths)])
        positions = np.arange(offsets[-1]) + np.repeat(self.start - offsets[:-1], self.lengths)
        return positions, offsets

    def seen(self) -> np.ndarray:
        """Whether each target was already in its user's history; bool, shape (n,)."""
        positions, offsets = self.flat()
        same = self.items[positions] == np.repeat(self.target, self.lengths)
        return np.add.reduceat(same, offsets[:-1]) > 0


def load(path: str | Path) -> pa.Table:
    """Read ``RUN/sequences.parquet``, its ids and few-valued columns dictionary-encoded: about 27 bytes a visit."""
    few = {name: pa.dictionary(pa.int8(), pa.string()) for name in ("event", "role", "split")}
    file = pq.ParquetFile(path, read_dictionary=["user_id", "product_id", *few])
    fields = [field.with_type(few.get(field.name, field.type)) for field in file.schema_arrow]
    schema = pa.schema(fields)
    table = pa.concat_tables([schema.empty_table(), *(file.read_row_group(group).cast(schema) for group in range(file.num_row_groups))])
    release()
    return table


def release() -> None:
    """Give back to the system what Arrow keeps of memory that is free again; of a large log it is gigabytes."""
    pa.default_memory_pool().release_unused()


def corpus(table: pa.Table, targets: bool = False) -> Corpus:
    """What may train, one sequence per user: all rows but the valid and test targets and what comes after them.

    Parameters
    ----------
    table : pyarrow.Table
        ``sequences.parquet`` as `load` gives it.
    targets : bool
        Whether the targets of the train users are among them. All that counts takes them; product embeddings do not, as the
        networks learn to find these targets from the embeddings.
    """
    keep = pc.equal(table["split"], "train")
    keep = keep if targets else pc.and_(keep, pc.equal(table["role"], "history"))
    # A column at a time: of a large log, all of them at once take gigabytes.
    times = _days(table["timestamp"].filter(keep))
    users, names = _codes(table["user_id"].filter(keep))
    offsets = _offsets(users)
    user_ids = names[users[offsets[:-1]]]
    del users
    codes, dictionary = _codes(table["product_id"].filter(keep))
    present = np.zeros(len(dictionary), dtype=bool)
    present[codes] = True
    used = np.flatnonzero(present)
    used = used[np.argsort(dictionary[used])]  # the dictionary is in order of appearance; the vocabulary is sorted
    place = np.zeros(len(dictionary), dtype=np.int32)
    place[used] = np.arange(len(used), dtype=np.int32)
    items = place[codes]
    del codes
    events, sessions = _events(table["event"].filter(keep)), table["session"].filter(keep).to_numpy()
    release()
    return Corpus(dictionary[used], items, offsets, times, events, sessions, user_ids)


def goals(given: Corpus) -> np.ndarray:
    """Where each visit's session ended: the place among the visits of the last purchase of the same session.

    Parameters
    ----------
    given : Corpus
        With events and sessions.

    Returns
    -------
    ndarray of int64, shape (n_visits,)
        -1 where the session bought nothing.
    """
    sequence = np.repeat(np.arange(len(given)), np.diff(given.offsets))
    begins = np.append(True, (np.diff(sequence) != 0) | (np.diff(given.sessions) != 0))[: len(sequence)]
    session = np.cumsum(begins) - 1
    bought = np.flatnonzero(given.events == EVENT_LEVELS.index("purchase"))
    last = np.full(session[-1] + 1 if len(session) else 0, -1, dtype=np.int64)
    last[session[bought]] = bought  # in order, so the last one stays
    return last[session]


def sample(table: pa.Table, users: int, seed: int = 0) -> pa.Table:
    """The rows of so many users drawn at random, in the same order; all of them when `users` is 0 or enough."""
    codes, user_ids = _indices(table["user_id"])
    if users == 0 or len(user_ids) <= users:
        return table
    chosen = np.zeros(len(user_ids), dtype=bool)
    chosen[np.random.default_rng(seed).permutation(len(user_ids))[:users]] = True
    return table.filter(pa.array(chosen[codes]))


def without(given: Corpus, product_ids: np.ndarray) -> Corpus:
    """The same sequences without the visits to some products, which leave the vocabulary, too."""
    keep = ~np.isin(given.product_ids, product_ids)[given.items]
    used, items = np.unique(given.items[keep], return_inverse=True)
    kept_before = np.concatenate([[0], np.cumsum(keep)])
    visits = {name: None if (of := getattr(given, name)) is None else of[keep] for name in ("times", "events", "sessions")}
    return replace(given, product_ids=given.product_ids[used], items=items.astype(np.int32), offsets=kept_before[given.offsets], **visits)


def of_split(table: pa.Table, split: str) -> pa.Table:
    """The rows of the users (or sessions) who have a target in one split, in the same order."""
    users, user_ids = _indices(table["user_id"])
    is_target = pc.and_(pc.equal(table["role"], "target"), pc.equal(table["split"], split)).to_numpy()
    chosen = np.zeros(len(user_ids), dtype=bool)
    chosen[users[is_target]] = True
    return table if chosen.all() else table.filter(pa.array(chosen[users]))


def examples(table: pa.Table, product_ids: np.ndarray, split: str, *, prefixes: int = 0) -> Examples:
    """The examples of one split.

    Parameters
    ----------
    table : pyarrow.Table
        ``sequences.parquet`` as `load` gives it.
    product_ids : ndarray of str
        The product table's ids, which `items` and `target` index; sorted, as in ``products.parquet``.
    split : {"train", "valid", "test"}
        Which targets.
    prefixes : int
        For split "train" only: also make each of the last `prefixes` training visits of every user a target with
        the visits before it as history. No visit of a target is among them.

    Raises
    ------
    ValueError
        If a product of the table is not in `product_ids`.
    """
    if split != "train":  # their histories alone: of a large log the rest would take gigabytes
        table = of_split(table, split)
    items, times, events, user_ids, users = _columns(table, product_ids)
    is_history = pc.equal(table["role"], "history").to_numpy()
    in_split, in_train = (pc.equal(table["split"], name).to_numpy() for name in (split, "train"))

    offsets = _offsets(users)
    chosen = ~is_history & in_split
    if prefixes and split == "train":
        trains = is_history & in_split
        so_far = np.cumsum(trains)
        chosen |= trains & (np.repeat(so_far[offsets[1:] - 1], np.diff(offsets)) - so_far < prefixes)
    rows = np.flatnonzero(chosen)
    first = offsets[np.searchsorted(offsets, rows, side="right") - 1]
    rows, first = rows[rows > first], first[rows > first]  # a user's first visit has no history
    trained = first + _trained(in_train, offsets)[np.searchsorted(offsets, rows, side="right") - 1]
    return Examples(items, times, events, first, rows, items[rows], events[rows], user_ids[users[rows]], trained)


def latest(table: pa.Table, product_ids: np.ndarray) -> Examples:
    """One example per user, to embed or recommend: all visits before the user's last target, or all without a target.

    Parameters as `examples`; `target` is -1 where the user has none, and `target_event` 0.
    """
    items, times, events, user_ids, users = _columns(table, product_ids)
    offsets = _offsets(users)
    is_target = pc.equal(table["role"], "target").to_numpy()
    last = np.maximum.reduceat(np.where(is_target, np.arange(len(items)), -1), offsets[:-1])  # -1: no target
    target = np.where(last >= 0, items[last], -1)
    end = np.where(last >= 0, last, offsets[1:])
    trained = offsets[:-1] + _trained(pc.equal(table["split"], "train").to_numpy(), offsets)
    return Examples(items, times, events, offsets[:-1], end, target, np.zeros(len(end), np.int8), user_ids[users[offsets[:-1]]], trained)


def _trained(in_train: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """How many rows of each user may train, which come before all others; int64, shape (n_users,)."""
    return np.diff(np.append(0, np.cumsum(in_train))[offsets])  # of a table without rows: none


def _columns(table: pa.Table, product_ids: np.ndarray):
    """Product places, times in days, event codes, the distinct user ids, and each row's place among these."""
    users, user_ids = _codes(table["user_id"])
    products, names = _codes(table["product_id"])
    place = np.searchsorted(product_ids, names).clip(max=len(product_ids) - 1).astype(np.int32)
    if not np.array_equal(product_ids[place], names):
        raise ValueError("The sequences hold products that products.parquet lacks; run 01_prepare again.")
    return place[products], _days(table["timestamp"]), _events(table["event"]), user_ids, users


def _events(column: pa.ChunkedArray) -> np.ndarray:
    """Index of each row's event in `EVENT_LEVELS`, int8."""
    codes, names = _codes(column)
    return np.array([EVENT_LEVELS.index(name) for name in names], dtype=np.int8)[codes]


def _days(column: pa.ChunkedArray) -> np.ndarray:
    """Timestamps as days since 1970 (UTC), float64."""
    days, at = np.empty(len(column)), 0
    for chunk in column.chunks:
        days[at : at + len(chunk)] = chunk.cast(pa.timestamp("us")).cast(pa.int64()).to_numpy() / 86_400e6
        at += len(chunk)
    return days


def _codes(column: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """A dictionary-encoded column as integer codes and the strings that they stand for."""
    codes, dictionary = _indices(column)
    return codes, dictionary.to_numpy(zero_copy_only=False).astype(str)


def _indices(column: pa.ChunkedArray) -> tuple[np.ndarray, pa.Array]:
    """As `_codes`, with the strings left in Arrow, where they take a fraction of the memory."""
    array = column.unify_dictionaries().combine_chunks()
    if isinstance(array, pa.ChunkedArray):  # no chunk at all
        return np.zeros(0, dtype=np.int32), pa.array([], pa.string())
    return array.indices.to_numpy(), array.dictionary


def _offsets(users: np.ndarray) -> np.ndarray:
    """Where each user's rows begin in a column sorted by user, and the end; int64, shape (n_users + 1,)."""
    begins = np.flatnonzero(np.diff(users)) + 1
    return np.concatenate([[0], begins, [len(users)]]).astype(np.int64)
