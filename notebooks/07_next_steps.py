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
#     - searches.parquet
#     - best_decays.json
#     - shop/truth_complements.parquet
#     writes:
#     - next_steps.json
# ---

# %% [markdown]
# # 7. Next steps
#
# In this notebook you will
#
# - try what the article's author would have tried next, each as one switch on the default;
# - work one of them through by hand: what a visit weighs;
# - see whether products that nobody clicked can be found.

# %% tags=["parameters"]
run_dir = "reports/default"  # folder that this run writes to
dim = 50  # length of the product embeddings; from 1 to 4096
next_users = 30000  # users drawn at random who take part in these trials; 0: all; from 0 to 10000000
sg_visits = 1250000  # visits on which each word2vec variant trains in all (3 to 100 passes); from 1 to 1000000000000
ss_examples = 300000  # examples on which each StarSpace variant trains in all (3 to 100 passes); from 1 to 1000000000000
event_counts = "1, 3, 5"  # how often a view, an add to cart and a purchase count; 3 numbers, each above 0 and at most 1000
market = 3  # negatives of the product's own category, where there are any; from 1 to 50
cold_share = 0.1  # share of the products that are hidden to see how new ones fare; above 0 and at most 0.5
images = ""  # folder with a picture of each product, named by its id; empty: none
seed = 0  # of everything random; from 0 to 4294967295

# %% [markdown] tags=["aside"]
# The trials use the vectors and models that the chapters before left in the run folder.

# %%
import numpy as np
import pandas as pd

from shelfspace.files import run_files
from shelfspace.models import baselines
from shelfspace.page import exhibits, palette
from shelfspace.sequences import arrays
from shelfspace.trials import gains, truths, variants
from shelfspace.vectors import embeddings
from shelfspace.vectors import images as pictures

# %% [markdown] tags=["aside"]
# A sample of the users takes part, so that all variants can be trained.

# %%
palette.theme()
run = run_files.run_folder(run_dir)
products = pd.read_parquet(run / "products.parquet")
table = arrays.sample(arrays.load(run / "sequences.parquet"), next_users, seed)
best_decays = run_files.read_json(run / "best_decays.json")

# %% [markdown]
# ## One switch at a time
#
# The article ends with a list of what to try next. Each entry is a switch here, and a variant is the default with that
# switch on: what a variant gains is what its switch is worth, *at this budget*, smaller than that of the second chapter.

# %% [markdown] tags=["aside"]
# All share training visits, passes, decay and targets, and recommend the products nearest to the decayed user
# embedding. Some switches need more than visits: the searches of the log, or pictures of the products.

# %%
asked = pd.read_parquet(run / "searches.parquet")
product_ids = products.product_id.to_numpy().astype(str)
folder = pictures.of_folder(images, product_ids, seed=seed) if images else None
material = variants.gather(table, products, asked=asked, pictures=folder)

# %% [markdown] tags=["aside"]
# Not every log can tell every variant: one without purchases knows no goal, one without categories no market.

# %%
left_out = {variant.name: why for variant in variants.VARIANTS if (why := variants.lacking(variant, material))}
for sentence in left_out.values():
    exhibits.note(sentence)

# %% [markdown] tags=["aside"]
# The others are these. Two need a word: a *global positive* lets each click of a session know what was bought at its end, at
# whatever distance, and *negatives of the category* make the vectors say what tells one phone from another.

# %% tags=["aside"]
chosen = [variant for variant in variants.VARIANTS if variant.name not in left_out]
exhibits.table(
    pd.DataFrame([{"variant": one.label, "what it raises, or does": one.formula, "after": one.source} for one in chosen]),
    caption=f"{len(chosen)} variants that this log can tell. v and u: vectors and context vectors; p: a product; c: one near "
    "it; k: noise; b: what the visit's session bought, or StarSpace's label; e: an event.",
)

# %% [markdown] tags=["aside"]
# The number of passes follows from the budget, and the decay is the one that the fourth chapter chose for each trainer.

# %%
settings = variants.Settings(
    decays={name: best_decays[f"{name}_user"] for name in ("word2vec", "starspace")}, dim=dim,
    sg_epochs=arrays.passes(len(material.corpus.items), sg_visits),
    ss_epochs=arrays.passes(len(material.corpus), ss_examples),
    counts=tuple(float(count) for count in event_counts.split(",")), market=market, seed=seed,
)  # fmt: skip

# %% [markdown] tags=["aside"]
# With every switch off, the trainer is that of the second chapter; each switch adds its terms to the same code.

# %%
made = variants.train(material, settings)
switched = [name for name in made if made[name].variant.base]

# %% [markdown] tags=["aside"]
# Beside the variants stand the vectors of the second chapter, with all the passes that they had.

# %%
known = {}
for name, decay in settings.decays.items():
    longer = embeddings.align(embeddings.load(run / "product_embeddings" / f"{name}.parquet"), material.product_ids)
    model = baselines.nearest_to_user(*longer, **decay)
    known[f"{name}_before"] = (f"{palette.label_of(name)} of chapter 2", model, material, longer[0].nbytes / 1e6, name)
made |= {name: variants.outside(name, *values) for name, values in known.items()}
label = {name: one.variant.label for name, one in made.items()}

# %% [markdown] tags=["aside"]
# Everything is measured twice: on the test targets, and with some products hidden from all training, as if they were new.

# %%
hidden = np.sort(np.random.default_rng(seed).permutation(len(products))[: int(cold_share * len(products))])
found = gains.measure(made, hidden, variants.cold(material, settings, made, hidden), seed)

# %% [markdown]
# ## One switch by hand: what a visit weighs
#
# A visit that ended in the cart says more than a glance. In the user embedding that is a factor $b$ for each kind of event $e_i$:
#
# $$w_i \propto b(e_i)\, e^{-d\,t_i}$$
#
# By hand: a view, a day later an add to cart with $b = 3$, and $d = \ln 2$.

# %%
weights = {}
for head, b in (("without the factor", [1, 1]), ("with it", [1, 3])):
    raw = np.array(b) * np.exp(-np.log(2) * np.array([1, 0]))
    weights[head] = raw / raw.sum()
exhibits.note("The weights are " + " and ".join(f"{w[0]:.2f}, {w[1]:.2f} {head}" for head, w in weights.items()) + ".")

# %% [markdown] tags=["aside"]
# Which $b$ is best, the valid users say. The vectors stay as they are, and every combination is tried on these users, so
# their own figure flatters the best.

# %% tags=["aside"]
if "word2vec_learned" in made:
    grid = 100 * made["word2vec_learned"].tried.pivot(index="add_to_cart", columns="purchase", values="mrr@20")
    best_b = ", ".join(f"{count:g}" for count in made["word2vec_learned"].chosen.values())
    exhibits.table(
        grid.add_prefix("purchase × "), index=True,
        caption=f"MRR@20 of the valid users in %. It is best where a view, an add to cart and a purchase count {best_b}; "
        f"given were {event_counts}.",
    )  # fmt: skip

# %% [markdown]
# Which $b$ is best, the valid users say; on the test users the chosen factors are tried once, in pairs. (The tied recommender has factors
# of its own, which share their work with attention and the bonus for products seen before; so they differ.)

# %%
if "word2vec_learned" in made:
    before, after = (found[name]["mrr@20"] for name in ("word2vec", "word2vec_learned"))
    exhibits.note(
        f"With a view, an add to cart and a purchase counting {best_b}, MRR@20 is {after['value']:.1%} against {before['value']:.1%}, in "
        f"points {gains.points(after)}. The verdict: {gains.standing(found['word2vec_learned'])}."
    )

# %% [markdown]
# ## All switches in one table
#
# With so many comparisons, some differ by luck, so the intervals hold all at once (Bonferroni). Where one holds 0, no difference is
# shown.

# %% [markdown] tags=["aside"]
# What its answers cost is measured for every switch, too: one user at a time, from the history to twenty products.

# %%
costs = pd.DataFrame([
    {
        "model": name, "train_s": one.train_seconds, "user_ms": 1000 * gains.latency(one),
        "product_ms": 1000 * gains.newcomer(one, products), "megabytes": one.megabytes,
    }
    for name, one in made.items()
])  # fmt: skip

# %% [markdown] tags=["aside"]
# *To the cart* is HR@20 of the targets that were put in the cart or bought; *new products* have a section below.

# %% tags=["aside"]
heads = {"train_s": "train s", "user_ms": "ms per user", "megabytes": "MB"}
exhibits.table(
    gains.overview(made, found).join(costs[list(heads)].rename(columns=heads)),
    formats={"train s": ".1f", "ms per user": ".2f", "MB": ".2f"},
    caption=f"{len(material.test):,} test targets, {found['word2vec']['next_cart']['n']:,} of them to the cart. Of a default its own "
    "figures in %, of the others the gain over the default of the same trainer in points, with its corrected interval. "
    f"word2vec had {settings.sg_epochs} passes, StarSpace {settings.ss_epochs}.",
)

# %% [markdown] tags=["aside"]
# Those that a shop would look at first: the gains beyond chance, and the losses.

# %%
verdict_of = {name: gains.standing(found[name]) for name in switched}
rows = {verdict: [label[name] for name in switched if verdict_of[name] == verdict] for verdict in dict.fromkeys(verdict_of.values())}
level = len(rows.pop("level", []))
exhibits.table(
    pd.DataFrame([{"verdict": verdict, "switches": "; ".join(names)} for verdict, names in rows.items()], columns=["verdict", "switches"]),
    formats={"switches": str},
    caption=f"Against the default of the same trainer, on {len(material.test):,} test targets; the other {level} are level in all.",
)

# %% [markdown] tags=["aside"]
# The approximate search walks a graph of neighbours in place of comparing with every product. Does that pay on a
# catalogue of this size?

# %%
if "word2vec_graph" in made:
    exact, graph = costs.set_index("model").user_ms[["word2vec", "word2vec_graph"]]
    exhibits.note(
        f"The approximate search finds {made['word2vec_graph'].recall:.1%} of the exact twenty nearest. With {len(products):,} "
        f"products it takes {graph:.2g} ms against {exact:.2g} ms, so it {'pays' if graph < 0.9 * exact else 'does not pay yet'}."
    )

# %% [markdown]
# ## Products that nobody clicked
#
# Only what is known of a new product can place it: its features in StarSpace, its words where searches taught what words mean, or, as
# [Airbnb](https://doi.org/10.1145/3219819.3219885) does, the three products most like it. A place that a new product takes, another loses,
# so the targets *beside* the new ones are watched as well.

# %%
places = [name for name in made if found[name].get("cold") and found[name]["cold"]["value"]]
placing = [name for name in made if name in ("word2vec", "starspace", *places)]
new, rest = (found["word2vec"][measure]["n"] for measure in ("cold", "others"))

# %% [markdown] tags=["aside"]
# The defaults stand first; those that find no new product are left out.

# %%
heads = {measure: gains.MEASURES[measure] for measure in ("cold", "others")}
waits = costs.set_index("model").product_ms[placing].to_numpy()
exhibits.table(
    gains.tabulate(made, {name: found[name] for name in placing}, heads).assign(**{"ms per new product": waits}),
    formats={"ms per new product": ".2f"},
    caption=f"In %, with {len(hidden):,} products hidden: of the {new:,} targets among them, and of the other {rest:,}; in "
    "brackets the interval of the gain. Without milliseconds, a new product waits for the next training.",
)

# %% [markdown]
# ## Is the truth recovered?
#
# What was bought at the end of a session that no embedding was trained on: how often is it among the twenty products
# nearest to a visit that led there? And the complements that the simulated shop knows?

# %%
bought, truth = truths.missions(table, material.product_ids), run / "shop" / "truth_complements.parquet"
pairs = {"bought": bought} if len(bought) else {}
if truth.exists():
    pairs["complement"] = truths.complements(pd.read_parquet(truth), material.product_ids)

# %% [markdown] tags=["aside"]
# Those are asked whose switch changes how the clicks alone are learned from.

# %%
trained = [name for name in made if set(made[name].variant.switches) <= {"weights", "goals", "market"} and name not in known]
recovered = truths.recover(made, pairs, trained, seed)

# %% [markdown] tags=["aside"]
# The share of pairs that each variant recovers:

# %% tags=["aside"]
sizes = " and ".join(f"{len(of):,} ({kind})" for kind, of in pairs.items())
if pairs:
    exhibits.table(
        gains.tabulate(made, recovered, {kind: kind for kind in pairs}),
        caption="How often what a visit led to is among its product's 20 nearest, in %, for these numbers of pairs: "
        f"{sizes}; in brackets as above, over users or products.",
    )
else:
    exhibits.note("No purchase is a target, and there is no known truth (`data=shop` has one), so nothing can be recovered.")

# %% [markdown] tags=["aside"]
# In short:

# %%
for kind in pairs:
    most = max(trained, key=lambda name: recovered[name][kind]["value"])
    exhibits.note(
        f"{kind.capitalize()}: the default finds {recovered['word2vec'][kind]['value']:.1%}; most finds “{label[most]}”, "
        f"{recovered[most][kind]['value']:.1%}."
    )

# %% [markdown] tags=["folded"]
# ## What could go wrong
#
# - **One budget is one point.** A variant that needs longer to learn looks worse here than it is.
# - **Many comparisons.** Believe what repeats with another seed, and on another log.
# - **Searches that tell the target.** The query just before the target is left out here; a shop that knows it in time should use it.

# %% [markdown] tags=["folded"]
# ## Exercises
#
# 1. With the weights $b$ of all events doubled, what changes in the user embedding?
#
# <details><summary>Solution</summary>
#
# Nothing: the weights are brought to a sum of 1, so only ratios count. That is why a view can stay at 1.
#
# ```python
# some = material.test[:50]
# one, twice = (baselines.nearest_to_user(*longer, 0.1, event_weights=b)(some) for b in ((1, 3, 5), (2, 6, 10)))
# assert np.allclose(one, twice, atol=1e-5)
# ```
#
# </details>
#
# 2. How much of the default's hit rate is products that the user had seen before? Does that differ for what goes to the cart?
#
# <details><summary>Solution</summary>
#
# Compare the two shares: where that of the cart is larger, carts are filled from what was looked at before.
#
# ```python
# from shelfspace.measure import evaluation, ranking
#
# ranks = evaluation.evaluate(made["word2vec"].model, material.test).ranks
# hits, seen, cart = ranking.hit_rate(ranks, 20), material.test.seen(), material.test.target_event > 0
# shares = {name: hits[part & seen].sum() / max(1, hits[part].sum()) for name, part in (("all", cart | True), ("cart", cart))}
# assert 0 <= shares["all"] <= 1 and 0 <= shares["cart"] <= 1
# ```
#
# </details>

# %% [markdown] tags=["aside"]
# The figures of every variant go into next_steps.json, each with its costs and what the valid users chose.

# %%
figures = {name: found[name] | {"label": label[name], "base": one.variant.base, "chosen": one.chosen} for name, one in made.items()}
for row in costs.replace({np.nan: None}).to_dict("records"):
    figures[row.pop("model")] |= row

# %% [markdown] tags=["aside"]
# Beside them stand the verdicts as sentences, and what the log could not tell.

# %%
verdicts = {name: gains.verdict(made[name], made[made[name].variant.base], found[name]) for name in switched}
run_files.write_json(run / "next_steps.json", {
    "users": len(np.unique(table["user_id"].to_numpy())), "test": len(material.test),
    "passes": {"word2vec": settings.sg_epochs, "starspace": settings.ss_epochs}, "variants": figures, "left_out": left_out,
    "recovered": recovered, "recall": made["word2vec_graph"].recall if "word2vec_graph" in made else None, "verdicts": verdicts,
})  # fmt: skip

# %% [markdown]
# ## Takeaways
#
# The valid users choose each of these, and the test users say what it is worth.

# %%
valid = {name: one["valid"] for name, one in found.items()}
top = max(switched, key=lambda name: valid[name] - valid[made[name].variant.base], default="word2vec_before")
newest, best = max(places, key=valid.get, default=None), max(valid, key=valid.get)
helps = [name for name in switched if found[name]["mrr@20"]["ci95"][0] > 0]

# %% [markdown] tags=["aside"]
# In sentences:

# %%
exhibits.takeaways([
    f"{len(helps)} of {len(switched)} switches gain MRR@20 beyond chance at this budget; “{label[top]}”, which gains most on the "
    f"valid users, brings {gains.points(found[top]['mrr@20'], ' points')} on the test users.",
    *([f"Of products that nobody clicked, “{label[newest]}”, best on the valid users of those that can, finds "
       f"{found[newest]['cold']['value']:.1%} in twenty tries, the default none."] if newest else []),
    f"Of all, the valid users choose “{label[best]}”, with an MRR@20 of {found[best]['mrr@20']['value']:.1%} on the test users; that of "
    f"the default is {found['word2vec']['mrr@20']['value']:.1%}.",
])  # fmt: skip
