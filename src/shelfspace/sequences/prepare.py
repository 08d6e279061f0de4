"""From the events of a log to one time-ordered sequence of products per user, as a table; any engine computes it.

A product is a word, a user's shopping sequence is a sentence. This module decides, once and for everybody, which
visits are history (what a model may see) and which are targets (what it must find), and which visits may train.
"""

from __future__ import annotations

from datetime import UTC, datetime

import ibis

from shelfspace.sequences.arrays import EVENT_LEVELS

PROTOCOLS = ("last-product", "time")
ASKED = 0.3  # share of users whose last session before the cut gives training targets (protocol "time")


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
        The canonical events (see `shelfspace.logs.events`).
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
        The canonical events (see `shelfspace.logs.events`): user_id, product_id, timestamp, event, row, maybe session_id.
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
        The canonical events (see `shelfspace.logs.events`).
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
        train, and no others (`shelfspace.sequences.arrays.corpus`). A target's history is all rows of the same user above it.

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
