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
#     reads:
#     - products.parquet
#     - product_embeddings/*
#     - sequences.parquet
#     - shop/truth_users.parquet
#     writes:
#     - decay.json
#     - best_decays.json
#     - decay_sweep.parquet
#     - user_tables/*
#     - user_embeddings.parquet
# ---

# %% [markdown]
# # 4. User embeddings
#
# In this notebook you will
#
# - average what a user saw into a user embedding, with weights that fade with time;
# - choose the decay on users kept aside for it;
# - compute the embeddings of all users as one relational query.

# %% tags=["parameters"]
run_dir = "reports/default"  # folder that this run writes to
decay = None  # d of the user embeddings that leave and train the dense network; None: the best on the valid users; from 0 to 1000
decay_time = ""  # how age is counted in these; empty: the best on the valid users; one of: , days, log_days, rank
embedding = ""  # product embedding of the users; empty: the better on valid users; one of: , word2vec, starspace
decays = "0, 0.01, 0.03, 0.1, 0.3, 1, 3, 10"  # decays to try on the valid users; numbers, each from 0 to 1000
sweep_users = 2000  # try the decays on at most so many valid users; from 1 to 10000000
engine = "duckdb"  # where the relational work runs; one of: duckdb, spark, bigquery
engine_url = ""  # spark: its master, this machine by default; bigquery: PROJECT or PROJECT/DATASET
seed = 0  # of everything random; from 0 to 4294967295

# %% [markdown] tags=["aside"]
# A user embedding is not trained. It is computed from what is there: the product embeddings and the user's visits.

# %% tags=["setup"]
from functools import partial

import ibis
import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from shelfspace.files import run_files
from shelfspace.logs import engines
from shelfspace.measure import evaluation
from shelfspace.models import baselines, relational, users
from shelfspace.page import charts, exhibits, palette
from shelfspace.sequences import arrays
from shelfspace.vectors import embeddings

palette.theme()
run = run_files.run_folder(run_dir)

# %% [markdown] tags=["aside"]
# Both embeddings are brought into the order of the product table, so that a product has the same row in each.

# %% tags=["setup"]
products = pd.read_parquet(run / "products.parquet")
product_ids = products.product_id.to_numpy().astype(str)
files = {name: run / "product_embeddings" / f"{name}.parquet" for name in ("word2vec", "starspace")}
aligned = {name: embeddings.align(embeddings.load(file), product_ids) for name, file in files.items()}

# %% [markdown] tags=["aside"]
# The valid users are to choose the decay; a few thousand others will show that the query and the array kernel agree. The table is
# let go once they are taken out of it: that of a large log takes gigabytes. What is counted may use the train users' targets, too: all
# visits but the targets of the valid and the test users.

# %% tags=["setup"]
table = arrays.load(run / "sequences.parquet")
corpus = arrays.corpus(table, targets=True)
valid = arrays.examples(table, product_ids, "valid")
sample = arrays.latest(table.slice(0, 100_000), product_ids)[:-1][:5000]  # the last of them may be cut short
del table
arrays.release()

# %% [markdown]
# ## A softmax of time decay
#
# A user embedding is not trained but computed. User $u$ made visits $i$, each with an age $t_i$ counted from the user's newest visit:
#
# $$w_i = \frac{e^{-d\,t_i}}{\sum_j e^{-d\,t_j}}$$
#
# $$\mathrm{embedding}(u) = \sum_i w_i\, v(p_i)$$
#
# The decay $d$ sets how much recency counts. At $d = 0$ every visit weighs the same; a large $d$ leaves only the newest. Age is counted
# in `days`, where $\ln 2 / d$ is the half-life of an interest; in `log_days`, $\ln(1 + \mathrm{days})$, which fades quickly at first and
# then slowly; or as `rank`, the number of visits since.
#
# By hand: three visits, 2, 1 and 0 days old, and $d = \ln 2$, so that a day halves the weight.

# %%
hand = np.exp(-np.log(2) * np.array([2, 1, 0]))
by_hand = hand / hand.sum()
exhibits.note(f"exp(-d·age) is {', '.join(f'{h:.2f}' for h in hand)}; divided by their sum, the weights are 1/7, 2/7 and 4/7.")

# %% [markdown]
# ## A real user
#
# One of the valid users, under several decays; each dot is a visit.

# %%
long_enough = np.flatnonzero((valid.lengths >= 8) & (valid.lengths <= 25))
spans = [np.ptp(valid.times[valid.start[i] : valid.end[i]]) for i in long_enough]
one = int(long_enough[np.argsort(spans, kind="stable")[int(0.8 * (len(spans) - 1))]]) if len(spans) else 0
history = valid[one : one + 1]
age_days, _ = users.ages(history, "days")

# %% [markdown] tags=["aside"]
# Ages are counted back from the user's own newest visit, which stands at the right.

# %%
shown = {d: np.exp(-d * age_days) for d in (0.0, 0.1, 0.5, 2.0)}
exhibits.show(
    charts.decay_weights(age_days, {d: w / w.sum() for d, w in shown.items()}),
    caption=f"One user's {len(age_days)} visits over {age_days.max():.1f} days: a flat mean at d = 0, almost only the newest at d = 2.",
    alt="Lines of the weight of each visit against its age in days, one line per decay; larger decays rise towards the present.",
)

# %% [markdown]
# With the weights, the embedding is one line. Here it is beside what the module makes of the same history, at $d = 0.1$.

# %% [markdown] tags=["aside"]
# Products without an embedding have no weight, and that of the others sums to 1.

# %%
vectors, known = aligned["word2vec"]
items = valid.items[history.start[0] : history.end[0]]
weights = np.exp(-0.1 * age_days) * known[items]
user = (weights / max(weights.sum(), 1e-12)) @ vectors[items]
difference = np.abs(user - users.user_embeddings(history, vectors, 0.1, "days", known)[0]).max()
exhibits.note(f"{len(items)} visits become {len(user)} numbers; by hand and by the module they differ by at most {difference:.0e}.")

# %% [markdown]
# ## How much recency?
#
# The decay is chosen on the valid users, on whom no verdict of this report is measured. Every method that looks at a history is tried
# with every decay: so nothing is held against a baseline that nobody tuned.

# %% [markdown] tags=["aside"]
# Where a decay is given (`decay`, `decay_time`), it is that of the user embeddings which leave this chapter and train the article's
# network; what recommends by itself, or is a source of the ranker, has its own best all the same.

# %% tags=["decay"]
pairs = baselines.cooccurrence(corpus, product_ids)
methods = {
    "own_products": partial(baselines.own_products, baselines.visit_counts(corpus, product_ids)),
    "cooccurrence": partial(baselines.item_to_item, pairs),
}

# %% [markdown] tags=["aside"]
# The user embedding recommends the products whose vectors have the largest cosine with it.

# %% tags=["decay"]
methods_of_users = {
    "word2vec_user": partial(baselines.nearest_to_user, *aligned["word2vec"]),
    "starspace_user": partial(baselines.nearest_to_user, *aligned["starspace"]),
}

# %% [markdown] tags=["aside"]
# Every decay is tried with every way to count age, on the same users.

# %% tags=["decay"]
everything = {"decay": [float(d) for d in decays.split(",")], "decay_time": list(users.DECAY_TIMES)}
judges = valid.sample(sweep_users, seed)
tried = {"models": methods | methods_of_users, "grids": dict.fromkeys(methods | methods_of_users, everything), "examples": judges}
best = run_files.once(run, "decay_sweep.parquet", evaluation.save_sweep, **tried).returned
sweep = pd.read_parquet(run / "decay_sweep.parquet")
top = sweep.groupby("model")["mrr@20"].max()

# %% [markdown] tags=["aside"]
# The embedding that serves its users best, at its best decay, is the one that the next chapter builds on.

# %% tags=["decay"]
winner = max(("word2vec", "starspace"), key=lambda name: top[f"{name}_user"])
chosen = embedding or winner
asked = ({"decay": [decay]} if decay is not None else {}) | ({"decay_time": [decay_time]} if decay_time else {})
given = evaluation.sweep(methods_of_users, {f"{chosen}_user": everything | asked}, judges)[1] if asked else best
user_decay, clock = given[f"{chosen}_user"].values()

# %% [markdown]
# A curve that is flat at its top says that the exact decay matters little; the intervals of neighbouring decays overlap.

# %%
exhibits.show(
    charts.decay_sweep(sweep[sweep.decay_time == clock], unit=palette.decay_unit(clock)),
    caption=f"{len(judges):,} valid users, ages counted as {clock}, 95 % intervals; ringed is the best of each. MRR@20 chose, and may want "
    "another decay than HR@20. "
    f"The {palette.label_of(chosen)} user embedding goes on with d = {user_decay:g}.",
    alt="Two panels, hit rate and mean reciprocal rank against the decay, one line per method with an interval.",
)

# %% [markdown] tags=["aside"]
# In the report, the decay can be tried on a few customers:

# %%
exhibits.toy("decay", "In the report, the decay can be dragged here: see the weights of a customer's visits, and what is recommended.")

# %% [markdown] tags=["aside"]
# And does it matter how age is counted?

# %%
by_clock = sweep.loc[sweep.groupby(["model", "decay_time"], sort=False)["mrr@20"].idxmax()]
wide = by_clock.assign(best=[f"{100 * m:.1f} (d = {d:g})" for m, d in zip(by_clock["mrr@20"], by_clock.decay)]).pivot(
    index="model", columns="decay_time", values="best"
)

# %% [markdown] tags=["aside"]
# Within a row, only the way to count age differs; each stands with the decay that suits it best.

# %% tags=["aside"]
wide = wide.loc[list(best), everything["decay_time"]].rename(index=palette.label_of).reset_index()
exhibits.table(
    wide,
    caption="The best MRR@20 (in %) of each method on the valid users, by how age is counted, and the decay that gave it.",
)

# %% [markdown] tags=["aside"]
# What was chosen goes into two files, from which the later chapters take it: that of the user embeddings, and the best of each method.

# %% tags=["decay"]
run_files.write_json(run / "decay.json", {"embedding": chosen, "decay": user_decay, "decay_time": clock})
run_files.write_json(run / "best_decays.json", best)

# %% [markdown]
# ## All users, as one query
#
# One Ibis expression runs on DuckDB here, and on Spark or BigQuery, as in the article, where the log lives there. It joins histories with
# product embeddings, weighs, and sums up one column per dimension.

# %%
connection = engines.connect(engine, engine_url)
history_rows = relational.histories(engines.read(connection, run / "sequences.parquet"))
dim = aligned[chosen][0].shape[1]
query = relational.relational(history_rows, engines.read(connection, files[chosen]), dim, user_decay, clock).order_by("user_id")
made_of = relational.inputs(run, run_files.read_json(run / "decay.json"))
_ = run_files.once(run, "user_embeddings.parquet", lambda path, **_: relational.write(query, path, dim), **made_of)

# %% [markdown] tags=["aside"]
# One formula in two forms must give one result.

# %%
stored = embeddings.load(run / "user_embeddings.parquet", key="user_id", first=5000)
from_query, found = embeddings.align(stored, sample.user_ids)
from_kernel = users.user_embeddings(sample, aligned[chosen][0], user_decay, clock, aligned[chosen][1])

# %% [markdown] tags=["aside"]
# What differs is rounding: the two add the same numbers in another order.

# %%
gap = float(np.abs(from_kernel - from_query)[found].max())
exhibits.note(
    f"The query gave {pq.read_metadata(run / 'user_embeddings.parquet').num_rows:,} user embeddings, which differ from those of the array "
    f"kernel by at most {gap:.1e}: both add the same numbers, in another order."
)

# %% [markdown] tags=["aside"]
# In the dialect of BigQuery, the article's engine, the same expression is:

# %% tags=["aside"]
log = ibis.table({"user_id": "string", "product_id": "string", "timestamp": "timestamp('UTC')", "position": "int"}, name="history")
table_of_vectors = ibis.table({"product_id": "string", "vector": "array<float32>"}, name="product_embeddings")
exhibits.folded(
    f"The query for BigQuery, with 2 dimensions in place of {dim}",
    engines.sql(relational.relational(log, table_of_vectors, 2, user_decay, clock), "bigquery"),
)

# %% [markdown]
# ## The truth, where it is known
#
# The simulated customers were each given a true decay. The chosen one need not be theirs: a slower decay averages more visits, which makes
# up for vectors that are only nearly right. The tied recommender of the next chapter learns vectors and decay together, and comes to
# another.

# %%
truth = run / "shop" / "truth_users.parquet"
if truth.exists():
    true_decay = pd.read_parquet(truth).decay
    exhibits.note(
        f"The simulated users' true decays lie between {true_decay.quantile(0.1):.2f} and "
        f"{true_decay.quantile(0.9):.2f} per day (10th and 90th percentile), {true_decay.median():.2f} in the "
        f"middle; chosen was d = {user_decay:g} {palette.decay_unit(clock)}."
    )
else:
    exhibits.note("This log comes without a truth to compare with; the simulated shop (`data=shop`) has one.")

# %% [markdown] tags=["folded"]
# ## What could go wrong
#
# - **Ages from the target.** They would tell how long the customer stayed away, which nobody knows in advance.
# - **A decay that the log cannot tell.** On a log of a few hours, every decay per day looks the same.
# - **One decay, one vector.** Some hunt for weeks and some for minutes, and the mean of a phone and a chair is near neither.

# %% [markdown] tags=["folded"]
# ## Exercises
#
# 1. With which decay per day does a visit of three days ago weigh half as much as one of today?
#
# <details><summary>Solution</summary>
#
# From exp(-3d) = 1/2 follows d = ln 2 / 3, which is 0.231 per day.
#
# ```python
# assert np.isclose(np.exp(-np.log(2) / 3 * 3), 0.5)
# ```
#
# </details>
#
# 2. Make every visit a day older. In which of the three ways of counting age do the weights change?
#
# <details><summary>Solution</summary>
#
# Only under `log_days`: a softmax does not see what is added to all ages alike, but a logarithm bends it. (The module
# counts ages from the newest visit, so it never comes to this.)
#
# ```python
# visit_ages, decay_tried = np.array([5.0, 2.0, 0.0]), 0.7
# moved = {}
# for counted, bend in (("days", lambda t: t), ("log_days", np.log1p)):
#     raw = [np.exp(-decay_tried * bend(visit_ages + extra)) for extra in (0, 1)]
#     moved[counted] = np.abs(raw[0] / raw[0].sum() - raw[1] / raw[1].sum()).max()
# assert moved["days"] < 1e-12 < moved["log_days"]
# ```
#
# </details>
#
# 3. Show that a decay of 0 gives the plain mean, and that a very large one leaves only the newest product.
#
# <details><summary>Solution</summary>
#
# ```python
# vectors, known = aligned["word2vec"]
# seen = valid.items[history.start[0] : history.end[0]]
# flat = users.user_embeddings(history, vectors, 0.0, "rank", known)[0]
# newest = users.user_embeddings(history, vectors, 1000.0, "rank", known)[0]
# assert np.allclose(flat, vectors[seen[known[seen]]].mean(axis=0), atol=1e-5)
# assert np.allclose(newest, vectors[seen[known[seen]][-1]], atol=1e-5)
# ```
#
# </details>

# %% [markdown]
# ## Takeaways

# %%
at_zero = sweep[(sweep.model == f"{chosen}_user") & (sweep.decay == 0) & (sweep.decay_time == clock)]
against = [
    f"Against the plain mean, the best decay changes MRR@20 on the valid users by {100 * (top[f'{chosen}_user'] - mean):+.1f} points."
    for mean in at_zero["mrr@20"]
]  # nothing, where the plain mean was not tried
half_life = f"a half-life of {np.log(2) / user_decay:.1f} days" if user_decay and clock == "days" else f"ages counted as {clock}"
how = "was given" if decay is not None else "found most on the valid users"
exhibits.takeaways([
    f"The decay of the {palette.label_of(chosen)} user embedding is d = {user_decay:g}, which {how}: {half_life}.",
    *against,
])  # fmt: skip
