"""Shopping sequences: from the events of a log to one time-ordered sequence of products per user.

A product is a word, a user's shopping sequence is a sentence. This module decides, once and for everybody, which
visits are history (what a model may see) and which are targets (what it must find), and which visits may train.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import ibis
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

PROTOCOLS = ("last-product", "time")
ASKED = 0.3  # share of users whose last session before the cut gives training targets (protocol "time")
EVENT_LEVELS = ("view", "add_to_cart", "purchase")  # weakest first; a visit carries its strongest


def last_days(events: ibis.Table, days: float) -> ibis.Table:
    """The events of the last `days` days of the log; all of them when `days` is 0."""
    if days < 0:
        raise ValueError(f"last_days is {days}; it must be 0 (the whole log) or a number of days.")
    if days == 0:
        return events
    newest = events.timestamp.max().as_scalar()
    return events.filter(events.timestamp > newest - ibis.interval(seconds=int(days * 86_400)))


def window(events: ibis.Table, since: str = "", until: str = "") -> ibis.Table:
    """The events from `since` on and before `until`; an empty one sets no bound.

    Parameters
    ----------
    events : ibis.Table
        The canonical events (see `shelfspace.events`).
    since, until : str
        Dates or times of ISO 8601, as "2024-03-04" or "2024-03-04T06:00"; in UTC where they name no zone.

    Raises
    ------
    ValueError
        If one is no time, or nothing lies between them.
    """
    bounds = {}
    for name, text in (("since", since), ("until", until)):
        try:
            at = datetime.fromisoformat(text) if text else None
        except ValueError:
            raise ValueError(f"{name} is {text!r}; it must be empty, or a date or time as 2024-03-04 or 2024-03-04T06:00.") from None
        bounds[name] = at.astimezone(UTC).replace(tzinfo=None) if at and at.tzinfo else at
    start, end = bounds.values()
    if start and end and start >= end:
        raise ValueError(f"since is {since} and until is {until}; since must be the earlier.")
    kept = events if start is None else events.filter(events.timestamp >= ibis.timestamp(start))
    kept = kept if end is None else kept.filter(kept.timestamp < ibis.timestamp(end))
    if (start or end) and not kept.limit(1).count().execute():
        first, last = events.agg(first=events.timestamp.min(), last=events.timestamp.max()).execute().iloc[0]
        raise ValueError(
            f"The log has no event from {since or 'its start'} to {until or 'its end'}; its events are from {first} to {last}."
        )
    return kept


def visits(events: ibis.Table, session_gap: float = 30.0, cut: ibis.Value | None = None) -> ibis.Table:
    """Collapse a session's consecutive events on one product into one visit.

    A product that follows itself in a user's time-ordered events of one session is one visit: it has the time of its first
    event and the strongest event it led to (view < add_to_cart < purchase). A visit ends with its session, so that who comes
    back to a product the next day visits it again. Searches have no product and are left out.

    Parameters
    ----------
    events : ibis.Table
        The canonical events (see `shelfspace.events`): user_id, product_id, timestamp, event, row, maybe session_id.
    session_gap : float
        Minutes of silence that end a session where the log has no session_id.
    cut : timestamp value, optional
        Events from it on, in sessions that began before it, are left out: they are no part of any visit.

    Returns
    -------
    ibis.Table
        user_id, product_id, timestamp, event, session (int, from 1 per user), position (int, from 0 per user), and
        one boolean column per event name that says whether the visit holds such an event.
    """
    clicks = _clicks(events)
    by_time = ibis.window(group_by="user_id", order_by=["timestamp", "row"])
    before = [name for name in ("product_id", "timestamp", "session_id") if name in clicks.columns]
    clicks = clicks.mutate(**{f"last_{name}": clicks[name].lag().over(by_time) for name in before})  # one sort for all
    if "session_id" in clicks.columns:
        same = clicks.last_session_id.identical_to(clicks.session_id)
        new_session = (same & clicks.last_timestamp.notnull()).ifelse(0, 1)
    else:
        until = clicks.last_timestamp + ibis.interval(seconds=int(session_gap * 60))
        new_session = (clicks.timestamp <= until).fill_null(False).ifelse(0, 1)
    clicks = clicks.mutate(
        new_session=new_session,
        level=ibis.cases(*[(clicks.event == name, level) for level, name in enumerate(EVENT_LEVELS)]),
    )
    same_product = (clicks.last_product_id == clicks.product_id).fill_null(False)
    clicks = clicks.mutate(new_visit=(same_product & (clicks.new_session == 0)).ifelse(0, 1))
    up_to_here = ibis.window(group_by="user_id", order_by=["timestamp", "row"], preceding=None, following=0)
    if cut is not None:
        began = (clicks.new_session == 1).ifelse(clicks.timestamp, ibis.null(clicks.timestamp.type()))
        clicks = clicks.mutate(session_start=began.max().over(up_to_here))
        clicks = clicks.filter((clicks.session_start >= cut) | (clicks.timestamp < cut))
    clicks = clicks.select(
        "user_id", "product_id", "timestamp", "level", "new_visit",
        session=clicks.new_session.sum().over(up_to_here).cast("int32"),
        position=(clicks.new_visit.sum().over(up_to_here) - 1).cast("int32"),
        **{name: clicks.event == name for name in EVENT_LEVELS},
    )  # fmt: skip
    # Most visits are a single event. Only what follows a visit's first event is grouped, which is far less than all.
    first, later = clicks.filter(clicks.new_visit == 1), clicks.filter(clicks.new_visit == 0)
    later = later.group_by("user_id", "position").agg(
        later_level=later.level.max(), **{f"later_{name}": later[name].any() for name in EVENT_LEVELS}
    )
    rows = first.left_join(later, ["user_id", "position"])
    strongest = ibis.greatest(rows.level, rows.later_level.fill_null(0))
    return rows.select(
        "user_id", "product_id", "timestamp", "session", "position",
        event=ibis.cases(*[(strongest == level, name) for level, name in enumerate(EVENT_LEVELS)]),
        **{name: rows[name] | rows[f"later_{name}"].fill_null(False) for name in EVENT_LEVELS},
    )  # fmt: skip


def _clicks(events: ibis.Table) -> ibis.Table:
    """The events on products."""
    return events.filter(events.product_id.notnull(), events.event != "search")


def sequences(
    events: ibis.Table,
    *,
    protocol: str = "last-product",
    target_event: str = "",
    min_products: int = 5,
    session_gap: float = 30.0,
    test_days: float = 7.0,
    test_share: float = 0.3,
    valid_share: float = 0.1,
    seed: int = 0,
) -> ibis.Table:
    """Turn events into sequences whose every row says what it may be used for. One Ibis expression.

    Parameters
    ----------
    events : ibis.Table
        The canonical events (see `shelfspace.events`).
    protocol : {"last-product", "time"}
        "last-product": each user's most recent visit is a target, all that came before is history, what came after
        (with `target_event`) is left out. Users are put to train, valid and test by a hash of their id.
        "time": sessions that start in the last `test_days` days are for testing, and every visit of such a session
        but its first is a target. What came before the cut trains, except for a share of users that is for
        validation in the same way. For 30 % of the others the last session before it gives training targets, again at each
        visit but the first, so that what learns to find targets has some that no embedding saw. Of a session that runs over the cut, no event after it counts, not even as what a visit
        before it led to.
    target_event : {"", "view", "add_to_cart", "purchase"}
        Only visits with such an event can be targets; "" allows all.
    min_products : int
        Users with fewer distinct products are dropped.
    session_gap : float
        Minutes of silence that end a session where the log has no session_id.
    test_days : float
        Length of the test period of protocol "time", in days.
    test_share, valid_share : float
        Shares of users; protocol "time" has no use for `test_share`.
    seed : int
        Chooses another random split.

    Returns
    -------
    ibis.Table
        user_id, position (int, the visit's place among the user's), product_id, timestamp, event, session, role
        ("history" | "target"), split ("train" | "valid" | "test"), ordered by user and position. The rows of split train may
        train, and no others (`corpus`). A target's history is all rows of the same user above it.

    Raises
    ------
    ValueError
        If a parameter is out of its range, naming what is allowed.
    """
    _check(protocol, target_event, min_products, test_days, test_share, valid_share)
    cut = None
    if protocol == "time":
        cut = _clicks(events).timestamp.max().as_scalar() - ibis.interval(seconds=int(test_days * 86_400))
    rows = visits(events, session_gap, cut)
    can_be_target = rows[target_event] if target_event else ibis.literal(True)
    rows = rows.mutate(can_be_target=can_be_target)
    # A first visit has no history, so it cannot be a target.
    per_user = rows.group_by("user_id").agg(
        products=rows.product_id.nunique(),
        target_position=rows.position.max(where=rows.can_be_target & (rows.position > 0)),
    )
    rows = rows.join(per_user.filter(per_user.products >= min_products), "user_id")
    if protocol == "last-product":
        rows = _last_product(rows, test_share, valid_share, seed)
    else:
        rows = _by_time(rows, cut, valid_share, seed)
    if target_event:
        rows = rows.mutate(event=(rows.role == "target").ifelse(target_event, rows.event))
    columns = ["user_id", "position", "product_id", "timestamp", "event", "session", "role", "split"]
    return rows.order_by("user_id", "position").select(*columns)


def _last_product(rows: ibis.Table, test_share: float, valid_share: float, seed: int) -> ibis.Table:
    """Mark each user's last possible target; drop what follows it."""
    rows = rows.filter(rows.target_position.isnull() | (rows.position <= rows.target_position))
    is_target = (rows.position == rows.target_position).fill_null(False)
    split = _split(rows.user_id, {"test": test_share, "valid": valid_share}, seed)
    return rows.mutate(
        role=is_target.ifelse("target", "history"),
        split=is_target.ifelse(split, "train"),  # history is seen by all, whichever split the user's target is in
    )


def _by_time(rows: ibis.Table, cut: ibis.Value, valid_share: float, seed: int) -> ibis.Table:
    """Split the log at a time: earlier sessions train, later sessions test at each of their visits but the first."""
    per_session = ibis.window(group_by=["user_id", "session"])
    rows = rows.mutate(session_start=rows.timestamp.min().over(per_session), session_position=rows.position.min().over(per_session))
    # Whole users validate: were it single sessions, a user's later training visits would have them in their history.
    before = rows.session_start < cut
    group = _split(rows.user_id, {"valid": valid_share, "asked": ASKED}, seed)
    rows = rows.mutate(
        asked=(group == "asked") & before, split=before.ifelse((group == "valid").ifelse("valid", "train"), "test"),
        newest=rows.session_start.max(where=before).over(ibis.window(group_by="user_id")),
    )  # fmt: skip
    gives_targets = (rows.split != "train") | (rows.asked & (rows.session_start == rows.newest))
    is_target = gives_targets & (rows.position > rows.session_position) & rows.can_be_target
    return rows.mutate(role=is_target.ifelse("target", "history"))


def _split(key: ibis.Value, shares: dict[str, float], seed: int) -> ibis.Value:
    """Put each key to a split by its hash: the same on every engine, and unmoved when the log grows."""
    digest = key.concat(f"#{seed}").hexdigest("md5").left(8)  # 32 bits as eight hexadecimal digits
    branches, upper = [], 0.0
    for name, share in shares.items():
        upper += share
        branches.append((digest < f"{int(upper * 16**8):08x}", name))
    return ibis.cases(*branches, else_="train")


def _check(protocol, target_event, min_products, test_days, test_share, valid_share) -> None:
    if protocol not in PROTOCOLS:
        raise ValueError(f"protocol is {protocol!r}; it must be one of {', '.join(PROTOCOLS)}.")
    if target_event not in ("", *EVENT_LEVELS):
        raise ValueError(f"target_event is {target_event!r}; it must be empty or one of {', '.join(EVENT_LEVELS)}.")
    if min_products < 2:
        raise ValueError(f"min_products is {min_products}; it must be at least 2, one product to learn from and one to find.")
    if test_days <= 0:
        raise ValueError(f"test_days is {test_days}; it must be a positive number of days.")
    if test_share <= 0 or valid_share <= 0 or test_share + valid_share >= 1:
        raise ValueError(
            f"test_share is {test_share} and valid_share is {valid_share}; both must be positive and leave some users to train."
        )


def check(rows: ibis.Table, events: ibis.Table, min_products: int, target_event: str = "") -> None:
    """Refuse sequences from which nothing can be learned or measured, saying why in one sentence.

    Parameters
    ----------
    rows : ibis.Table
        As `sequences` gives it, or read back from ``sequences.parquet``.
    events, min_products, target_event
        What they were made from.

    Raises
    ------
    ValueError
        If no user is long enough, there is a single product, or a split has no target.
    """
    found = rows.agg(
        products=rows.product_id.nunique(),
        **{split: ((rows.role == "target") & (rows.split == split)).any() for split in ("valid", "test")},
    )
    found = found.to_pandas().iloc[0]
    if found.products == 0:
        per_user = events.group_by("user_id").agg(products=events.product_id.nunique())
        longest = per_user.products.max().execute()
        raise ValueError(
            f"No user has {min_products} distinct products (the longest history has {longest}), so no sequence is "
            "left; "
            f"give a longer log or lower min_products."
        )
    if found.products < 2:
        raise ValueError("The sequences hold a single product; embeddings need at least two products to compare.")
    for split in ("valid", "test"):
        if not found[split]:
            kind = f"{target_event} visit" if target_event else "visit"
            raise ValueError(
                f"No {kind} is left as a target of the {split} users; give a longer log, lower min_products, or "
                f"change test_share, valid_share, test_days or target_event."
            )


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


def passes(size: int, budget: int) -> int:
    """Passes over `size` things that make about `budget` in all, at least 3 and at most 100."""
    return int(np.clip(round(budget / max(1, size)), 3, 100))


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
