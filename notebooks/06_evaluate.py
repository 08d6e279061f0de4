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
# - measure every model on the same targets and the same candidates, with intervals;
# - see for whom each works: short or long histories, popular or rare products, new or seen ones;
# - read the verdict.

# %% tags=["parameters"]
run_dir = "reports/default"  # folder that this run writes to
seed = 0  # of everything random

# %%
import keras
import numpy as np
import pandas as pd

from shelfspace import baselines, embeddings, metrics, plots, recommender, runs, sequences

plots.theme()
run = runs.run_folder(run_dir)
products = pd.read_parquet(run / "products.parquet")
product_ids = products.product_id.to_numpy().astype(str)
table = sequences.load(run / "sequences.parquet")
corpus = sequences.corpus(table)
test = sequences.examples(table, product_ids, "test")
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
# ## The models
#
# Simple ones first. A network has to beat *most popular*, *the user's own products* and *co-occurrence* (customers who
# saw this also saw that), which stands for the model in use before embeddings. Each has the decay that was best for it
# on the valid users.

# %%
files = {name: run / "product_embeddings" / f"{name}.parquet" for name in ("word2vec", "starspace")}
aligned = {name: embeddings.align(embeddings.load(file), product_ids) for name, file in files.items()}
counts = np.zeros(len(product_ids))
counts[np.searchsorted(product_ids, corpus.product_ids)] = np.bincount(corpus.items)
network = keras.saving.load_model(run / "recommender.keras")
vectors, known = aligned[choice["embedding"]]
d, settings = choice["best"], (choice["decay"], choice["decay_time"], known)

# %%
models = {
    "popular": baselines.popular(counts),
    "own_products": baselines.own_products(counts, **d["own_products"]),
    "cooccurrence": baselines.item_to_item(baselines.cooccurrence(corpus, product_ids), **d["cooccurrence"]),
    "word2vec_last": baselines.nearest_to_last(*aligned["word2vec"]),
    "starspace_last": baselines.nearest_to_last(*aligned["starspace"]),
    "word2vec_user": baselines.nearest_to_user(*aligned["word2vec"], **d["word2vec_user"]),
    "starspace_user": baselines.nearest_to_user(*aligned["starspace"], **d["starspace_user"]),
    "dense": recommender.recommend(network, vectors, *settings),
}
kinds = (
    dict.fromkeys(models, "embedding")
    | dict.fromkeys(["popular", "own_products", "cooccurrence"], "baseline")
    | {"dense": "recommender"}
)

# %%
from tqdm.auto import tqdm

evaluations = {name: metrics.evaluate(model, test) for name, model in tqdm(models.items(), desc="models")}
results = {name: metrics.summary(found.ranks, seed) for name, found in evaluations.items()}
for name, found in evaluations.items():
    results[name] |= {
        "catalogue_coverage@20": metrics.catalogue_coverage(found.top, len(product_ids)),
        "kind": kinds[name],
        "label": plots.label_of(name),
    }

# %% [markdown]
# ## All test users

# %%
overall = plots.results_table(results, ("hit_rate@20", "mrr@20", "hit_rate@5", "mrr@5"))
ordered = sorted(results, key=lambda name: -results[name]["mrr@20"])
overall["catalogue@20"] = [results[name]["catalogue_coverage@20"] for name in ordered]
plots.table(
    overall,
    formats={"catalogue@20": ".1%"},
    caption=f"Every model on the same {len(test):,} test targets and {len(products):,} candidates, in %, with 95 % "
    "bootstrap intervals over users; and the share of the catalogue in anybody's first 20.",
)

# %%
long = metrics.tidy(results)
long = long.assign(label=long.model.map(plots.label_of), kind=long.model.map(kinds))
first, second = ordered[:2]
lead = metrics.difference(evaluations[first].ranks, evaluations[second].ranks, seed=seed)
plots.show(
    plots.model_comparison(long),
    caption=f"{plots.label_of(first)} comes first. Against {plots.label_of(second)}, the gain in MRR@20 is "
    f"{100 * lead['gain']:.2f} points (95 % interval {100 * lead['ci95'][0]:.2f} to "
    f"{100 * lead['ci95'][1]:.2f}, paired).",
    alt="Dots with intervals for each model, HR@20 on the left and MRR@20 on the right, sorted by MRR@20.",
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
# ## Takeaways

# %%
margin = {
    name: metrics.difference(evaluations[first].ranks, evaluations[name].ranks, seed=seed)
    for name in models
    if name != first
}
checks = runs.read_json(run / "embeddings.json")
best = {
    "model": first,
    "runner_up": second,
    "embedding": choice["embedding"],
    "decay": choice["decay"],
    "decay_time": choice["decay_time"],
    "gain": margin,
}
runs.write_json(run / "metrics.json", {
    "protocol": data["protocol"], "target_event": data["target_event"], "best": best, "models": results, "slices": cuts,
    "unseen": fresh, "data": data | {"coverage": checks[choice["embedding"]]["coverage"]}, "embeddings": checks,
})  # fmt: skip

# %%
plots.takeaways([
    f"{plots.label_of(first)} is best: HR@20 {results[first]['hit_rate@20']:.1%}, MRR@20 "
    f"{results[first]['mrr@20']:.1%}.",
    f"Its lead over {plots.label_of(second)} is {'clear' if lead['ci95'][0] > 0 else 'within the noise'}: "
    f"{100 * lead['gain']:.2f} points of MRR@20.",
    f"Most popular reaches {results['popular']['mrr@20']:.1%}; anything worth running must be far above it.",
])  # fmt: skip
