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
#     - shop/truth_complements.parquet
#     writes:
#     - tsne.parquet
#     - embeddings.json
# ---

# %% [markdown]
# # 3. Validate the embeddings
#
# In this notebook you will
#
# - look at the nearest products of some well-known ones;
# - put a number to it: how often is a phone nearer to a phone than to a chair?
# - see all products on a map, and learn what not to read from it.

# %% tags=["parameters"]
run_dir = "reports/default"  # folder that this run writes to
tsne_products = 3000  # draw at most so many products, the most visited ones; from 10 to 100000
perplexity = 30.0  # t-SNE: about how many neighbours each product keeps; from 1 to 1000
seed = 0  # of everything random; from 0 to 4294967295

# %% [markdown] tags=["aside"]
# Nothing is trained here: the chapter reads the vectors of the one before and asks what they know.

# %%
import numpy as np
import pandas as pd

from shelfspace.files import run_files
from shelfspace.page import charts, exhibits, palette
from shelfspace.sequences import arrays
from shelfspace.vectors import embeddings, validation

palette.theme()
run = run_files.run_folder(run_dir)

# %% [markdown] tags=["aside"]
# Both embeddings are brought into the order of the product table; a product without one has zeros, and is marked.

# %%
products = pd.read_parquet(run / "products.parquet")
product_ids = products.product_id.to_numpy().astype(str)
labels = charts.product_labels(products)
files = {name: run / "product_embeddings" / f"{name}.parquet" for name in ("word2vec", "starspace")}
aligned = {name: embeddings.align(embeddings.load(file), product_ids) for name, file in files.items()}

# %% [markdown]
# ## Cosine similarity
#
# Two vectors are compared by the angle between them, $\cos(a, b) = a \cdot b / (\lVert a \rVert \lVert b
# \rVert)$: 1 for the same direction, 0 for a right angle. By hand, in the plane:

# %%
small = np.array([[3, 1], [2, 1], [-1, 3]], dtype=np.float32)
unit = embeddings.normalise(small)
by_hand = pd.DataFrame((unit @ unit.T).round(2), columns=["phone A", "phone B", "chair"], index=["phone A", "phone B", "chair"])

# %% [markdown] tags=["aside"]
# Vectors are first brought to length 1. Then the cosine is their dot product, and one matrix product gives all pairs:

# %%
told = f"{by_hand.loc['phone A', 'phone B']:.2f} with phone B (2, 1), and {by_hand.loc['phone A', 'chair']:.2f} with the chair (-1, 3)"
exhibits.note(f"Phone A (3, 1) has a cosine of {told}.")

# %% [markdown]
# ## Nearest products
#
# Are the neighbours what a salesperson would name? These are the nearest to the most visited product of each of the largest categories.

# %%
known = aligned["word2vec"][1] & aligned["starspace"][1]
group = products["category"] if "category" in products else pd.Series("", index=products.index)
visited = products[known].sort_values("count", ascending=False, kind="stable")
by_category = group[known].value_counts().index[:3] if "category" in products else []
chosen = [visited.index[group[visited.index] == name][0] for name in by_category] or list(visited.index[:3])

# %% [markdown] tags=["aside"]
# The products themselves are left out of their lists, and so are products without an embedding.

# %%
near = {"product": [labels[i] for i in chosen]}
for name, (vectors, _) in aligned.items():
    index, cosine = embeddings.nearest(vectors, vectors[chosen], k=2, exclude=np.array(chosen))
    cells = [[f"{labels[i]} ({c:.2f})" for i, c in zip(*row) if c >= -1.5] for row in zip(index, cosine)]  # no vector: -2
    near[f"nearest by {palette.label_of(name)}"] = ["; ".join(row) for row in cells]
exhibits.table(pd.DataFrame(near), caption="The two nearest products in each space, with their cosine.")

# %% [markdown]
# ## Nearer a phone than a chair?
#
# Impressions do not compare models, so we count. A **triplet** is an anchor, a product of the same group and one of
# another. The embedding is right when the anchor is nearer to its own group; the share of right triplets is an AUC: 1
# is perfect, and 0.5 is chance.

# %% [markdown] tags=["aside"]
# Where the log has categories, they are the groups. Without them, the anchor is a
# test user's last product, *same* is the product that the user looked at next, and *other* is any product: the
# targets were hidden from training, so this is a fair question too.

# %%
if "category" in products and products.category.nunique() > 1:
    question = "a product of the same category is nearer than one of another"
    triplets = validation.category_triplets(products.category.to_numpy(dtype=object), known, seed=seed)
else:
    question = "the product that a test user looked at next is nearer to the last one than a random product"
    test = arrays.examples(arrays.load(run / "sequences.parquet"), product_ids, "test")
    triplets = validation.next_product_triplets(test, known, seed=seed)

# %% [markdown] tags=["aside"]
# Two products of one anchor are no independent evidence, so whole anchors are drawn for the intervals.

# %%
checks = validation.triplet_checks(aligned, *triplets, seed=seed)

# %% [markdown] tags=["aside"]
# Both embeddings answer the same triplets, so their AUCs can be compared.

# %%
if checks:
    told = "; ".join(f"{palette.label_of(n)} {c.auc:.3f} ({c.ci95[0]:.3f} to {c.ci95[1]:.3f})" for n, c in checks.items())
    exhibits.note(f"How often {question}: {told}, with 95 % intervals over anchors.")
else:
    exhibits.note("This log is too small for a single triplet, so the question is left out.")

# %% [markdown]
# A high AUC says that training worked, not that recommendations are good: that turns on the fine order among phones. Where
# the two hills overlap, single neighbours cannot be trusted.

# %%
best = max(checks, key=lambda name: checks[name].auc, default=None)
if best:
    exhibits.show(
        charts.triplet_margins(checks[best].same, checks[best].other),
        caption=f"{palette.label_of(best)}: cosines within the group lie at {np.median(checks[best].same):.2f} in the "
        f"middle, those to others at {np.median(checks[best].other):.2f}.",
        alt="Two overlapping distributions of cosine similarity: products of the same group, and of other groups.",
    )

# %% [markdown]
# ## A map of the products
#
# t-SNE lays the products out on a plane so that near neighbours stay near
# ([van der Maaten & Hinton 2008](https://www.jmlr.org/papers/v9/vandermaaten08a.html)).
# **Do not read** the size of an island or the distance between two: another seed or perplexity moves the islands about, but what stands
# together on them stays.

# %%
drawn = np.sort(visited.index[:tsne_products].to_numpy())
spots = {name: validation.tsne(vectors[drawn], perplexity=perplexity, seed=seed) for name, (vectors, _) in aligned.items()}

# %% [markdown] tags=["aside"]
# Colours come from the categories, which the training never saw; without categories, from how often a product was met.

# %%
if "category" in products:
    colours = group.iloc[drawn].to_numpy()
else:
    place = products["count"].iloc[drawn].rank(method="first")
    colours = pd.qcut(place, 4, labels=["fewest events", "few", "many", "most events"]).astype(str).to_numpy()

# %% [markdown] tags=["aside"]
# Islands of one colour are what the embedding found out by itself. On the page, the map itself can be wandered over.

# %% tags=["aside"]
for name, xy in spots.items():
    exhibits.show(
        charts.tsne_map(xy, colours, title=palette.label_of(name)),
        caption=f"The {len(drawn):,} most visited products in the {palette.label_of(name)} space (t-SNE, perplexity "
        f"{perplexity:g}, seed {seed}).",
        alt=f"Scatter plot of products, coloured by {'category' if 'category' in products else 'number of events'}; "
        "products of one colour form islands where the embedding has learned the groups.",
    )

# %% [markdown] tags=["aside"]
# The page's map of the products is drawn from these places.

# %%
places = pd.DataFrame(
    {"product_id": product_ids[drawn]}
    | {f"{n}_{axis}": xy[:, i].astype("float32") for n, xy in spots.items() for i, axis in enumerate("xy")}
)
with run_files.atomic(run / "tsne.parquet") as temporary:
    places.to_parquet(temporary, index=False)
exhibits.toy("near", "In the report, this map can be wandered over, and any product asked for its nearest ones.")

# %% [markdown]
# ## The truth, where it is known
#
# The simulated shop knows which cases fit which phone; nobody told the embeddings. Is a product's own complement nearer than another
# product of the complement's category?

# %%
truth = run / "shop" / "truth_complements.parquet"
if truth.exists():
    rows = validation.complement_triplets(pd.read_parquet(truth), products, known, seed=seed)
    complement = validation.triplet_checks(aligned, *rows, seed=seed)

# %% [markdown] tags=["aside"]
# The other product is of the same category as the complement, so to know that cases go with phones is not enough.

# %%
if truth.exists():
    told = "; ".join(f"{palette.label_of(n)} {c.auc:.3f} ({c.ci95[0]:.3f} to {c.ci95[1]:.3f})" for n, c in complement.items())
    exhibits.note(f"As an AUC, with 95 % intervals: {told}.")
else:
    exhibits.note("This log comes without a truth to compare with; the simulated shop (`data=shop`) has one.")

# %% [markdown] tags=["folded"]
# ## What could go wrong
#
# - **Too easy a question.** Products of another category are far away in any sensible embedding.
# - **Rare products and hubs.** A product with a handful of visits stands where few steps left it; a few are near to very many.
# - **Judging by one's own taste.** Everybody finds nice examples. Write down the ten products before you look.

# %% [markdown] tags=["folded"]
# ## Exercises
#
# 1. Is the AUC of the triplets truly 0.5 for an embedding that has learned nothing? Deal the vectors out to the
#    products at random and measure.
#
# <details><summary>Solution</summary>
#
# It is, up to chance.
#
# ```python
# dealt = np.random.default_rng(seed).permutation(aligned["word2vec"][0])
# chance = validation.triplet_check(dealt, *triplets, seed=seed)
# assert abs(chance.auc - 0.5) < 0.1 and chance.auc < checks["word2vec"].auc
# ```
#
# </details>
#
# 2. Vectors can be added. What is near the middle between the first two products of the list of neighbours above?
#
# <details><summary>Solution</summary>
#
# What is near to both, and so may be wanted by a customer who looked at both. This is all there is
# to a user embedding, as the next chapter shows.
#
# ```python
# vectors = aligned["word2vec"][0]
# middle = vectors[chosen[:2]].mean(axis=0)
# index, cosine = embeddings.nearest(vectors, middle, k=6)
# assert (np.diff(cosine[0]) <= 0).all()
# ```
#
# </details>
#
# 3. Which products are hubs? Count for each product in how many lists of the ten nearest it stands, in both spaces.
#
# <details><summary>Solution</summary>
#
# If all products were alike, each would stand in ten lists; a hub stands in several times as many.
#
# ```python
# for name, (vectors, there) in aligned.items():
#     items = np.flatnonzero(there)
#     index, _ = embeddings.nearest(vectors, vectors[items], k=10, exclude=items)
#     times = np.bincount(index.ravel(), minlength=len(vectors))
#     assert times.sum() == 10 * len(items) and times.max() > 10
# ```
#
# </details>

# %% [markdown] tags=["aside"]
# How well each embedding did goes into embeddings.json.

# %%
found = {
    name: {
        "coverage": float(known_there.mean()),
        "triplet_auc": checks[name].auc if checks else None,
        "triplet_ci95": list(checks[name].ci95) if checks else None,
        "triplet_question": question,
    }
    for name, (_, known_there) in aligned.items()
}
run_files.write_json(run / "embeddings.json", found)

# %% [markdown]
# ## Takeaways

# %%
by_auc = sorted(checks.items(), key=lambda item: -item[1].auc)
right = " and ".join(f"{palette.label_of(name)} is right in {check.auc:.1%}" for name, check in by_auc)
exhibits.takeaways([
    *([f"{right} of the triplets: {question}."] if checks else []),
    "Neighbours are the quickest check of all: look at them whenever a log or a setting changes.",
])  # fmt: skip
