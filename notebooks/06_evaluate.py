# ---
# jupyter:
#   jupytext:
#     cell_metadata_filter: tags,-all
#     formats: ipynb,py:percent
#     notebook_metadata_filter: kernelspec,jupytext,-jupytext.text_representation.jupytext_version
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 6. Evaluate
#
# In this notebook you will
#
# - tune the baselines, so that the networks have something to beat;
# - measure every model on the same targets and the same candidates, with intervals, and test the differences in pairs;
# - look beyond accuracy: at variety, at the time an answer takes, and at whether probabilities can be believed;
# - see for whom each works: short or long histories, popular or rare products, new or seen ones;
# - read the verdict.

# %% tags=["parameters"]
run_dir = "reports/default"  # folder that this run writes to
sweep_users = 2000  # try the decays on at most so many valid users
matrix_factorisation = False  # also fit matrix factorisation; needs the extra mf: pip install 'shelfspace[mf]'
seed = 0  # of everything random

# %%
from functools import partial

import keras
import numpy as np
import pandas as pd
from tqdm import tqdm

from shelfspace import baselines, embeddings, metrics, plots, recommender, runs, sequences, tied

plots.theme()
run = runs.run_folder(run_dir)
products = pd.read_parquet(run / "products.parquet")
product_ids = products.product_id.to_numpy().astype(str)
table = sequences.load(run / "sequences.parquet")
corpus = sequences.corpus(table, targets=True)
valid, test = (sequences.examples(table, product_ids, split) for split in ("valid", "test"))
choice, data = runs.read_json(run / "decay.json"), runs.read_json(run / "data.json")

# %% [markdown]
# ## Hit rate and reciprocal rank
#
# Each model scores **all** products for each test user, those the user already saw too. The target's rank is one plus
# the number of products with a higher score; products with the same score share the places they take. Then
#
# $$\mathrm{HR@}K = \frac{1}{n} \sum_u [\mathrm{rank}_u \le K] \qquad \mathrm{MRR@}K = \frac{1}{n} \sum_u \frac{[\mathrm{rank}_u \le K]}{\mathrm{rank}_u}$$
#
# By hand, for four users whose targets have the ranks 1, 4, 25 and 2:

# %%
rank = np.array([1, 4, 25, 2])
by_hand = pd.DataFrame(
    {"rank": rank, "hit at 20": metrics.hit_rate(rank, 20), "reciprocal rank at 20": metrics.reciprocal_rank(rank, 20)}
)
plots.table(
    by_hand,
    caption=f"HR@20 is {metrics.hit_rate(rank, 20).mean():.2f} and MRR@20 is "
    f"{metrics.reciprocal_rank(rank, 20).mean():.4f}.",
)

# %% [markdown]
# ## Baselines worth beating
#
# Simple ones first: *most popular*, all the time or of late; *the user's own products*; *co-occurrence* (customers who
# saw this also saw that), which stands for the model in use before embeddings; *Markov*, what came most often after
# the last product; and *session-KNN*, what the training sequences most like the user's hold (V-SKNN of Ludewig and
# Jannach, 2018), which many a network has failed to beat. A baseline that nobody tuned proves nothing, so each gets
# its settings from the valid users, as the decays of the last but one chapter did.

# %%
counts = baselines.visit_counts(corpus, product_ids)
makers = {
    "recently_popular": partial(baselines.recently_popular, corpus, product_ids),
    "markov": partial(baselines.markov, corpus, product_ids),
    "session_knn": partial(baselines.session_knn, corpus, product_ids),
    "cooccurrence": partial(baselines.item_to_item, baselines.cooccurrence(corpus, product_ids)),
}
grids = {
    "recently_popular": {"decay": [0.03, 0.1, 0.3, 1.0]},
    "markov": {"steps": [1, 2, 4, 8, 16], "own": [False, True]},
    "cooccurrence": {name: [value] for name, value in choice["best"]["cooccurrence"].items()} | {"own": [False, True]},
    "session_knn": {"neighbours": [100, 300, 1000], "decay": [None, 0.0, 0.03, 0.1, 0.3, 1.0], "own": [False, True]},
}
if matrix_factorisation:
    makers["matrix_factorisation"] = partial(baselines.matrix_factorisation, corpus, product_ids, seed=seed)
    grids["matrix_factorisation"] = {"dim": [32, 64, 128], "decay": [0.1, 0.3, 1.0]}
judges = valid[np.sort(np.random.default_rng(seed).permutation(len(valid))[:sweep_users])]
tried, tuned = metrics.sweep(makers, grids, judges)

# %%
settings = choice["best"] | tuned
spread = tried.groupby("model", sort=False)["mrr@20"].agg(["min", "max"])
plots.table(
    pd.DataFrame({
        "model": [plots.label_of(name) for name in tuned],
        "tried": ["; ".join(f"{key}: {', '.join(map(str, values))}" for key, values in grids[n].items()) for n in tuned],
        "chosen": [", ".join(f"{key} {value}" for key, value in tuned[name].items()) for name in tuned],
        "worst MRR@20": spread["min"].to_numpy(), "best MRR@20": spread["max"].to_numpy(),
    }),
    formats={"worst MRR@20": ".1%", "best MRR@20": ".1%"},
    caption=f"What {len(judges):,} valid users chose for the baselines. A decay of None weighs the history linearly, as "
    "in the paper of session-KNN; own says whether the user's own sequence stays in the counts.",
)  # fmt: skip

# %% [markdown]
# ## The models

# %%
files = {name: run / "product_embeddings" / f"{name}.parquet" for name in ("word2vec", "starspace")}
aligned = {name: embeddings.align(embeddings.load(file), product_ids) for name, file in files.items()}
vectors, known = aligned[choice["embedding"]]
network, learned = (keras.saving.load_model(run / f"recommender_{name}.keras") for name in ("dense", "tied"))
makers |= {
    "popular": partial(baselines.popular, counts),
    "own_products": partial(baselines.own_products, counts),
}
near = {f"{name}_last": baselines.nearest_to_last(*pair) for name, pair in aligned.items()} | {
    f"{name}_user": baselines.nearest_to_user(*pair, **settings[f"{name}_user"]) for name, pair in aligned.items()
}
networks = {
    "dense": recommender.recommend(network, vectors, choice["decay"], choice["decay_time"], known),
    "tied": tied.recommend(learned),
}
models = {name: make(**settings.get(name, {})) for name, make in makers.items()} | near | networks
kinds = dict.fromkeys(makers, "baseline") | dict.fromkeys(near, "embedding") | dict.fromkeys(networks, "recommender")

# %%
evaluations = {
    name: metrics.evaluate(model, test, probabilities=name in networks) for name, model in tqdm(models.items(), desc="models")
}
results = {name: metrics.summary(found.ranks, seed) for name, found in evaluations.items()}
for name, found in evaluations.items():
    results[name] |= {
        "catalogue_coverage@20": metrics.catalogue_coverage(found.top, len(product_ids)),
        "gini@20": metrics.gini(found.top, len(product_ids)),
        "novelty@20": metrics.novelty(found.top, counts),
        "diversity@20": metrics.intra_list_diversity(found.top, vectors),
        "kind": kinds[name],
        "label": plots.label_of(name),
        "settings": settings.get(name, {}),
    }

# %% [markdown]
# ## All test users

# %%
ordered = sorted(results, key=lambda name: -results[name]["mrr@20"])
first, second = ordered[:2]
plots.table(
    plots.results_table(results, ("hit_rate@20", "mrr@20")),
    caption=f"Every model on the same {len(test):,} test targets and {len(products):,} candidates, in %, with 95 % "
    "bootstrap intervals over users.",
)
lead = metrics.difference(evaluations[first].ranks, evaluations[second].ranks, seed=seed)
plots.show(
    plots.model_comparison(metrics.tidy(results).assign(
        label=lambda rows: rows.model.map(plots.label_of), kind=lambda rows: rows.model.map(kinds)
    )),
    caption=f"{plots.label_of(first)} comes first. Against {plots.label_of(second)}, the gain in MRR@20 is "
    f"{100 * lead['gain']:.2f} points (95 % interval {100 * lead['ci95'][0]:.2f} to "
    f"{100 * lead['ci95'][1]:.2f}, paired).",
    alt="Dots with intervals for each model, HR@20 on the left and MRR@20 on the right, sorted by MRR@20.",
)  # fmt: skip

# %% [markdown]
# Intervals that overlap do not make two models level: both were asked about the same users, and easy users are easy for
# both. The paired test draws users anew and looks at each one's *difference*. Here every model is held against the
# strongest baseline.

# %%
strongest = next(name for name in ordered if kinds[name] == "baseline")
paired = {
    name: metrics.difference(evaluations[name].ranks, evaluations[strongest].ranks, seed=seed)
    for name in ordered
    if name != strongest
}
points = pd.DataFrame({
    "model": [plots.label_of(name) for name in paired],
    "points of MRR@20": [f"{100 * found['gain']:+.2f}" for found in paired.values()],
    "95 % interval": [" to ".join(f"{100 * end:+.2f}" for end in found["ci95"]) for found in paired.values()],
    "p": [found["p"] for found in paired.values()],
})  # fmt: skip
plots.table(
    points,
    formats={"p": ".3f"},
    caption=f"Paired against {plots.label_of(strongest)}, the strongest baseline: the difference in MRR@20 with its 95 % "
    f"interval, and a two-sided p-value for each pair by itself. {len(paired)} pairs were tested, so only a p below "
    f"{0.05 / len(paired):.4f} is clear (Bonferroni).",
)

# %% [markdown]
# ## Beyond accuracy
#
# A recommender that shows everybody the same twenty products can score well and still be of little use. *Catalogue* is
# the share of all products in anybody's first twenty; *Gini* says how unevenly the places fall on products (0 evenly, 1
# all on one); *novelty* is how little known they are, $-\log_2$ of their share of visits; *diversity* is one minus the
# mean cosine of two products in a list, which flatters models that do not follow that embedding.

# %%
beyond = ["catalogue_coverage@20", "gini@20", "novelty@20", "diversity@20"]
varied = pd.DataFrame([{"model": plots.label_of(name)} | {key: results[name][key] for key in beyond} for name in ordered])
widest = max((name for name in results if kinds[name] != "baseline"), key=lambda name: results[name][beyond[0]])
plots.table(
    varied.rename(columns=plots.metric_label),
    formats={plots.metric_label(beyond[0]): ".1%"} | {plots.metric_label(key): ".2f" for key in beyond[1:]},
    caption=f"Variety in the first 20, models by MRR@20. {plots.label_of(first)} shows "
    f"{results[first][beyond[0]]:.0%} of the catalogue to somebody; of the models that learned, "
    f"{plots.label_of(widest)} shows the most. Diversity is by the {plots.label_of(choice['embedding'])} embedding.",
)

# %% [markdown]
# ## What an answer costs
#
# The article weighs quality against the time that an answer takes. Here is the whole of it, from history to the first
# twenty products: for one user who waits, and for users in batches, as a nightly job does.

# %%
seconds = {
    name: {str(batch): metrics.latency(model, test, batch, repeats) for batch, repeats in ((1, 15), (1024, 3))}
    for name, model in models.items()
}
cost = pd.DataFrame([
    {"model": name, "batch": int(batch), "seconds": each, "value": results[name]["mrr@20"], "kind": kinds[name]}
    for name, found in seconds.items() for batch, each in found.items()
])  # fmt: skip
plots.show(
    plots.latency(cost),
    caption=f"MRR@20 against milliseconds per user on this machine, medians; the line joins the models that nothing beats "
    f"in both. {plots.label_of(first)} takes {1000 * seconds[first]['1']:.2g} ms for one user and "
    f"{1000 * seconds[first]['1024']:.2g} ms for each of 1,024.",
    alt="Two panels of models as dots, time per user on a logarithmic axis and MRR@20: one user at a time, and 1,024.",
)

# %% [markdown]
# ## Can its probabilities be believed?
#
# A softmax gives every product a probability. It is calibrated if, of all users whose first product got 20 %, a fifth
# did look at it next. The expected calibration error is the mean distance from that.

# %%
calibrated = {name: metrics.calibration(evaluations[name], test.target) for name in networks}
for name, (_, error) in calibrated.items():
    results[name]["calibration_error"] = error
told = "; ".join(f"{plots.label_of(name)} is off by {100 * error:.1f} points" for name, (_, error) in calibrated.items())
plots.show(
    plots.reliability({name: bins for name, (bins, _) in calibrated.items()}),
    caption=f"Users in ten groups of equal size by the probability of their first product, with 95 % intervals. {told}, "
    "on average. Below the diagonal a model promises too much.",
    alt="Share of users whose first product was the target against its probability, a line per network, and a diagonal.",
)

# %% [markdown]
# ## Without what the user already saw
#
# Showing a product again is easy and often right, but it is not discovery. In the second table, seen products are no
# candidates, and only targets that were new to the user count.

# %%
is_new = ~test.seen()
fresh = {name: metrics.summary(found.ranks_new[is_new], seed) for name, found in evaluations.items() if is_new.any()}
plots.table(
    plots.results_table(fresh, ("hit_rate@20", "mrr@20")),
    caption=f"Only the {is_new.sum():,} targets that were new to the user, among the products that were new to the "
    "user, in %.",
)

# %% [markdown]
# ## For whom does it work?

# %%
groups = metrics.parts(test, counts, sequences.EVENT_LEVELS)
cuts = metrics.slices(evaluations, groups)
shown = list(dict.fromkeys([first, second, "popular"]))
rows = pd.concat(
    metrics.tidy({n: cut["models"][n] for n in shown}, ["mrr@20"]).assign(
        slice=cut["cut"], group=cut["group"], n=cut["n"]
    )
    for cut in cuts.values()
)
rows["label"] = rows.model.map(plots.label_of)

# %%
easiest = max(cuts, key=lambda name: cuts[name]["models"][first]["mrr@20"])
hardest = min(cuts, key=lambda name: cuts[name]["models"][first]["mrr@20"])
plots.show(
    plots.slices(rows),
    caption=f"MRR@20 in parts of the test set. {plots.label_of(first)} finds it easiest for “{easiest}” and hardest "
    f"for “{hardest}”.",
    alt="Four panels with MRR@20 by history length, popularity of the target, event of the target, and whether it "
    "was seen before.",
)

# %% [markdown]
# ## What could go wrong
#
# - **Untuned baselines.** A network that beats a baseline which nobody tuned has beaten nobody.
# - **Sampled candidates.** Ranking the target among a hundred products drawn at random makes every model look better, and
#   not all by the same amount. Here every product is a candidate.
# - **Looking twice.** Each choice made on the test users uses them up a little. Settings are chosen on the valid users.
# - **Means without intervals.** A lead within the interval is no lead; and of twenty models compared, one is ahead by luck.
# - **Offline is not online.** People click on what they are shown. A log that an old recommender shaped favours its likes.
#
# ## Exercises
#
# 1. A model gives all of 101 products the same score. Which rank does the target get, and why neither 1 nor 101?
#
# <details><summary>Solution</summary>
#
# Half of the ties count as ahead: what a random order would give on average. Rank 1 would reward a model for saying nothing.
#
# ```python
# tied_rank = metrics.ranks(np.zeros((1, 101)), np.array([3]))
# print(tied_rank)
# assert tied_rank[0] == 51
# ```
#
# </details>
#
# 2. How much wider is the interval of MRR@20 with a quarter of the test users?
#
# <details><summary>Solution</summary>
#
# About twice as wide: the width falls with the root of the number of users.
#
# ```python
# reciprocal = metrics.reciprocal_rank(evaluations[first].ranks, 20)
# few = np.random.default_rng(seed).permutation(reciprocal)[: len(reciprocal) // 4]
# widths = [np.ptp(metrics.interval(values)) for values in (reciprocal, few)]
# print(widths[1] / widths[0])
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
# oracle = metrics.reciprocal_rank(np.minimum(*pair), 20).mean()
# print(f"{oracle:.1%} against {results[first]['mrr@20']:.1%}")
# assert oracle >= results[first]["mrr@20"]
# ```
#
# </details>

# %% [markdown]
# ## Takeaways

# %%
margin = {
    name: metrics.difference(evaluations[first].ranks, evaluations[name].ranks, seed=seed)
    for name in models
    if name != first
}
checks = runs.read_json(run / "embeddings.json")
chosen = learned.findings() if first == "tied" else choice  # whose decay the winner uses
best = {
    "model": first,
    "runner_up": second,
    "embedding": choice["embedding"],
    "decay": float(f"{chosen['decay']:.3g}"),
    "decay_time": chosen["decay_time"],
    "gain": margin,
}
runs.write_json(run / "metrics.json", {
    "protocol": data["protocol"], "target_event": data["target_event"], "best": best, "models": results, "slices": cuts,
    "unseen": fresh, "paired": {"baseline": strongest, "models": paired}, "embeddings": checks,
    "data": data | {"coverage": checks[choice["embedding"]]["coverage"]}, "timings": {"latency": seconds},
})  # fmt: skip

# %%
most_hits = max(results, key=lambda name: results[name]["hit_rate@20"])
plots.takeaways([
    f"{plots.label_of(first)} has the highest MRR@20, {results[first]['mrr@20']:.1%}, with HR@20 "
    f"{results[first]['hit_rate@20']:.1%}; the highest HR@20 has {plots.label_of(most_hits)}.",
    f"Its lead over {plots.label_of(second)} is {'clear' if lead['ci95'][0] > 0 else 'within the noise'}: "
    f"{100 * lead['gain']:.2f} points of MRR@20 (paired, p = {lead['p']:.3f}).",
    f"The strongest baseline, tuned, is {plots.label_of(strongest)} with MRR@20 {results[strongest]['mrr@20']:.1%}; Most "
    f"popular reaches {results['popular']['mrr@20']:.1%}.",
    f"An answer of {plots.label_of(first)} takes {1000 * seconds[first]['1']:.2g} ms here; {told}.",
])  # fmt: skip
