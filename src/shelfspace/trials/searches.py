"""Search queries as entities among the products: what a user asked for stands in the sequence beside what was visited.

A query becomes a row of the table of sequences, with an id that no product has, so that all that works on sequences
works on it, too. StarSpace (`shelfspace.vectors.starspace`) then places it as the sum of its words.
"""

from __future__ import annotations

import ibis
import numpy as np
import pandas as pd
import pyarrow as pa

PREFIX = "? "  # of the id of a query


def of_log(events: ibis.Table) -> ibis.Table:
    """The searches of a log: user_id, timestamp, query (in small letters, with single blanks), by user and time; none where it has none.

    Parameters
    ----------
    events : ibis.Table
        The canonical events (see `shelfspace.logs.events`), on any engine.
    """
    asked = events.filter(events.event == "search")
    text = asked["query"] if "query" in asked.columns else ibis.null("string")
    asked = asked.mutate(query=text.lower().re_replace(r"[\s\p{Z}]+", " ").strip())
    return asked.filter(asked["query"] != "").order_by("user_id", "timestamp", "row").select("user_id", "timestamp", "query")


def insert(table: pa.Table, searches: pd.DataFrame) -> pa.Table:
    """Put searches into the sequences, each before the visit that came next.

    A search takes role, split and session of that visit. Where the visit is a target, or there is none, the search is
    left out: it would tell a model what the user wanted next. The same query twice in a row stands once.

    Parameters
    ----------
    table : pyarrow.Table
        ``sequences.parquet`` as `shelfspace.sequences.arrays.load` gives it.
    searches : DataFrame
        As `of_log` gives them; of users that the table lacks, too.

    Returns
    -------
    pyarrow.Table
        The same columns and rows, and the searches, their `PREFIX` and query as product_id and "view" as event.

    Raises
    ------
    ValueError
        If the id of a product begins as those of queries do.
    """
    visits = table.to_pandas()
    if visits.product_id.astype(str).str.startswith(PREFIX).any():
        raise ValueError(f"The id of a product begins with {PREFIX!r}, as those of queries do; give products other ids.")
    coded = ["user_id", "product_id", "event", "role", "split"]
    visits[coded] = visits[coded].astype(object)
    place = pd.Series(np.arange(visits.user_id.nunique()), index=visits.user_id.unique())
    asked = searches[searches.user_id.isin(place.index)]
    added = pd.DataFrame({"user_id": asked.user_id, "product_id": PREFIX + asked["query"], "timestamp": asked.timestamp})
    added = added.assign(event="view")
    both = pd.concat([visits.assign(visit=True), added.assign(visit=False)], ignore_index=True)
    order = np.lexsort((both.index, both.visit, both.timestamp.astype("datetime64[us]").astype("int64"), place[both.user_id]))
    both = both.iloc[order].reset_index(drop=True)
    for column in ("role", "split", "session"):
        both[column] = both.groupby("user_id", sort=False)[column].bfill()
    both = both[both.visit | (both.role == "history")]
    again = (both.product_id == both.product_id.shift()) & (both.user_id == both.user_id.shift())
    both = both[both.visit | ~again]
    both["position"] = both.groupby("user_id", sort=False).cumcount().astype("int32")
    both["session"] = both.session.astype("int32")
    both[coded] = both[coded].astype("category")
    return pa.Table.from_pandas(both[table.column_names], preserve_index=False)
