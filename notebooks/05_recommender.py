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
# # 5. A neural recommender
#
# In this notebook you will
#
# - build the article's network: user embedding, dense layers, and a softmax over all products;
# - train it until the valid users stop gaining;
# - write twenty recommendations for every user.

# %% tags=["parameters"]
run_dir = "reports/default"  # folder that this run writes to
hidden = "128"  # units of each Dense layer, as "128" or "256, 128"
dropout = 0.3  # share of units left out at random while training
prefixes = 20  # also learn from so many of each user's last history visits; 0: from the target alone, as in the article
epochs = 20  # passes at most
batch = 1024  # examples per step
learning_rate = 0.004  # Adam's step size
patience = 2  # passes without a gain on the valid users before stopping
seed = 0  # of everything random

# %%
import numpy as np
import pandas as pd

from shelfspace import embeddings, metrics, plots, recommender, runs, sequences, users

plots.theme()
run = runs.run_folder(run_dir)
products = pd.read_parquet(run / "products.parquet")
product_ids = products.product_id.to_numpy().astype(str)
table = sequences.load(run / "sequences.parquet")
choice = runs.read_json(run / "decay.json")
vectors, known = embeddings.align(
    embeddings.load(run / "product_embeddings" / f"{choice['embedding']}.parquet"), product_ids
)

# %% [markdown]
# ## What it learns from
#
# An example is a user embedding and the product that came next. The article takes one example per user, with the most
# recent product as the target. A history holds more questions of the same kind: what came after its first five
# visits, after its first six, … With `prefixes`, the network learns from those too. The valid and test targets are
# in none of them.
#
# By hand, with a history of four products and a target, two prefixes give three examples:

# %%
by_hand = pd.DataFrame(
    {
        "what the model sees": ["phone A, phone B", "phone A, phone B, case A", "phone A, phone B, case A, desk"],
        "target": ["case A", "desk", "chair"],
        "kind": ["prefix", "prefix", "the user's target"],
    }
)
plots.table(
    by_hand, caption="Three examples from phone A, phone B, case A, desk and the target chair, with prefixes = 2."
)

# %%
train = sequences.examples(table, product_ids, "train", prefixes=prefixes)
valid = sequences.examples(table, product_ids, "valid")
settings = (choice["decay"], choice["decay_time"], known)
train_users, valid_users = (users.user_embeddings(part, vectors, *settings) for part in (train, valid))
plots.note(
    f"{len(train):,} examples train and {len(valid):,} validate; the input is the "
    f"{plots.label_of(choice['embedding'])} user embedding with d = {choice['decay']:g}."
)

# %% [markdown]
# ## The network
#
# $$\mathrm{scores} = W\,\mathrm{BatchNorm}(\mathrm{Dropout}(\mathrm{ReLU}(A\,u + a))) + b$$
#
# where $u$ is the user embedding, freed of its mean and scale, and a softmax over the $M$ products turns scores into
# probabilities. The loss is the cross-entropy of the product that came. The bias $b$ learns how popular each product
# is, the rest what follows from a taste.

# %%
recommender.deterministic(seed)
units = [int(size) for size in str(hidden).split(",")]
network = recommender.dense(train_users, len(product_ids), hidden=units, dropout=dropout)
layers = pd.DataFrame(
    [
        {"layer": type(layer).__name__, "output": str(tuple(layer.output.shape[1:])), "weights": layer.count_params()}
        for layer in network.layers
    ]
)
plots.table(
    layers,
    caption=f"The article's network with {network.count_params():,} weights, most of them in the softmax over "
    f"{len(product_ids):,} products.",
)

# %%
history = recommender.train(
    network, train_users, train.target, valid_users, valid.target, epochs=epochs, batch=batch, learning_rate=learning_rate,
    patience=patience,
)  # fmt: skip
with runs.atomic(run / "recommender.keras") as temporary:
    network.save(temporary)

# %%
curve = pd.DataFrame(history).rename(columns={"loss": "train", "valid_loss": "valid"})
curve.insert(0, "epoch", range(1, len(curve) + 1))
kept = curve.loc[curve["valid_mrr@20"].idxmax()]
plots.show(
    plots.learning_curve(curve),
    caption=f"The weights of epoch {kept.epoch:.0f} are kept, where MRR@20 of the valid users is highest "
    f"({kept['valid_mrr@20']:.1%}).",
    alt="Two panels: training and validation loss per epoch, and MRR@20 of the valid users per epoch.",
)

# %% [markdown]
# ## Twenty products for everybody
#
# What leaves the pipeline is a table: user, rank, product, score. Here it is written for every user, from all that
# came before the user's last target.

# %%
everybody = sequences.latest(table, product_ids)
model = recommender.recommend(network, vectors, *settings)
recommender.write_recommendations(model, everybody, product_ids, run / "recommendations.parquet")

# %%
labels = plots.product_labels(products)
example = valid[np.flatnonzero(valid.lengths <= 8)[:1]] if (valid.lengths <= 8).any() else valid[:1]
top, scores = metrics.top_k(model(example), 5)
seen = [labels[i] for i in example.items[example.start[0] : example.end[0]][-5:]]
shown = pd.DataFrame(
    {"saw (newest last)": pd.Series(seen), "recommended": pd.Series([labels[i] for i in top[0]])}
).fillna("")
plots.table(
    shown,
    caption=f"A valid user: the last {len(seen)} products seen, and the first five recommended. What came next was: "
    f"{labels[example.target[0]]}.",
)

# %% [markdown]
# ## What could go wrong
#
# - **Targets in the input.** If a target were part of its own history, the network would learn to repeat its input and
#   look brilliant. The examples keep them apart; `01_prepare` decides.
# - **Learning by heart.** The loss on the training users can always be pushed down. What counts is where the valid users
#   stop gaining.
# - **A network that has learned popularity.** The bias alone finds what is popular. If all customers get much the same
#   twenty products, that is all it has learned.
# - **Stale input.** The network knows the embeddings it was trained on. Train the embeddings anew, and it must be trained
#   anew as well.
# - **New products.** A product that was no target in training is never recommended by a softmax that learned a vector for
#   each.
#
# ## Exercises
#
# 1. Which share of the dense network's weights sits in its last layer, and how does it grow with the number of products?
#
# <details><summary>Solution</summary>
#
# The last layer has a weight for each pair of a unit and a product, and a bias for each product: it grows with the number
# of products, and the rest does not.
#
# ```python
# last = network.layers[-1].count_params()
# assert last == (units[-1] + 1) * len(product_ids)
# print(f"{last / network.count_params():.0%}")
# ```
#
# </details>
#
# 2. Does it change the recommendations whether you rank by scores or by the probabilities that a softmax makes of them?
#
# <details><summary>Solution</summary>
#
# No: the softmax keeps the order. It matters only for how sure the network claims to be.
#
# ```python
# some = recommender.recommend(network, vectors, *settings)(valid[:50])
# shares = np.exp(some - some.max(axis=1, keepdims=True))
# shares /= shares.sum(axis=1, keepdims=True)
# assert (metrics.ranks(some, valid.target[:50]) <= metrics.ranks(shares, valid.target[:50])).all()
# assert (np.argmax(some, axis=1) == np.argmax(shares, axis=1)).all()
# ```
#
# </details>
#
# 3. Is it more than a list of what is popular? Count the products that the dense network puts first for anybody.
#
# <details><summary>Solution</summary>
#
# ```python
# first_place, _ = metrics.top_k(recommender.recommend(network, vectors, *settings)(valid[:500]), 1)
# print(f"{len(np.unique(first_place))} products for {len(first_place)} users")
# assert len(np.unique(first_place)) > 1
# ```
#
# </details>

# %% [markdown]
# ## Takeaways

# %%
plots.takeaways([
    f"The network stopped after {len(curve)} epochs; epoch {kept.epoch:.0f} was best on the valid users.",
    f"Most of its {network.count_params():,} weights belong to the softmax: its cost grows with the number of "
    "products.",
    f"Recommendations for {len(everybody):,} users are in recommendations.parquet.",
])  # fmt: skip
