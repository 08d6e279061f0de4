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
#     parts:
#       sweep:
#       - products.parquet
#       - sequences.parquet
#       - data.json
#       - best_decays.json
#     reads:
#     - products.parquet
#     - product_embeddings/*
#     - sequences.parquet
#     - data.json
#     - decay.json
#     - best_decays.json
#     - embeddings.json
#     - recommender*
#     - shop/*
#     writes:
#     - metrics.json
#     - baseline_sweep.parquet
#     - test_ranks.parquet
#     - journeys.parquet
#     - evaluations/*
# ---

# %% [markdown]
# # 6. Evaluate
#
# In this notebook you will
#
# - tune the baselines, so that the networks have something to beat;
# - measure every model on the same targets, and test the differences in pairs;
# - look beyond accuracy: at variety, cost, calibration, and for whom each works.

# %% tags=["parameters"]
run_dir = "reports/default"  # folder that this run writes to
asked_targets = 20000  # ask for at most so many valid and so many test targets, drawn at random; from 1 to 1000000000
sweep_users = 2000  # try the decays on at most so many valid users; from 1 to 10000000
matrix_factorisation = False  # also fit matrix factorisation; needs the extra mf: pip install 'shelfspace[mf]'
peers = False  # also train GRU4Rec and SASRec, networks of the literature, as baselines; takes minutes
licence = ""  # licence of the log, for the model card beside the report
seed = 0  # of everything random; from 0 to 4294967295

# %% [markdown] tags=["aside"]
# What is measured here was trained before; only the baselines are still to be counted.

# %% tags=["setup"]
from functools import partial

import keras
import numpy as np
import pandas as pd
from tqdm import tqdm

from shelfspace.files import run_files
from shelfspace.measure import beyond_accuracy, evaluation, intervals, ranking
from shelfspace.models import baselines, dense, factors, journeys, newcomers, ranked, session_knn, tied
from shelfspace.models.peers import DROPOUTS, PEERS, maker
from shelfspace.page import exhibits, palette, result_charts
from shelfspace.sequences import arrays
from shelfspace.trials import ceiling
from shelfspace.vectors import embeddings

palette.theme()

# %% [markdown] tags=["aside"]
# The chapters before left the product table, what they chose, and what is known of the log.

# %% tags=["setup"]
run = run_files.run_folder(run_dir)
products = pd.read_parquet(run / "products.parquet")
product_ids = products.product_id.to_numpy().astype(str)
best_decays, data = run_files.read_json(run / "best_decays.json"), run_files.read_json(run / "data.json")

# %% [markdown] tags=["aside"]
# The baselines count in all that may train, as the networks learned from it. Of a large log not all targets are asked for, as more than so
# many narrow the intervals little.

# %% tags=["setup"]
table = arrays.load(run / "sequences.parquet")
corpus = arrays.corpus(table, targets=True)
valid, test = (arrays.examples(table, product_ids, split).sample(asked_targets, seed) for split in ("valid", "test"))

# %% [markdown]
# ## Hit rate and reciprocal rank
#
# Each model scores **all** products for each test user. The target's rank is one plus the number of products with a higher score;
# products with the same score share the places they take. Then
#
# $$\mathrm{HR@}K = \frac{1}{n} \sum_u [\mathrm{rank}_u \le K]$$
#
# $$\mathrm{MRR@}K = \frac{1}{n} \sum_u \frac{[\mathrm{rank}_u \le K]}{\mathrm{rank}_u}$$
#
# By hand, for a few valid users, to whom what they saw themselves is recommended:

# %% [markdown] tags=["aside"]
# How many products score more than the target?

# %%
counts = baselines.visit_counts(corpus, product_ids)
few = valid.sample(8, seed)
scores = baselines.own_products(counts, **best_decays["own_products"])(few)
of_target = scores[np.arange(len(few)), few.target][:, None]
rank = 1 + (scores > of_target).sum(axis=1) + (scores == of_target).sum(axis=1) // 2  # half of the ties, the target's own left out

# %% [markdown] tags=["aside"]
# From the ranks follow both measures, a number for each user, of which the mean is told.

# %%
hit = (rank <= 20).astype(float)
reciprocal = np.where(rank <= 20, 1 / rank, 0)

# %% [markdown] tags=["aside"]
# The functions that measure all models from here on find the same:

# %%
assert np.array_equal(rank, ranking.ranks(scores, few.target))
assert np.array_equal(hit, ranking.hit_rate(rank, 20)) and np.allclose(reciprocal, ranking.reciprocal_rank(rank, 20))
exhibits.note(f"The ranks {', '.join(map(str, rank))} give an HR@20 of {hit.mean():.3f} and an MRR@20 of {reciprocal.mean():.4f}.")

# %% [markdown]
# ## Baselines worth beating
#
# *Most popular*, all the time or of late; *the user's own products*; *co-occurrence* (customers who saw this also saw that), which stands
# for the model in use before embeddings; *Markov*, what came most often after the last product; *session-KNN*, what stands in the
# training sequences most like the user's ([Ludewig and Jannach 2018](https://arxiv.org/abs/1803.09587)); and *EASE*, a linear
# regression of each product on all others ([Steck 2019](https://arxiv.org/abs/1905.03375)). A baseline that nobody tuned proves nothing,
# so each gets its settings from the valid users.

# %% [markdown] tags=["aside"]
# Here is what makes each of them from its settings.

# %% tags=["sweep"]
pairs = baselines.cooccurrence(corpus, product_ids)
makers = {
    "recently_popular": partial(baselines.recently_popular, corpus, product_ids),
    "markov": partial(baselines.markov, corpus, product_ids),
    "session_knn": partial(session_knn.session_knn, corpus, product_ids),
    "cooccurrence": partial(baselines.item_to_item, pairs),
    "ease": factors.Ease(corpus, product_ids),
}

# %% [markdown] tags=["aside"]
# All combinations of these settings are tried. Co-occurrence has its decay already, from the choice of the decays.

# %% tags=["sweep"]
grids = {
    "recently_popular": {"decay": [0.03, 0.1, 0.3, 1.0]},
    "markov": {"steps": [1, 2, 4, 8, 16], "own": [False, True]},
    "cooccurrence": {name: [value] for name, value in best_decays["cooccurrence"].items()} | {"own": [False, True]},
    "session_knn": {"neighbours": [100, 300, 1000], "decay": [None, 0.0, 0.03, 0.1, 0.3, 1.0], "own": [False, True]},
    "ease": {"regularisation": [30.0, 100.0, 300.0, 1000.0], "decay": [0.1, 0.3, 1.0], "own": [False, True]},
}

# %% [markdown] tags=["aside"]
# Matrix factorisation is there for the asking.

# %% tags=["sweep"]
if matrix_factorisation:
    makers["matrix_factorisation"] = partial(factors.matrix_factorisation, corpus, product_ids, seed=seed)
    grids["matrix_factorisation"] = {"dim": [32, 64, 128], "decay": [0.1, 0.3, 1.0]}

# %% [markdown] tags=["aside"]
# The same valid users judge all of them, by MRR@20.

# %% tags=["sweep"]
judges = valid.sample(sweep_users, seed)
tuned = run_files.once(run, "baseline_sweep.parquet", evaluation.save_sweep, models=makers, grids=grids, examples=judges).returned

# %% [markdown] tags=["aside"]
# With `peers`, two networks of the literature that know the order of the visits alone join them: GRU4Rec (Hidasi et al., 2016) and SASRec
# (Kang and McAuley, 2018), whose passes are chosen by the valid users, too.

# %%
tried = pd.read_parquet(run / "baseline_sweep.parquet")
if peers:
    makers |= {kind: maker(kind, corpus, product_ids, valid, seed=seed) for kind in PEERS}
    of_peers = dict.fromkeys(PEERS, {"dropout": DROPOUTS})
    tried_too, tuned_too = evaluation.sweep(makers, of_peers, judges)
    grids, tried, tuned = grids | of_peers, pd.concat([tried, tried_too], ignore_index=True), tuned | tuned_too

# %% [markdown] tags=["aside"]
# Who won among the settings of each, and by how much does a baseline lose that nobody tuned?

# %% tags=["aside"]
settings = best_decays | tuned
spread = tried.groupby("model", sort=False)["mrr@20"].agg(["min", "max"])
exhibits.table(
    pd.DataFrame({
        "model": [palette.label_of(name) for name in tuned],
        "tried": ["; ".join(f"{key}: {', '.join(map(str, values))}" for key, values in grids[n].items()) for n in tuned],
        "chosen": [", ".join(f"{key} {value}" for key, value in tuned[name].items()) for name in tuned],
        "worst MRR@20": spread["min"].to_numpy(), "best MRR@20": spread["max"].to_numpy(),
    }),
    formats={"worst MRR@20": ".1%", "best MRR@20": ".1%"},
    caption=f"What {len(judges):,} valid users chose for the baselines. A decay of None weighs the history linearly, as "
    "in the paper of session-KNN; own says whether the user's own sequence stays in the counts.",
)  # fmt: skip

# %% [markdown] tags=["aside"]
# Both embeddings are brought into the order of the product table; the networks stand on the one that was chosen.

# %%
files = {name: run / "product_embeddings" / f"{name}.parquet" for name in ("word2vec", "starspace")}
aligned = {name: embeddings.align(embeddings.load(file), product_ids) for name, file in files.items()}
choice = run_files.read_json(run / "decay.json")
vectors, known = aligned[choice["embedding"]]

# %% [markdown] tags=["aside"]
# The networks are opened as the chapter before left them, and the ranker with the sources that it was trained with. What was counted for
# the baselines is handed on and not counted again.

# %%
leaving = run_files.read_json(run / "recommender.json")
network = keras.saving.load_model(run / "recommender_dense.keras")
ranker = ranked.reopen(run / "recommender_ranked.txt", corpus, pairs)
makers["ease"] = factors.Ease(corpus, product_ids, saved=run / "recommender_ease.npz")

# %% [markdown] tags=["aside"]
# Two of the three recommenders end in a softmax, so that they have probabilities to be judged by.

# %%
softmaxes = {
    "dense": dense.recommend(network, vectors, choice["decay"], choice["decay_time"], known),
    "tied": ranker.sources["tied"],
}
networks = softmaxes | {"ranked": ranked.recommend(ranker)}

# %% [markdown] tags=["aside"]
# Where places are kept for new products, the recommender that leaves the pipeline is measured with them.

# %%
if leaving["new_places"]:
    unclicked = newcomers.model(products, *aligned["word2vec"], counts > 0, **best_decays["word2vec_user"])
    networks[leaving["model"]] = newcomers.keep_places(networks[leaving["model"]], unclicked, leaving["new_places"])

# %% [markdown] tags=["aside"]
# Beside them stand the baselines, each with the settings that the valid users chose, and what is nearest in either embedding: to the
# last product, and to the user, which is one of the ranker's sources. Each is made when its turn comes.

# %%
makers |= {"popular": partial(baselines.popular, counts), "own_products": partial(baselines.own_products, counts)}
near = {f"{name}_last": partial(baselines.nearest_to_last, *pair) for name, pair in aligned.items()}
near |= {f"{name}_user": partial(ranker.sources.get, f"{name}_user") for name in aligned}
models = {name: partial(make, **settings.get(name, {})) for name, make in makers.items()} | near
models |= {name: partial(networks.get, name) for name in networks}
kinds = dict.fromkeys(makers, "baseline") | dict.fromkeys(near, "embedding") | dict.fromkeys(networks, "recommender")

# %% [markdown]
# ## The model of choice
#
# Every model is asked about the valid and the test users, and timed. A model that answers as it did before, as its files and settings are
# the same, is not asked again.

# %%
of_all = ["products.parquet", "sequences.parquet", "best_decays.json", "recommender_tied.keras", "recommender_ranked.txt"]
of_all += [f"product_embeddings/{name}.parquet" for name in aligned]
alike = {file: run_files.sha256_file(run / file) for file in of_all}
alike |= {"asked": [asked_targets, seed], "facts": choice["embedding"]}
alike |= {name: leaving[name] for name in ("model", "new_places") if leaving["new_places"]}
own = {"dense": [run_files.sha256_file(run / "recommender_dense.keras"), choice]}
measured = {
    name: run_files.once(
        run, f"evaluations/{name}.npz", lambda path, made_of: beyond_accuracy.measure(path, make, valid, test, name in softmaxes),
        made_of=[alike, settings.get(name), own.get(name)],
    )
    for name, make in tqdm(models.items(), desc="models")
}  # fmt: skip
answers = {name: evaluation.load(run / f"evaluations/{name}.npz") for name in models}

# %% [markdown] tags=["aside"]
# The valid users choose the model, so that luck on the test users cannot.

# %%
valid_figures = {name: evaluation.figures(of["valid"], valid) for name, of in answers.items()}
evaluations = {name: of["test"] for name, of in answers.items()}
ordered = evaluation.chosen(valid_figures, list(models))
first, second = ordered[:2]

# %% [markdown]
# How sure is the mean of the test users? The *bootstrap* draws as many customers as there are, with replacement, a thousand times; the
# interval is the middle 95 % of the thousand means. By hand:

# %% [markdown] tags=["aside"]
# Customers are drawn with all of their targets.

# %%
found = ranking.reciprocal_rank(evaluations[first].ranks, 20)
of_customer = pd.Series(found).groupby(test.user_ids).agg(["sum", "size"]).to_numpy()
rng, n = np.random.default_rng(seed), len(of_customer)
totals = np.array([of_customer[rng.integers(n, size=n)].sum(axis=0) for _ in range(1000)])
low, high = 100 * np.quantile(totals[:, 0] / totals[:, 1], [0.025, 0.975])

# %% [markdown] tags=["aside"]
# Many customers are drawn in another way by the module, so that its interval may differ a little.

# %%
by_module = intervals.interval(found, test.user_ids, seed)
exhibits.note(
    f"{palette.label_of(first)} has an MRR@20 of {100 * found.mean():.2f} %: {low:.2f} to {high:.2f} by hand, "
    f"{100 * by_module[0]:.2f} to {100 * by_module[1]:.2f} by intervals.interval."
)

# %% [markdown] tags=["aside"]
# Every model has such intervals for each of its figures, of all targets and of parts of them.

# %%
three = {name: evaluation.columns(found, test, seed) for name, found in evaluations.items()}
results = {name: of["all"] | {"seen": of["seen"], "discovery": of["discovery"], "valid": valid_figures[name]} for name, of in three.items()}

# %% [markdown] tags=["aside"]
# How varied are the lists, and which settings made them? This goes beside the figures of each model.

# %%
for name, found in evaluations.items():
    results[name] |= {
        "catalogue_coverage@20": beyond_accuracy.catalogue_coverage(found.top, len(product_ids)),
        "gini@20": beyond_accuracy.gini(found.top, len(product_ids)),
        "novelty@20": beyond_accuracy.novelty(found.top, counts),
        "diversity@20": beyond_accuracy.intra_list_diversity(found.top, vectors),
        "kind": kinds[name],
        "label": palette.label_of(name),
        "settings": settings.get(name, {}),
    }

# %% [markdown] tags=["aside"]
# What nobody could know sets a limit to all of them. The simulated shop knows the chances that it draws from, and ranked by them
# it gets a row of its own, *what can be known*: nobody can do better in *all* and *discovery*. It knows each customer's true
# tastes and decay, and when the target was visited, which no history tells in full, so perhaps nobody can do as well. It is no
# model: never chosen, no baseline, and never tested.

# %%
knowable = {}
if ceiling.is_known(run, data):
    run_files.once(
        run, "evaluations/ceiling.npz",
        lambda path, made_of: evaluation.save(path, {"test": evaluation.evaluate(ceiling.of_run(run, product_ids, data), test)}),
        made_of=[alike, data],
    )  # fmt: skip
    knowable["ceiling"] = evaluation.columns(evaluation.load(run / "evaluations" / "ceiling.npz")["test"], test, seed)

# %% [markdown]
# Showing a product again is easy, but a shop pays for what its customers had not found yet. So each model has three columns: **all**
# targets; those **seen before**; and **discovery**, the new ones, where products already seen are no candidates.

# %% tags=["aside"]
beside = three | knowable
for metric in ("mrr@20", "hit_rate@20"):
    exhibits.table(
        result_charts.columns_table(beside, metric, [*knowable, *ordered], evaluation.COLUMNS),
        caption=f"{palette.metric_label(metric)} on the same test targets ("
        + ", ".join(f"{evaluation.COLUMNS[key]}: {of['n']:,}" for key, of in three[first].items() if of)
        + f") and {len(products):,} candidates, in %, with 95 % bootstrap intervals over customers. Models in the order of "
        "their MRR@20 on the valid users.",
    )

# %% [markdown] tags=["aside"]
# What the choice may cost is seen on the test users: how far the chosen model is behind the one that is best there.

# %%
best_on_test = max(results, key=lambda name: results[name]["mrr@20"])
regret = results[best_on_test]["mrr@20"] - results[first]["mrr@20"]
against = "no other model is ahead of it"
if best_on_test != first:
    against = f"{palette.label_of(best_on_test)} is {100 * regret:.2f} points ahead"

# %% [markdown]
# Is its lead over the second beyond chance? Both were asked about the same customers, and easy customers are easy for both. So the *paired
# test* looks at each customer's difference, and draws customers anew. By hand:

# %%
difference = ranking.reciprocal_rank(evaluations[first].ranks, 20) - ranking.reciprocal_rank(evaluations[second].ranks, 20)
of_customer = pd.Series(difference).groupby(test.user_ids).agg(["sum", "size"]).to_numpy()
totals = np.array([of_customer[rng.integers(n, size=n)].sum(axis=0) for _ in range(1000)])
low, high = 100 * np.quantile(totals[:, 0] / totals[:, 1], [0.025, 0.975])

# %% [markdown] tags=["aside"]
# The module has the same mean, and an interval from more draws:

# %%
by_module = evaluation.difference(evaluations[first].ranks, evaluations[second].ranks, test.user_ids, seed=seed)
exhibits.note(
    f"{palette.label_of(first)} less {palette.label_of(second)}: {100 * difference.mean():+.2f} points of MRR@20 ({low:+.2f} to "
    f"{high:+.2f}) by hand, {100 * by_module['gain']:+.2f} ({100 * by_module['ci95'][0]:+.2f} to {100 * by_module['ci95'][1]:+.2f}) by "
    "evaluation.difference."
)

# %% [markdown]
# Of twenty tests, one says "different" by chance at 5 %. So where many are told, the intervals are wide enough for all of them to hold at
# once (Bonferroni), and Holm's correction raises each p. In each column, the best baseline is that of the valid users:

# %%
others = [name for name in ordered if name != first]
margin = evaluation.differences(
    {name: (evaluations[first].ranks, evaluations[name].ranks, ranking.reciprocal_rank) for name in others},
    test.user_ids, seed=seed, comparisons=len(others),
)  # fmt: skip
intervals.correct(list(margin.values()))
lead = margin[second]

# %% [markdown] tags=["aside"]
# In each column, every one is held against the baseline that is best in it on the valid users.

# %%
by_column = evaluation.against_baselines(evaluations, valid_figures, list(makers), test, seed)

# %% [markdown] tags=["aside"]
# Where an interval holds 0 the two are *level*: no difference is shown, which does not show that there is none.

# %% tags=["aside"]
for key, of in by_column.items():
    tests = {name: of["paired"][name]["mrr@20"] for name in ordered if name in of["paired"]}
    exhibits.table(
        pd.DataFrame({
            "model": [palette.label_of(name) for name in tests],
            "points of MRR@20": [f"{100 * found['gain']:+.2f}" for found in tests.values()],
            "interval": [" to ".join(f"{100 * end:+.2f}" for end in found["ci95"]) for found in tests.values()],
            "p": [intervals.p_text(found) for found in tests.values()],
        }),
        caption=f"{evaluation.COLUMNS[key].capitalize()}: {of['n']:,} targets of {of['customers']:,} customers, paired against "
        f"{palette.label_of(of['baseline'])}. Intervals and p are corrected for the {of['comparisons']} differences of the tables.",
    )  # fmt: skip

# %% [markdown] tags=["aside"]
# Who is ahead, in one table:

# %%
stands = pd.DataFrame([
    {"column": evaluation.COLUMNS[key], "best baseline": palette.label_of(of["baseline"])} | {
        name: intervals.standing(of["paired"][name]["mrr@20"]) if name in of["paired"] else "–" for name in networks
    }
    for key, of in by_column.items()
])  # fmt: skip
exhibits.table(stands, caption="The recommenders by MRR@20, paired and corrected, against the best baseline of each column.")

# %% [markdown]
# ## Beyond accuracy
#
# A recommender that shows everybody the same products is of little use. *Catalogue coverage* is the share of products in anybody's first
# twenty; *Gini* says how unevenly the places fall (0 evenly, 1 all on one); *novelty* is $-\log_2$ of the products' share of visits;
# *diversity* one minus the mean cosine of two products in a list.

# %%
beyond = ["catalogue_coverage@20", "gini@20", "novelty@20", "diversity@20"]
few_models = list(dict.fromkeys([first, second, "dense", by_column["all"]["baseline"], "popular"]))
varied = pd.DataFrame([{"model": palette.label_of(name)} | {key: results[name][key] for key in beyond} for name in few_models])
exhibits.table(
    varied.rename(columns=palette.metric_label),
    formats={palette.metric_label(beyond[0]): ".1%"} | {palette.metric_label(key): ".2f" for key in beyond[1:]},
    caption="Variety in the first 20.",
)

# %% [markdown]
# ## What an answer costs
#
# The whole of it, from history to the first twenty products: for one user who waits, and for users in batches, as a nightly job does. A
# row for each model and way to ask, with its MRR@20 beside its time:

# %%
seconds = {name: made.returned for name, made in measured.items()}
cost = {
    f"{short} {column}": pd.DataFrame([
        {"model": name, "batch": int(batch), "seconds": each, "value": three[name][column][metric], "kind": kinds[name]}
        for name, found in seconds.items() for batch, each in found.items()
    ])
    for short, metric in (("hr", "hit_rate@20"), ("mrr", "mrr@20")) for column, of in three[first].items() if of
}  # fmt: skip

# %% [markdown] tags=["aside"]
# On the page, the choice of metric and targets is the reader's.

# %%
told = (
    f"{palette.label_of(first)} takes {1000 * seconds[first]['1']:.2g} ms for one user, {1000 * seconds[first]['1024']:.2g} ms in batches"
)
exhibits.show_by(
    {key: result_charts.latency(rows, {"hr": "hit_rate@20", "mrr": "mrr@20"}[key.split()[0]]) for key, rows in cost.items()},
    {
        key: f"Targets: {evaluation.COLUMNS[key.split()[1]]}. Milliseconds per user on this machine, medians. Hollow: a simple method; "
        f"nothing beats the models on the line. {told}." for key in cost
    },
    alt="Two panels of models as dots, time per user on a logarithmic axis and quality: one user at a time, and 1,024.",
)  # fmt: skip

# %% [markdown]
# ## Can its probabilities be believed?
#
# A softmax is calibrated if, of all users whose first product got 20 %, a fifth did look at it next. A network is surest where it has
# learned its examples by heart, and there it promises too much.

# %%
calibrated = {name: beyond_accuracy.calibration(evaluations[name], test.target) for name in softmaxes}
for name, (_, error) in calibrated.items():
    results[name]["calibration_error"] = error
told = "; ".join(f"{palette.label_of(name)} is off by {100 * error:.1f} points" for name, (_, error) in calibrated.items())
exhibits.show(
    result_charts.reliability({name: bins for name, (bins, _) in calibrated.items()}),
    caption=f"Ten groups of users by the probability of their first product, with 95 % intervals. {told}, on average. Below the "
    "diagonal a model promises too much.",
    alt="Share of users whose first product was the target against its probability, a line per network, and a diagonal.",
)

# %% [markdown]
# ## For whom does it work?
#
# The same for parts of the test targets; where the lines cross, another model serves that part better.

# %%
groups = evaluation.parts(test, counts, arrays.EVENT_LEVELS)
cuts = evaluation.slices(evaluations, groups, test.user_ids)

# %% [markdown] tags=["aside"]
# The picture has room for four models: the two best on the valid users, the best baseline, and what is popular.

# %%
shown = list(dict.fromkeys([first, second, by_column["all"]["baseline"], "popular"]))
rows = {
    short: pd.concat([
        evaluation.tidy({n: cut["models"][n] for n in shown}, [metric]).assign(
            slice=cut["cut"], group=cut["group"], n=cut["n"], label=lambda rows: rows.model.map(palette.label_of)
        )
        for cut in cuts.values()
    ] or [evaluation.tidy({})])
    for short, metric in (("hr", "hit_rate@20"), ("mrr", "mrr@20"))
}  # fmt: skip

# %% [markdown] tags=["aside"]
# Where the lines cross, another model serves that part of the customers better.

# %%
if cuts:
    easiest = max(cuts, key=lambda name: cuts[name]["models"][first]["mrr@20"])
    hardest = min(cuts, key=lambda name: cuts[name]["models"][first]["mrr@20"])
    told = f"In MRR@20, {palette.label_of(first)} finds it easiest for “{easiest}” and hardest for “{hardest}”."
    exhibits.show_by(
        {short: result_charts.slices(of, {"hr": "hit_rate@20", "mrr": "mrr@20"}[short]) for short, of in rows.items()},
        dict.fromkeys(rows, f"Parts of the test set, with 95 % intervals over customers, each by itself. {told}"),
        alt="Four panels: by history length, popularity of the target, event of the target, and whether it was seen before.",
    )
else:
    exhibits.note(f"No part of the {len(test):,} test targets is large enough to be measured by itself.")

# %% [markdown] tags=["aside"]
# The same with every baseline, to see whether a simple one is ahead anywhere:

# %% tags=["aside"]
if cuts:
    whom = list(dict.fromkeys([first, second, *(name for name in ordered if kinds[name] == "baseline")]))
    exhibits.table(
        pd.DataFrame({"model": [palette.label_of(name) for name in whom]} | {
            part: [f"{cut['models'][name]['mrr@20']:.1%}" for name in whom] for part, cut in cuts.items()
        }).set_index("model").T.rename_axis("part").reset_index(),
        caption="MRR@20 of every baseline beside the two best models, in the same parts.",
    )  # fmt: skip

# %% [markdown] tags=["folded"]
# ## What could go wrong
#
# - **Sampled candidates.** Ranking the target among a hundred random products flatters every model. Here every product is a candidate.
# - **Looking twice.** Each choice made on the test users uses them up a little.
# - **One draw.** A run is one split and one seed, and its intervals know of the customers alone.
# - **Offline is not online.** People click on what they are shown; a log that an old recommender shaped favours its likes.

# %% [markdown] tags=["folded"]
# ## Exercises
#
# 1. A model gives all of 101 products the same score. Which rank does the target get, and why neither 1 nor 101?
#
# <details><summary>Solution</summary>
#
# Rank 51: half of the ties count as ahead, as in a random order on average. Rank 1 would reward a model for saying
# nothing. It is true of the rank alone: HR@20 is 0 here, where a random order would hit in 20 of 101 cases.
#
# ```python
# tied_rank = ranking.ranks(np.zeros((1, 101)), np.array([3]))
# assert tied_rank[0] == 51 and ranking.hit_rate(tied_rank, 20)[0] == 0
# ```
#
# </details>
#
# 2. How much wider is the interval of MRR@20 with a quarter of the test users?
#
# <details><summary>Solution</summary>
#
# About twice as wide: the width falls with the root of the number of customers.
#
# ```python
# reciprocal = ranking.reciprocal_rank(evaluations[first].ranks, 20)
# few = np.random.default_rng(seed).permutation(reciprocal)[: len(reciprocal) // 4]
# widths = [np.ptp(intervals.interval(values)) for values in (reciprocal, few)]
# assert widths[1] > widths[0]
# ```
#
# </details>
#
# 3. Do the two best models find the same targets? See how far an oracle would come that picks the better of the two for
#    each user.
#
# <details><summary>Solution</summary>
#
# The oracle cannot be built, since it looks at the target. But a large gap says that the two know different things, and
# that a blend of them is worth a try.
#
# ```python
# pair = [evaluations[name].ranks for name in (first, second)]
# oracle = ranking.reciprocal_rank(np.minimum(*pair), 20).mean()
# assert oracle >= results[first]["mrr@20"]
# ```
#
# </details>

# %% [markdown] tags=["aside"]
# The model of choice first. Where the tied recommender has a part in it, the decay is the one that it learned, from word2vec on.

# %%
learned = {"embedding": "word2vec"} | tied.load(run / "recommender_tied.keras").findings()
chosen = learned if first in ("tied", "ranked") else choice
best = {
    "model": first,
    "runner_up": second,
    "embedding": chosen["embedding"],
    "decay": float(f"{chosen['decay']:.3g}"),
    "decay_time": chosen["decay_time"],
    "user_decay": best_decays[f"{choice['embedding']}_user"],
    "over_popular": evaluation.difference(
        evaluations[first].ranks, evaluations["popular"].ranks, test.user_ids, seed=seed, measure=ranking.hit_rate
    ),
    "gain": margin,
    "test_best": best_on_test,
    "regret": regret,
}

# %% [markdown] tags=["aside"]
# The page shows where the recommender that leaves the pipeline fails, and follows a few test customers visit by visit. For the one it needs the
# place of every test target by every model:

# %%
places = journeys.ranks(test, product_ids, {name: evaluations[name].ranks for name in ordered}, counts, arrays.EVENT_LEVELS)
with run_files.atomic(run / "test_ranks.parquet") as temporary:
    places.to_parquet(temporary, index=False)

# %% [markdown] tags=["aside"]
# For the other, what was recommended to these few after each visit, with the parts that sum to each score:

# %%
leaves, explain = leaving["model"], None
if leaves == "ranked":
    explain = partial(ranked.explain, ranker)
elif leaves == "tied":
    explain = partial(tied.explain, tied.load(run / "recommender_tied.keras"))
few = journeys.choose(test, evaluations[leaves].ranks, seed=seed)
with run_files.atomic(run / "journeys.parquet") as temporary:
    journeys.follow(test, few, product_ids, networks[leaves], explain).to_parquet(temporary, index=False)

# %% [markdown] tags=["aside"]
# All figures go into metrics.json, from which the page and the comparison of runs are made. What can be known has a row among the
# models, of a kind of its own.

# %%
checks = run_files.read_json(run / "embeddings.json")
rows = results | {
    name: of["all"] | {key: of[key] for key in ("seen", "discovery")} | {"kind": "ceiling", "label": palette.label_of(name)}
    for name, of in knowable.items()
}
run_files.write_json(run / "metrics.json", {
    "protocol": data["protocol"], "target_event": data["target_event"], "best": best, "models": rows, "slices": cuts,
    "columns": by_column, "embeddings": checks,
    "data": data | {"coverage": checks[choice["embedding"]]["coverage"], "licence": licence}, "timings": {"latency": seconds},
})  # fmt: skip

# %% [markdown]
# ## Takeaways

# %%
strongest = {key: of["baseline"] for key, of in by_column.items()}
told_of = {
    key: f"{evaluation.COLUMNS[key]} {three[first][key]['mrr@20']:.1%}, {palette.label_of(name)} {three[name][key]['mrr@20']:.1%}"
    for key, name in strongest.items()
}
exhibits.takeaways([
    f"The valid users chose {palette.label_of(first)}; on the test users {against} in MRR@20. Beside the best baseline of each column: "
    f"{'; '.join(told_of.values())}.",
    f"Its lead over {palette.label_of(second)} is {'beyond chance' if intervals.clear(lead) else 'not shown to differ from 0'} "
    f"(corrected, p {intervals.p_text(lead)}).",
])  # fmt: skip
