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
# # 7. Next steps
#
# In this notebook you will
#
# - try what the article's author would have tried next, each as one switch on the default and on the same targets;
# - let the kind of event weigh, in training and in the user embedding;
# - take in searches, product information and what a session bought in the end;
# - see whether products that nobody clicked can be found;
# - weigh quality against time and size, an approximate search among them, and read a verdict on each.

# %% tags=["parameters"]
run_dir = "reports/default"  # folder that this run writes to
data = "shop"  # "shop" for the simulated shop, or a file, folder or pattern of CSV, Parquet or JSON Lines
columns = ""  # names of the columns in the log, where they are unusual, as --columns takes them; pairs of names
since = ""  # use only events from then on (UTC), as 2024-03-04; empty: from the first; a date or time
until = ""  # use only events before then (UTC); empty: to the last; a date or time
last_days = 0.0  # use only the last so many days of the log (the article: 7); 0 uses all; from 0 to 100000
dim = 50  # length of the product embeddings; from 1 to 4096
next_users = 30000  # users drawn at random who take part in these trials; 0: all; from 0 to 10000000
sg_visits = 1250000  # visits on which each word2vec variant trains in all (3 to 100 passes); from 1 to 1000000000000
ss_examples = 500000  # examples on which each StarSpace variant trains in all (3 to 100 passes); from 1 to 1000000000000
event_counts = "1, 3, 5"  # how often a view, an add to cart and a purchase count; 3 numbers, each above 0 and at most 1000
market = 3  # negatives of the product's own category, where there are any; from 1 to 50
cold_share = 0.1  # share of the products that are hidden to see how new ones fare; above 0 and at most 0.5
images = ""  # folder with a picture of each product, named by its id; empty: none
seed = 0  # of everything random; from 0 to 4294967295

# %% [markdown]
# A sample of the users takes part, so that all variants can be trained.

# %%
import keras
import numpy as np
import pandas as pd

from shelfspace.files import run_files
from shelfspace.logs import events
from shelfspace.models import baselines, tied
from shelfspace.page import exhibits, palette, result_charts
from shelfspace.sequences import arrays, prepare
from shelfspace.trials import gains, searches, truths, variants
from shelfspace.vectors import embeddings, skipgram
from shelfspace.vectors import images as pictures

palette.theme()
run = run_files.run_folder(run_dir)
products = pd.read_parquet(run / "products.parquet")
table = arrays.sample(arrays.load(run / "sequences.parquet"), next_users, seed)
choice, facts = run_files.read_json(run / "decay.json"), run_files.read_json(run / "data.json")

# %% [markdown]
# ## One switch at a time
#
# The article ends with a list of what to try next. Each entry is a switch here, off in the chapters before, and a
# variant is the default with that switch on. All variants have the same training visits, the same number of passes,
# the same decay and the same targets, and answer in the same way: the products nearest to the decayed user embedding. So
# what a variant gains is what its switch is worth, *at this budget*, which is smaller than that of the second chapter.

# %%
asked = folder = None
if facts["events_by_type"].get("search"):
    source = run / "shop" / "events.parquet" if data == "shop" else data
    named = dict(pair.split("=", 1) for pair in columns.split(",") if pair)
    log = events.read(source, columns=named, expected=facts["fingerprint"])
    asked = searches.of_log(prepare.last_days(prepare.window(log.table, since, until), last_days))
if images:
    folder = pictures.of_folder(images, products.product_id.to_numpy().astype(str), seed=seed)

# %% [markdown]
# Not every log can tell every variant: one without purchases knows no goal, one without categories no market.

# %%
material = variants.gather(table, products, asked=asked, pictures=folder)
chosen = [variant for variant in variants.VARIANTS if not variants.lacking(variant, material)]

# %% [markdown]
# These can be told, each with what it adds to the loss or to the average:

# %%
exhibits.table(
    pd.DataFrame({
        "variant": [variant.label for variant in chosen], "what it raises, or does": [variant.formula for variant in chosen],
        "after": [variant.source for variant in chosen],
    }),
    caption=f"{len(chosen)} variants that this log can tell. v and u: vectors and context vectors; p: a product; c: one near "
    "it; k: noise; b: what the visit's session bought, or StarSpace's label; e: an event.",
)  # fmt: skip
left_out = {variant.name: variants.lacking(variant, material) for variant in variants.VARIANTS if variant not in chosen}
for sentence in left_out.values():
    exhibits.note(sentence)

# %% [markdown]
# ## A positive from far away
#
# Most of a session is looking; its end says what it was for. Grbovic and Cheng (KDD 2018, section 3) let each click $p$ of
# a session know the product $b$ that was bought at its end, at whatever distance, and add noise $m$ from the market of
# $p$, which here is its category:
#
# $$\log \sigma(v_p \cdot u_c) + \sum_k \log \sigma(-v_p \cdot u_{n_k}) + \log \sigma(v_p \cdot u_b) + \sum_m \log \sigma(-v_p \cdot u_m)$$
#
# The first two terms are those of the second chapter. Noise from everywhere is easily told apart: a phone is no chair.
# Noise from the same category makes the vectors say what tells one phone from another.
#
# By hand, in the plane: the click $p$ has $v_p = (1, 0)$, and what was bought has $u_b = (0.6, 0.8)$.

# %%
v, u = np.array([[1.0, 0.0], [0.0, 0.0]]), np.array([[0.0, 0.0], [0.6, 0.8]])
pull = 1 - 1 / (1 + np.exp(-v[0] @ u[1]))
loss, v_after, u_after = skipgram.update(v, u, 0, 1, [], learning_rate=0.1)
steps = pd.DataFrame({
    "vector": ["v of the click", "u of what was bought"], "before": [f"({x:.2f}, {y:.2f})" for x, y in (v[0], u[1])],
    "after, by hand": [f"({x:.4f}, {y:.4f})" for x, y in (v[0] + 0.1 * pull * u[1], u[1] + 0.1 * pull * v[0])],
    "after, by the trainer": [f"({x:.4f}, {y:.4f})" for x, y in (v_after[0], u_after[1])],
})  # fmt: skip
exhibits.table(
    steps,
    caption=f"One step at a learning rate of 0.1. σ(0.6) is {1 - pull:.3f}, so {pull:.3f} is left to learn; the loss is "
    f"{-np.log(1 - pull):.4f} by hand and {loss:.4f} by the trainer.",
)

# %% [markdown]
# How much can it tell that the window does not know already? A purchase within the window of a click is its context
# anyhow.

# %%
goals = arrays.goals(material.corpus)
led = np.flatnonzero((goals >= 0) & (material.corpus.items[goals] != material.corpus.items))
if len(led):
    near = np.abs(goals[led] - led) <= 5
    exhibits.note(
        f"{len(led) / len(goals):.1%} of the training visits led to the purchase of another product, and {near.mean():.0%} of "
        "these stand within five visits of it, where the window reaches them, too."
    )
else:
    exhibits.note("No training visit led to the purchase of another product.")

# %% [markdown]
# ## All of them, at one budget
#
# The trainer of the second chapter knows the two new terms; without them it is skip-gram with negative sampling and nothing else.
# Models from the chapters before stand beside the variants: the vectors of the second chapter, with all the passes they had,
# and the tied recommender of the fifth.

# %%
settings = variants.Settings(
    decays={name: choice["best"][f"{name}_user"] for name in ("word2vec", "starspace")}, dim=dim,
    sg_epochs=arrays.passes(len(material.corpus.items), sg_visits),
    ss_epochs=arrays.passes(len(material.corpus), ss_examples),
    counts=tuple(float(count) for count in event_counts.split(",")), market=market, seed=seed,
)  # fmt: skip
made = variants.train(material, settings)

# %% [markdown]
# What the chapters before left, measured in the same way:

# %%
learned = keras.saving.load_model(run / "recommender_tied.keras")
known = {"tied": (palette.label_of("tied"), tied.recommend(learned), material, 4 * learned.count_params() / 1e6)}
for name, decay in settings.decays.items():
    longer = embeddings.align(embeddings.load(run / "product_embeddings" / f"{name}.parquet"), material.product_ids)
    model = baselines.nearest_to_user(*longer, **decay)
    known[f"{name}_before"] = (f"{palette.label_of(name)} of chapter 2", model, material, longer[0].nbytes / 1e6, name)
switched = [name for name in made if made[name].variant.base]
made |= {name: variants.outside(name, *values) for name, values in known.items()}

# %% [markdown]
# Everything is measured twice: on the test targets, and with some products hidden from all training, as if they were new.

# %%
hidden = np.sort(np.random.default_rng(seed).permutation(len(products))[: int(cold_share * len(products))])
found = gains.measure(made, hidden, variants.cold(material, settings, made, hidden), seed)

# %% [markdown]
# ## What each brought
#
# Each variant is held against its default on the same test users; the interval is that of the paired difference. *To the cart*
# are those targets that were put in the cart or bought. The test figures are there to be read, and nothing is chosen on
# them: which switch to keep, and which model is best, the valid users say.
#
# With so many switches and measures, some differ by luck. So the intervals are as wide as it takes for all of them
# together to hold in 95 % (Bonferroni). Where one holds 0, the two are *level*: no difference is shown, which does not
# show that there is none.

# %%
heads = {measure: gains.MEASURES[measure] for measure in ("hit_rate@20", "mrr@20", "next_cart")}
exhibits.table(
    gains.tabulate(made, found, heads).assign(**{"MRR@20, valid": [f"{100 * of['valid']:.1f}" for of in found.values()]}),
    caption=f"{len(material.test):,} test targets, {found['word2vec']['next_cart']['n']:,} of them to the cart, in %; in brackets "
    "the interval of the paired difference to the default of the same trainer, in points, corrected for all. word2vec had "
    f"{settings.sg_epochs} passes, StarSpace {settings.ss_epochs}.",
)

# %% [markdown]
# The gains in a picture:

# %%
label = {name: one.variant.label for name, one in made.items()}
points = pd.DataFrame([
    {"model": name, "label": label[name], "metric": metric, "gain": found[name][metric]["gain"]}
    | dict(zip(("lo", "hi"), found[name][metric]["ci95"]))
    for name in made if made[name].variant.base for metric in ("hit_rate@20", "mrr@20")
])  # fmt: skip
gained = {name: found[name]["valid"] - found[made[name].variant.base]["valid"] for name in switched}
top = max(gained, key=gained.get, default="tied")
exhibits.show(
    result_charts.gains(points),
    caption=f"The valid users gain most MRR@20 by “{label[top]}”; on the test users it is {100 * found[top]['mrr@20']['gain']:+.1f} "
    "points. The intervals are corrected for all switches and measures of this chapter.",
    alt="Dots with intervals for each variant: the gain over the default in HR@20, and in MRR@20.",
)

# %% [markdown]
# ## What a visit weighs
#
# A visit that ended in the cart says more than a glance, and one that ended in a purchase may say that the wish is
# fulfilled. In the user embedding that is a factor $b$ for each kind of event $e_i$:
#
# $$w_i \propto b(e_i)\, e^{-d\,t_i}$$
#
# By hand: a view and, a day later, an add to cart; with $d = \ln 2$ the weights are 1/3 and 2/3. With $b = 3$ for the cart
# they are $0.5 : 3$, that is 1/7 and 6/7. Which $b$ is best, the valid users say, so their own figure flatters it.

# %%
if "word2vec_learned" in made:
    weigh = made["word2vec_learned"].chosen
    exhibits.table(
        pd.DataFrame({
            "event": list(weigh), "given": settings.counts, "chosen by the valid users": list(weigh.values()),
            "share of the training visits": np.bincount(material.corpus.events, minlength=3) / len(material.corpus.events),
        }),
        formats={"share of the training visits": ".1%", "given": "g", "chosen by the valid users": "g"},
        caption="How often a visit counts in the user embedding, by the strongest event that it led to.",
    )  # fmt: skip
else:
    exhibits.note(left_out["word2vec_learned"])

# %% [markdown]
# ## Products that nobody clicked
#
# Some products are taken out of all training sequences, as if they were new, and every variant is trained on what is left,
# since the products that stay lose these neighbours, too. Only what is known of the new ones can place them:
# their features in StarSpace, their words where searches taught what words mean, or, as Airbnb does, the three products
# most like them. The other variants cannot find them. But a place in the list that a new product takes, another one
# loses, so the targets that are *not* new are watched as well.

# %%
placing = [name for name in made if name in ("word2vec", "starspace") or "cold" in found[name] and found[name]["cold"]["value"]]
heads = {measure: gains.MEASURES[measure] for measure in ("cold", "others")}
new, rest = (found["word2vec"][measure]["n"] for measure in heads)
exhibits.table(
    gains.tabulate(made, {name: found[name] for name in placing}, heads),
    caption=f"In %, with {len(hidden):,} products hidden: of the {new:,} targets among them, and of the other {rest:,}; in "
    "brackets as above. The variants that are not named find no new product.",
)

# %% [markdown]
# ## Is the truth recovered?
#
# Two truths are at hand. What was bought at the end of a session that no embedding was trained on: how often is it among
# the twenty products nearest to a visit that led there? And, in the simulated shop alone, which products truly go with
# which: how often is a complement among the twenty nearest?

# %%
bought, truth = truths.missions(table, material.product_ids), run / "shop" / "truth_complements.parquet"
pairs = {"bought": bought} if len(bought) else {}
if truth.exists():
    pairs["complement"] = truths.complements(pd.read_parquet(truth), material.product_ids)
trained = [name for name in made if set(made[name].variant.switches) <= {"weights", "goals", "market"} and name not in known]
recovered = truths.recover(made, pairs, trained, seed)

# %% [markdown]
# The share of pairs that each variant recovers:

# %%
if pairs:
    sizes = " and ".join(f"{len(of):,} ({kind})" for kind, of in pairs.items())
    exhibits.table(
        gains.tabulate(made, recovered, {kind: kind for kind in pairs}),
        caption="How often what a visit led to is among its product's 20 nearest, in %, for these numbers of pairs: "
        f"{sizes}; in brackets as above, over users or products.",
    )
else:
    exhibits.note("No purchase is a target, and there is no known truth (`data=shop` has one), so nothing can be recovered.")

# %% [markdown]
# In sentences:

# %%
asked_of = [(name, kind, recovered[name][kind]["ci95"]) for name in recovered if made[name].variant.base for kind in pairs]
often = {(True, False): "more often than", (False, True): "less often than", (False, False): "at a rate not shown to differ from"}
exhibits.takeaways([
    f"“{label[name]}” finds the {kind} product {often[low > 0, high < 0]} the default: "
    f"{100 * recovered[name][kind]['gain']:+.1f} points ({100 * low:+.1f} to {100 * high:+.1f})."
    for name, kind, (low, high) in asked_of
])  # fmt: skip

# %% [markdown]
# ## Quality, time and size
#
# The article's author weighs what an answer costs. All that takes part in an answer is timed, from the history to twenty
# products. An approximate search walks a graph of neighbours (HNSW, Malkov and Yashunin 2018) in place of comparing with
# every product.

# %%
costs = pd.DataFrame([
    {
        "model": name, "label": label[name], "value": found[name]["mrr@20"]["value"], "train_s": one.train_seconds,
        "user_ms": 1000 * gains.latency(one), "product_ms": 1000 * gains.newcomer(one, products),
        "megabytes": one.megabytes,
    }
    for name, one in made.items()
])  # fmt: skip
best = costs.loc[costs.model.map(lambda name: found[name]["valid"]).idxmax()]
quickest = costs.loc[costs.user_ms.idxmin()]
exhibits.show(
    result_charts.what_it_costs(costs),
    caption=f"“{best.label}” is best by MRR@20 on the valid users and answers in {best.user_ms:.2g} ms, “{quickest.label}” in "
    f"{quickest.user_ms:.2g} ms (medians on this machine). Without a hollow mark, a new product waits for the next training.",
    alt="Three panels with a row for each variant: MRR@20, milliseconds, and megabytes.",
)

# %% [markdown]
# The same in numbers:

# %%
heads = {
    "label": "variant", "train_s": "train s", "user_ms": "ms per user", "product_ms": "ms per new product", "megabytes": "MB",
}  # fmt: skip
shown = costs[list(heads)].rename(columns=heads)
exhibits.table(
    shown.assign(**{heads[name]: [f"{x:.{digits}f}" if x == x else "–" for x in costs[name]]
                    for name, digits in (("train_s", 1), ("user_ms", 3), ("product_ms", 2), ("megabytes", 2))}),
    caption="What each costs: seconds of training on one thread, milliseconds for one user at a time, and what must be held.",
)  # fmt: skip

# %% [markdown]
# Does the approximate search pay on a catalogue of this size?

# %%
if "word2vec_graph" in made:
    exact, graph = (costs.user_ms[costs.model == name].item() for name in ("word2vec", "word2vec_graph"))
    exhibits.note(
        f"The approximate search finds {made['word2vec_graph'].recall:.1%} of the exact twenty nearest. With {len(products):,} "
        f"products it takes {graph:.2g} ms against {exact:.2g} ms, so it {'pays' if graph < 0.9 * exact else 'does not pay yet'}."
    )
else:
    exhibits.note(left_out["word2vec_graph"])

# %% [markdown]
# ## The verdict
#
# One sentence for each switch, from the corrected intervals above and nothing else.

# %%
verdicts = {name: gains.verdict(made[name], made[made[name].variant.base], found[name]) for name in switched}
exhibits.takeaways(list(verdicts.values()))

# %% [markdown]
# ## What could go wrong
#
# - **One budget is one point.** A variant that needs longer to learn looks worse here than it is. Raise `sg_visits` and
#   `ss_examples` before you give one up.
# - **Many comparisons.** With so many variants, one will be ahead by luck. The correction makes that rare and hides small
#   gains in return. Believe what repeats with another seed, and on another log.
# - **Searches that tell the target.** The query just before the target names what the user wants. It is left out here; a
#   shop that knows it in time should use it, and measure on targets after searches apart.
# - **New products that crowd out the others.** The mean of three directions, brought to length 1, is nearer to everything than
#   any of the three. Here it keeps their mean cosine. Look at the targets that are not new, too.
# - **Purchases of a kind.** Where every visit is a purchase, no session leads to one, and the switch says nothing.
#
# ## Exercises
#
# 1. With the weights $b$ of a view and of an add to cart both doubled, what changes in the user embedding?
#
# <details><summary>Solution</summary>
#
# Nothing: the weights are brought to a sum of 1, so only ratios count. That is why a view can stay at 1.
#
# ```python
# some = material.test[:50]
# one, twice = (baselines.nearest_to_user(*longer, 0.1, event_weights=b)(some) for b in ((1, 3, 5), (2, 6, 10)))
# print(np.abs(one - twice).max())
# assert np.allclose(one, twice, atol=1e-5)
# ```
#
# </details>
#
# 2. Why does the term for what was bought have no noise of its own? See what one step does to the loss of a pair that is
#    already near.
#
# <details><summary>Solution</summary>
#
# The noise of the other pairs holds the vectors apart already. A pair that is near has little left to learn, so the pull
# fades by itself.
#
# ```python
# close = [skipgram.update(v * scale, u * scale, 0, 1, [])[0] for scale in (1, 2, 4)]
# print(close)
# assert close[0] > close[1] > close[2]
# ```
#
# </details>
#
# 3. How much of the default's hit rate is products that the user had seen before? Does that differ for what goes to the cart?
#
# <details><summary>Solution</summary>
#
# ```python
# from shelfspace.measure import evaluation, ranking
#
# ranks = evaluation.evaluate(made["word2vec"].model, material.test).ranks
# hits, seen, cart = ranking.hit_rate(ranks, 20), material.test.seen(), material.test.target_event > 0
# shares = {name: hits[part & seen].sum() / max(1, hits[part].sum()) for name, part in (("all", cart | True), ("cart", cart))}
# print(shares)
# assert 0 <= shares["all"] <= 1
# ```
#
# </details>

# %% [markdown]
# ## What the page needs
#
# The figures of every variant go into next_steps.json.

# %%
figures = {name: found[name] | {"label": label[name], "base": one.variant.base, "chosen": one.chosen} for name, one in made.items()}
for row in costs.drop(columns=["label", "value"]).replace({np.nan: None}).to_dict("records"):
    figures[row.pop("model")] |= row
run_files.write_json(run / "next_steps.json", {
    "users": len(np.unique(table["user_id"].to_numpy())), "test": len(material.test),
    "passes": {"word2vec": settings.sg_epochs, "starspace": settings.ss_epochs}, "variants": figures, "left_out": left_out,
    "recovered": recovered, "recall": made["word2vec_graph"].recall if "word2vec_graph" in made else None, "verdicts": verdicts,
})  # fmt: skip

# %% [markdown]
# ## Takeaways

# %%
helps = [name for name in switched if found[name]["mrr@20"]["ci95"][0] > 0]
by_test = costs.loc[costs.value.idxmax()]
newest = max(placing, key=lambda name: found[name]["valid"] if found[name]["cold"]["value"] else 0)
exhibits.takeaways([
    f"{len(helps)} of {len(switched)} switches gain MRR@20 beyond chance at this budget"
    + f"; “{label[top]}”, which gains most on the valid users, brings {100 * found[top]['mrr@20']['gain']:+.1f} points on the test users.",
    *([f"Of products that nobody clicked, “{label[newest]}”, best on the valid users of those that can, finds {found[newest]['cold']['value']:.1%} in twenty tries, the "
       "default none."] if found[newest]["cold"]["value"] else []),
    f"Skip-gram with every switch off reaches an MRR@20 of {found['word2vec']['mrr@20']['value']:.1%} in {settings.sg_epochs} passes, "
    f"the vectors of chapter 2 {found['word2vec_before']['mrr@20']['value']:.1%} with all they had.",
    f"The valid users choose “{best.label}”: {best.value:.1%} on the test users, where the best has {by_test.value:.1%}. Its answers "
    f"take {best.user_ms:.2g} ms, those of the default {costs.user_ms[0]:.2g} ms.",
])  # fmt: skip
