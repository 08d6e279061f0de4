# ---
# jupyter:
#   jupytext:
#     cell_metadata_filter: tags,-all
#     formats: ipynb,py:percent
#     notebook_metadata_filter: kernelspec,jupytext,shelfspace,-jupytext.text_representation.jupytext_version
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
#   shelfspace:
#     reads: []
#     writes:
#     - shop/*
#     - sequences.parquet
#     - products.parquet
#     - searches.parquet
#     - data.json
# ---

# %% [markdown]
# # 1. Prepare shopping sequences
#
# In this notebook you will
#
# - read a clickstream, and see which rows are left out and why;
# - turn clicks into visits, and visits into one sequence of products per customer;
# - hide each target from all training.
#
# A product is a word, and a customer's shopping sequence is a sentence: that is the whole idea of the article
# "Embeddings at E-commerce" (2019), which this report follows.

# %% tags=["parameters"]
run_dir = "reports/default"  # folder that this run writes to
data = "shop"  # "shop" for the simulated shop, or a file, folder or pattern of CSV, Parquet, JSON Lines or Excel
columns = ""  # names of the columns in the log, where they are unusual, as --columns takes them; pairs of names
time_format = ""  # how the log writes times that are not ISO 8601, in the codes of strptime, as %d.%m.%Y or %m/%d/%Y %H:%M
shop_users = 30000  # customers of the simulated shop; from 1 to 10000000
shop_products = 3000  # products of the simulated shop; from 52 to 1000000
shop_days = 28  # days that the simulated shop is open; from 1 to 3650
since = ""  # use only events from then on (UTC), as 2024-03-04; empty: from the first; a date or time
until = ""  # use only events before then (UTC); empty: to the last; a date or time
last_days = 0.0  # use only the last so many days of the log (the article: 7); 0 uses all; from 0 to 100000
min_products = 5  # drop users with fewer distinct products; from 2 to 1000
session_gap = 30.0  # minutes of silence that end a session, where the log has no session of its own; above 0 and at most 525600
protocol = "last-product"  # what is a target, and what trains; one of: last-product, time
target_event = ""  # only such visits are targets; one of: , view, add_to_cart, purchase
test_share = 0.3  # share of users whose target tests (protocol last-product); above 0 and below 1
valid_share = 0.1  # share of users whose target chooses settings; above 0 and below 1
test_days = 7.0  # length of the test period in days (protocol time); above 0 and at most 100000
engine = "duckdb"  # where the relational work runs; one of: duckdb, spark, bigquery
engine_url = ""  # spark: its master, this machine by default; bigquery: PROJECT or PROJECT/DATASET
seed = 0  # of everything random; from 0 to 4294967295

# %% [markdown]
# ## The log
#
# A log needs three columns: who, which product, and when. Rows that cannot be used are left out and counted.

# %%
import hashlib

import ibis
import numpy as np
import pandas as pd

from shelfspace.files import run_files
from shelfspace.logs import clean, engines, events
from shelfspace.page import charts, exhibits, palette
from shelfspace.sequences import prepare
from shelfspace.shop import simulation, write
from shelfspace.trials import searches

palette.theme()
run = run_files.run_folder(run_dir)

# %% [markdown] tags=["aside"]
# An event type (view, search, add to cart, purchase), a session and product columns are used where they exist. Without a log of its
# own, the report runs on a simulated electronics-and-home retailer, whose statistics follow real logs and whose truth is known.

# %%
source = data
if data == "shop":
    simulated = simulation.simulate(users=shop_users, products=shop_products, days=shop_days, seed=seed)
    source = run / "shop" / "events.parquet"
    write.write(simulated, source)
    write.write_truth(simulated, run / "shop")

# %% [markdown] tags=["aside"]
# Whatever form the log has, it is read into one table. From here on it is DuckDB, or another engine, that does the relational work;
# what stands below are expressions, and rows are fetched only to be shown.

# %%
own_names = dict(pair.split("=", 1) for pair in columns.split(",") if pair)
log = events.read(source, columns=own_names, expected=events.announced(run, data), time_format=time_format)
connection = log.connection if engine == "duckdb" else engines.connect(engine, engine_url)
clicks = prepare.last_days(engines.move(prepare.window(log.table, since, until), connection), last_days)

# %% [markdown] tags=["aside"]
# These are the columns that every log is brought to:

# %% tags=["aside"]
first_rows = clicks.order_by("row").limit(6).to_pandas()
shown = [name for name in ("user_id", "timestamp", "event", "product_id", "name", "category", "price", "query") if name in first_rows]
exhibits.table(first_rows[shown], caption="The first rows of the log.")

# %% [markdown] tags=["aside"]
# What does not fit is not mended silently. A price that cannot be read is left empty, and its row is kept.

# %% tags=["aside"]
odd = pd.DataFrame(
    [(reason, rows, "left out") for reason, rows in log.dropped.items()] + [(reason, rows, "kept") for reason, rows in log.noted.items()],
    columns=["reason", "rows", "what became of them"],
)
kept = clicks.count().execute()

# %% [markdown] tags=["aside"]
# A reason that takes many rows points to a fault in the export, which is better mended there.

# %%
if len(odd):
    exhibits.table(odd, caption=f"Rows that do not fit, of {log.rows:,} read, by reason; {kept:,} are used.")
else:
    exhibits.note(f"None: all {log.rows:,} rows could be read, and {kept:,} are used.")

# %% [markdown]
# ## From clicks to visits
#
# Customers reload pages, look twice, and click "add to cart" on the page they are on. So a product that follows
# itself within a session is **one visit**, with the strongest event it led to. Here are eight clicks of one customer, by hand:

# %%
tiny = pd.DataFrame({
    "user_id": "Ada",
    "product_id": ["phone A", "phone A", "phone B", "phone A", "case A", "case A", "case A", "chair"],
    "timestamp": pd.Timestamp("2019-05-06 18:00") + pd.to_timedelta([0, 2, 5, 9, 12, 13, 1500, 1502], unit="min"),
    "event": ["view", "view", "view", "add_to_cart", "view", "purchase", "view", "view"],
    "row": range(8),
})  # fmt: skip

# %% [markdown] tags=["aside"]
# Each row of the result is one visit. Its session is counted from the user's first.

# %%
tiny_visits = prepare.visits(ibis.memtable(tiny), session_gap).order_by("position").to_pandas()
exhibits.table(
    tiny_visits[["position", "product_id", "timestamp", "event", "session"]],
    caption="Eight clicks are six visits in two sessions. The purchase of the case is one visit with its view.",
)

# %% [markdown]
# ## History and target
#
# The last visit is what a recommender should have foreseen: the **target**. Everything before it is **history**. Above, the chair is
# the target, and a model sees phone A, phone B, phone A, case A, case A. Leakage is prevented here, once for all models: no target
# of the valid or test customers, and no visit after it, trains an embedding, a count or a network.
#
# Customers with fewer than five products are left out, as in the article: with fewer, too little is left to tell a taste by.
#
# Whose target tests is told by a hash of the user's id, so it stays when the log grows. For Ada:

# %%
digest = hashlib.md5(f"Ada#{seed}".encode()).hexdigest()[:8]
place = int(digest, 16) / 16**8
group = "test" if place < test_share else "valid" if place < test_share + valid_share else "train"
exhibits.note(f"The hash of “Ada#{seed}” begins with {digest}, which is {place:.3f} between 0 and 1: her target would {group}.")

# %% [markdown] tags=["aside"]
# Two protocols are built in. `last-product` is the article's: every user has one target, their most recent product.
# `time` cuts the log at a date: sessions before it train, and every visit of a later session, except its first, is a
# target. It is the stricter one, as no model can know a later day's fashion. Of a session that runs over the date, what
# comes after it is left out. For three users in ten the last session before it gives targets that train, as the train users'
# targets do under `last-product`: what learns to find targets needs some that the embeddings have not seen.
#
# A test user's history trains as everybody's does: in use, too, a recommender knows what its customers did until now.
#
# Now all of it, as one expression: visits, users with enough products, what is history and what is target.

# %%
expression = prepare.sequences(
    clicks, protocol=protocol, target_event=target_event, min_products=min_products, session_gap=session_gap,
    test_days=test_days, test_share=test_share, valid_share=valid_share, seed=seed,
)  # fmt: skip

# %% [markdown] tags=["aside"]
# The engine works only now, as it writes the rows to a file. If they leave nothing to learn from or nothing to test on, the run
# stops here and says so.

# %%
engines.write(expression, run / "sequences.parquet")
rows = engines.read(connection, run / "sequences.parquet")
prepare.check(rows, clicks, min_products, target_event)

# %% [markdown] tags=["aside"]
# What is *train* may train, and nothing else. The embeddings take those of these rows that are *history*.

# %% tags=["aside"]
uses = rows.group_by("role", "split").agg(visits=rows.count(), users=rows.user_id.nunique()).order_by("role", "split").to_pandas()
exhibits.table(
    uses,
    caption="What the visits are used for. Under last-product, the history of every user trains, and targets are "
    "split by user; those of the train users train, too.",
)

# %% [markdown] tags=["aside"]
# Each product once, with what the log tells of it and how often it was met: the *product table*. All vectors and scores of the later
# chapters stand in its order.

# %%
products = clean.products(clicks).to_pandas()
with run_files.atomic(run / "products.parquet") as temporary:
    products.to_parquet(temporary, index=False)

# %% [markdown] tags=["aside"]
# A search names no product, so it is no visit. But it tells in the customer's own words what was wanted, so the searches are
# kept in a table of their own, by user and time.

# %%
engines.write(searches.of_log(clicks), run / "searches.parquet")

# %% [markdown] tags=["aside"]
# Embeddings learn from what stands together, so long sequences teach more than short ones.

# %%
per_user = rows.group_by("user_id").agg(visits=rows.count(), sessions=rows.session.max())
counted = per_user.group_by("visits").agg(users=per_user.count(), sessions=per_user.sessions.sum()).order_by("visits").to_pandas()
lengths = np.repeat(counted.visits.to_numpy(), counted.users)
repeats = float(1 - rows.select("user_id", "product_id").distinct().count().execute() / lengths.sum())

# %% [markdown] tags=["aside"]
# The axis is logarithmic, as a few users have many times the visits of most others.

# %% tags=["aside"]
exhibits.show(
    charts.sequence_lengths(lengths),
    caption=f"Half of the users kept have at most {np.median(lengths):.0f} visits; the longest sequence has {lengths.max():,}.",
    alt="Histogram of visits per user, on a logarithmic axis, with the median marked.",
)

# %% [markdown] tags=["aside"]
# Are all days there, and alike? A gap or a jump is a fault of the log more often than of the shop.

# %% tags=["aside"]
per_day = clicks.group_by(day=clicks.timestamp.date(), event=clicks.event).agg(count=clicks.count()).to_pandas()
exhibits.show(
    charts.events_per_day(per_day),
    caption=f"Events per day and type, from {per_day.day.min():%d %B %Y} to {per_day.day.max():%d %B %Y} (UTC).",
    alt="A panel per event type with the number of events per day.",
)

# %% [markdown] tags=["folded"]
# ## What could go wrong
#
# - **Leakage.** A target that trains an embedding makes every later figure too good.
# - **Robots and wholesalers.** A few endless sequences can outweigh everybody else.
# - **Coarse clocks and changing ids.** One time for a whole day makes the order arbitrary; a product with a new id on every relaunch is
#   many rare products.

# %% [markdown] tags=["folded"]
# ## Exercises
#
# 1. Count Ada's sessions when a session ends after 2, 5, 30 and 1500 minutes of silence. Which way must the count go?
#
# <details><summary>Solution</summary>
#
# A longer silence that is still forgiven joins sessions, so the count can only fall, here to one.
#
# ```python
# clicks_of_ada = ibis.memtable(tiny)
# counts = [prepare.visits(clicks_of_ada, gap).session.nunique().execute() for gap in (2, 5, 30, 1500)]
# assert counts == sorted(counts, reverse=True) and counts[-1] == 1
# ```
#
# </details>
#
# 2. Convince yourself that no user's training visits come after one of the user's targets.
#
# <details><summary>Solution</summary>
#
# The last position that trains is smaller than the first that is a target, for every user who has both.
#
# ```python
# frame = rows.order_by("user_id", "position").to_pandas()
# trains = frame[(frame.role == "history") & (frame.split == "train")].groupby("user_id", observed=True).position.max()
# first_target = frame[frame.role == "target"].groupby("user_id", observed=True).position.min()
# both = pd.concat([trains.rename("last_training"), first_target.rename("first_target")], axis=1).dropna()
# assert len(both) and (both.last_training < both.first_target).all()
# ```
#
# </details>
#
# 3. How often would it be right to recommend nothing but what the user already looked at? That is the most that the
#    baseline *own products* can reach.
#
# <details><summary>Solution</summary>
#
# It is the share of test targets that stand in their own history. In the column *seen before* of chapter 6 stands their number, in
# the column *all* that of all targets.
#
# ```python
# from shelfspace.sequences import arrays
#
# table = arrays.load(run / "sequences.parquet")
# test = arrays.examples(table, products.product_id.to_numpy().astype(str), "test")
# assert 0 <= test.seen().mean() < 1
# ```
#
# </details>

# %% [markdown] tags=["aside"]
# The figures of this chapter go into data.json, from which the page and the later chapters take them.

# %%
overview = clicks.agg(users=clicks.user_id.nunique(), first=clicks.timestamp.min(), last=clicks.timestamp.max()).to_pandas().iloc[0]
targets = uses[uses.role == "target"].set_index("split").visits
facts = {
    "rows_read": log.rows, "events": int(kept), "users": int(overview.users), "products": len(products),
    "sessions": int(counted.sessions.sum()), "first": overview["first"].isoformat(),
    "last": overview["last"].isoformat(), "dropped": log.dropped, "noted": log.noted, "fingerprint": log.fingerprint,
    "events_by_type": per_day.groupby("event")["count"].sum().astype(int).to_dict(), "layout": log.layout,
    "users_kept": len(lengths), "repeat_share": repeats, "protocol": protocol, "target_event": target_event,
    "min_products": min_products,
} | {split: int(targets.get(split, 0)) for split in ("train", "valid", "test")}  # fmt: skip
run_files.write_json(run / "data.json", facts)

# %% [markdown]
# ## Takeaways

# %%
exhibits.takeaways([
    f"{facts['users_kept']:,} of {facts['users']:,} users have at least {min_products} products and stay; half of them have at most "
    f"{np.median(lengths):.0f} visits, and the longest sequence has {lengths.max():,}.",
    f"In {repeats:.0%} of the visits the user had seen the product before, so a model may recommend a seen product.",
    f"{facts['test']:,} targets test, and {facts['valid']:,} choose settings.",
])  # fmt: skip
