"""Day over day: what became of the vectors of the day before, and whether today's run may take the place of yesterday's.

A day is stopped where what was delivered for it is unlike the days before (`check_log`), where its run's input is unlike that of the runs
before, or where it is worse than the day before beyond chance (`check`). Each comparison of two days is made at 95 %, so that of many good
days a few are stopped, too: a person looks, and yesterday's run stays in use.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import ibis
import numpy as np
import pandas as pd

from shelfspace.files import run_files
from shelfspace.vectors import embeddings

NEIGHBOURS = 10
MOST = 1.5  # times as many rows, events, users or products as in the middle of the days before, or as few, are unlike them
KIND = 3.0  # the same of the events of a kind, which are few and come together
SHARE = 0.15  # by so much may a share (of returns, dropped rows, kinds of events, coverage) differ from its middle
KNOWN = 0.5  # of today's visits' products, the day before knew so many at least, counted by how often they were met
DAYS = 7  # days before that are looked at
SPAN = 28  # days of a log that are looked at: a day is compared with the same days of the weeks before
SURE = 5  # standard deviations that are put down to chance, where each event is taken to come by itself
MET = {"user_id": "customers", "product_id": "products", "category": "categories", "brand": "brands"}  # columns whose values come again


def earlier(folder: str | Path, days: int = DAYS) -> list[Path]:
    """The finished runs of the days before, in the folder beside, each in a folder of its date; the newest first.

    A day that was stopped has no report, and is none of them.
    """
    folder = Path(folder)
    if not re.fullmatch(r"\d{4}-\d\d-\d\d", folder.name) or not folder.parent.is_dir():
        return []
    dated = (path for path in folder.parent.iterdir() if re.fullmatch(r"\d{4}-\d\d-\d\d", path.name) and path.name < folder.name)
    finished = (path for path in dated if (path / "report.html").is_file() and (path / "data.json").is_file())
    return sorted(finished, reverse=True)[:days]


def drift(today: str | Path, before: str | Path) -> dict:
    """What of the day before is left.

    Parameters
    ----------
    today, before : path
        Runs with product and user embeddings; those of one frame where today's has ``start``.

    Returns
    -------
    dict
        "products" and "customers": how many are in both. "neighbours_kept": for each embedding the mean share of the ten nearest products
        that are the same, among the products in both; "by_chance": that of a random order. "user_vectors_kept": mean cosine of the
        customers' two vectors; None where the two days chose different embeddings, whose spaces have nothing to do with each other. "moved": DataFrame of product_id and cosine, those that moved most first, of the embedding that today chose.
    """
    today, before = Path(today), Path(before)
    choice = run_files.needed(today, "decay.json", "it is no finished run")
    found: dict = {"neighbours_kept": {}}
    for name in ("word2vec", "starspace"):
        one, other = (embeddings.load(run / "product_embeddings" / f"{name}.parquet") for run in (today, before))
        ids = np.intersect1d(one.product_ids, other.product_ids)
        new, old = (embeddings.align(each, ids)[0] for each in (one, other))
        found["neighbours_kept"][name] = kept(new, old)
        if name == choice["embedding"] and new.shape == old.shape:
            cosine = (embeddings.normalise(new) * embeddings.normalise(old)).sum(axis=1)
            found["moved"] = pd.DataFrame({"product_id": ids, "cosine": cosine}).sort_values("cosine", kind="stable", ignore_index=True)
    found |= {"products": len(ids), "by_chance": min(1.0, NEIGHBOURS / max(1, len(ids) - 1))}
    one, other = (embeddings.load(run / "user_embeddings.parquet", key="user_id") for run in (today, before))
    both = np.intersect1d(one.product_ids, other.product_ids)
    found["customers"], found["user_vectors_kept"] = len(both), None
    chosen = run_files.needed(before, "decay.json", "it is no finished run")["embedding"]
    if len(both) and chosen == choice["embedding"] and one.vectors.shape[1] == other.vectors.shape[1]:
        new, old = (embeddings.normalise(embeddings.align(each, both)[0]) for each in (one, other))
        found["user_vectors_kept"] = float((new * old).sum(axis=1).mean())
    return found


def kept(new: np.ndarray, old: np.ndarray, block: int = 1000) -> float:
    """Mean share of each row's nearest rows that are the same in both; a block of rows at a time."""
    n, same = len(new), 0
    k = min(NEIGHBOURS, n - 1)
    if k < 1:
        return 1.0
    for first in range(0, n, block):
        rows = np.arange(first, min(n, first + block))
        near = [embeddings.nearest(each, each[rows], k, rows)[0] for each in (new, old)]
        same += (near[0][:, :, None] == near[1][:, None, :]).any(axis=2).sum()
    return float(same / (n * k))


def deliveries(events: ibis.Table, until: datetime) -> pd.DataFrame:
    """What a log holds of each of the last `SPAN` days.

    Parameters
    ----------
    events : ibis.Table
        The canonical events (`shelfspace.logs.events`).
    until : datetime
        End of the newest day; in UTC where it names no zone.

    Returns
    -------
    DataFrame
        A row for each whole day back to the first of the log, the newest first; its index counts days back from `until`. Counts, by
        what they count: "events", "customers", "products", and "view events" and so on. Shares of events, NaN where there is none:
        "once", of those that repeat no other to the letter; for each of the columns of `MET` "with …", of those that have a value, and
        "known …", of these the ones whose value was met on an earlier day; "near prices", of those whose product was met before, the
        ones whose price is neither `MOST` times as high as on the last such day nor as low.
    """
    end = until.replace(tzinfo=until.tzinfo or UTC).timestamp()
    t = events.mutate(back=((end - 1 - events.timestamp.epoch_seconds()) / 86_400).floor().cast("int64"))
    t = t.filter((t.back >= 0) & (t.back < SPAN))
    kinds = t.group_by("back", "event").agg(n=t.count()).to_pandas().pivot(index="back", columns="event", values="n").fillna(0)
    found = [kinds.sum(axis=1).rename("events"), kinds.add_suffix(" events")]
    filled = {f"with {MET[c]}": t[c].notnull().mean() for c in MET if c in t.columns}
    found.append(t.group_by("back").agg(customers=t.user_id.nunique(), products=t.product_id.nunique(), **filled).to_pandas())
    same = [c for c in ("user_id", "timestamp", "event", "product_id", "query", "session_id") if c in t.columns]
    once = t.group_by("back", *same).agg(n=t.count())
    found.append(once.group_by("back").agg(once=once.count() / once.n.sum()).to_pandas())
    for column in (c for c in MET if c in t.columns):
        days = t.filter(t[column].notnull()).group_by(column, "back").agg(n=lambda d: d.count())
        days = days.mutate(first=days.back.max().over(group_by=column))
        known = (days.n * (days.back < days["first"]).cast("int64")).sum() / days.n.sum()
        found.append(days.group_by("back").agg(**{f"known {MET[column]}": known}).to_pandas())
    if "price" in t.columns:
        days = t.filter(t.product_id.notnull()).group_by("product_id", "back").agg(n=lambda d: d.count(), price=lambda d: d.price.median())
        days = days.mutate(was=days.price.lag().over(group_by="product_id", order_by=ibis.desc("back")))
        near = (days.price < MOST * days.was) & (days.price * MOST > days.was)
        days = days.filter(days.was.notnull()).mutate(near=near.fill_null(False).cast("int64"))
        found.append(days.group_by("back").agg(**{"near prices": (days.n * days.near).sum() / days.n.sum()}).to_pandas())
    table = pd.concat([each if each.index.name == "back" else each.set_index("back") for each in found], axis=1)
    whole = range(0, max(1, int(table.index.max()))) if len(table) else range(1)  # the first day of a log, or of the span, may be a part
    table = table.reindex(whole)
    counts = [name for name in table if name in ("customers", "products") or name.endswith("events")]
    return table.fillna(dict.fromkeys(counts, 0))


def unlike_before(days: pd.DataFrame, newest: int = 1) -> dict[int, list[str]]:
    """In what the newest days of a log are unlike those before; sentences by how many days back, none for days that are like them.

    A day is compared with the median of the same days of the weeks before, or of all days where there are not two such. A count is unlike
    it where it is more than `MOST` times as high or as low (`KIND` times, for one kind of event) and that is beyond chance; a share where
    it fell by more than `SHARE` and chance. Nothing is unlike where fewer than three days came before.

    Parameters
    ----------
    days : DataFrame
        From `deliveries`.
    newest : int
        So many days are new.
    """
    found: dict[int, list[str]] = {}
    before = days.iloc[newest:]
    if len(before) < 3:
        return found
    for back, day in days.iloc[:newest].iterrows():
        weeks = before[before.index % 7 == back % 7]
        usual = (weeks if len(weeks) > 1 else before).median()
        said = [sentence for name in days for sentence in _odd(name, day[name], usual[name], day.events)]
        if said:
            found[back] = said
    return found


def _odd(name: str, now: float, usual: float, events: float) -> list[str]:
    """A sentence, where a figure of a day is unlike what is usual."""
    if name in ("customers", "products") or name.endswith("events"):
        times = KIND if name.endswith(" events") else MOST
        least, most = (max(0.0, np.sqrt(usual) + side * SURE / 2) ** 2 for side in (-1, 1))  # the root of a count varies by a half
        odd = now < min(usual / times, least) or now > max(usual * times, most)
        return [f"It has {now:,.0f} {name}, where {usual:,.0f} are usual."] if odd else []
    now = 0.0 if np.isnan(now) else now
    if not events or not usual - now > SHARE + SURE * np.sqrt(usual * (1 - usual) / events):
        return []
    of = {"once": "repeat no other to the letter", "with": "have {}", "known": "have {} met before", "near": "have {} near those before"}
    verb, _, what = name.partition(" ")
    return [f"Only {now:.0%} of its events {of[verb].format(what)}, where {usual:.0%} are usual."]


def check_log(events: ibis.Table, until: datetime, before: Sequence[str | Path] = ()) -> None:
    """Let what a log holds of its newest days pass, or stop it, before anything is made of it.

    Parameters
    ----------
    events : ibis.Table
        The canonical events, of more days than the window that is trained on where they are to be had.
    until : datetime
        End of the newest day; in UTC where it names no zone.
    before : sequence of path
        Runs of the days before, the newest first (`earlier`): the days since then are new, at most `DAYS`. Without one, the last day is.

    Raises
    ------
    ValueError
        With all that speaks against it.
    """
    gap = (until.date() - datetime.fromisoformat(Path(before[0]).name).date()).days if before else 1
    found = unlike_before(deliveries(events, until), min(DAYS, max(1, gap)))
    if found:
        said = (f"{until - timedelta(days=back + 1):%Y-%m-%d}: {' '.join(sentences)}" for back, sentences in found.items())
        raise ValueError(f"What the log holds is unlike the days before. {' '.join(said)}")


def unlike(today: str | Path, before: Sequence[str | Path]) -> list[str]:
    """In what the input of a day is unlike that of the days before, the newest of which comes first; a sentence each, none where it is like them.

    Counts of rows, events, customers and products; shares of dropped rows, returns and kinds of events; coverage of the embeddings; and
    whether today's products are those that the day before knew. Nothing is unlike where there is no day before.
    """
    if not before:
        return []
    now, days = _input(Path(today)), [_input(Path(day)) for day in before]
    found = []
    for name in ("rows", "events", "customers", "products"):
        usual = float(np.median([day[name] for day in days]))
        if not usual / MOST <= now[name] <= usual * MOST:
            found.append(f"It has {now[name]:,} {name}, and the days before had {usual:,.0f} in the middle.")
    for name in sorted({name for day in [now, *days] for name in day["shares"]}):
        usual = float(np.median([day["shares"].get(name, 0.0) for day in days]))
        if abs(now["shares"].get(name, 0.0) - usual) > SHARE:
            found.append(f"Its {name} is {now['shares'].get(name, 0.0):.0%}, and that of the days before was {usual:.0%} in the middle.")
    known = _known(Path(today), Path(before[0]))
    if known < KNOWN:
        found.append(f"Only {known:.0%} of its events are on products that the day before knew.")
    return found


def _input(run: Path) -> dict:
    data = run_files.needed(run, "data.json", "its input cannot be told")
    events = max(1, data["events"])
    shares = {f"share of {kind} events": n / events for kind, n in data.get("events_by_type", {}).items()}
    shares |= {"share of dropped rows": sum(data["dropped"].values()) / max(1, data["rows_read"]), "share of returns": data["repeat_share"]}
    checks = run_files.read_object(run / "embeddings.json") or {}
    shares |= {f"coverage by {name}": of["coverage"] for name, of in checks.items()}
    return {"rows": data["rows_read"], "events": data["events"], "customers": data["users"], "products": data["products"], "shares": shares}


def _known(today: Path, before: Path) -> float:
    """Share of today's events that are on products of the day before."""
    products = pd.read_parquet(today / "products.parquet", columns=["product_id", "count"])
    known = pd.read_parquet(before / "products.parquet", columns=["product_id"]).product_id
    return float(products["count"][products.product_id.isin(known)].sum() / max(1, products["count"].sum()))


def worse(today: str | Path, before: str | Path) -> list[str]:
    """In what a day is worse than the one before by more than chance; a sentence each.

    How often the embeddings have triplets right (embeddings.json) and, once they are measured, MRR@20 and HR@20 of what leaves the run
    (metrics.json). The two days have different targets, so that the interval of the difference has the root of the sum of the squares of
    the two half widths.
    """
    now, then = _quality(Path(today)), _quality(Path(before))
    found = []
    for name in now.keys() & then.keys():
        (value, low, high), (was, was_low, was_high) = now[name], then[name]
        if value - was + np.hypot((high - low) / 2, (was_high - was_low) / 2) < 0:
            found.append(
                f"Its {name} is {value:.1%} ({low:.1%} to {high:.1%}), and that of the day before was {was:.1%} ({was_low:.1%} to {was_high:.1%})."
            )
    return sorted(found)


def _quality(run: Path) -> dict[str, tuple[float, float, float]]:
    """What a run reaches, each with its 95 % interval."""
    checks = run_files.read_object(run / "embeddings.json") or {}
    found = {
        f"share of right triplets by {name}": (of["triplet_auc"], *of["triplet_ci95"])
        for name, of in checks.items()
        if of.get("triplet_ci95")
    }
    models = (run_files.read_object(run / "metrics.json") or {}).get("models", {})
    left = models.get((run_files.read_object(run / "recommender.json") or {}).get("model"))
    if left:
        found |= {label: (left[name], *left["ci95"][name]) for name, label in (("mrr@20", "MRR@20"), ("hit_rate@20", "HR@20"))}
    return found


def check(today: str | Path, before: Sequence[str | Path]) -> None:
    """Let a day pass, or stop it.

    Parameters
    ----------
    today : path
        A run, with its embeddings at least; what is measured of it already is looked at.
    before : sequence of path
        Runs of the days before, the newest first (`earlier`); none lets every day pass.

    Raises
    ------
    ValueError
        With all that speaks against it.
    """
    found = unlike(today, before) + (worse(today, before[0]) if before else [])
    if found:
        raise ValueError(f"{Path(today).name} does not take the place of {Path(before[0]).name}: {' '.join(found)}")


def publish(today: str | Path) -> Path:
    """Turn the link ``current`` beside a run to it, at once: what reads the link has the old run or the new one.

    Raises
    ------
    ValueError
        If something else of that name is there.
    """
    today = Path(today)
    link, fresh = today.parent / "current", today.parent / f"{run_files.TEMPORARY}current"
    if link.exists() and not link.is_symlink():
        raise ValueError(f"{link} is no link, so it is not turned to {today.name}; move it away.")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(today.name)
    fresh.replace(link)
    return link
