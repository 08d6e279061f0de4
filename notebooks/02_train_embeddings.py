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
# # 2. Train product embeddings
#
# In this notebook you will
#
# - see how skip-gram word2vec turns sequences into pairs of products, and learns from them;
# - see how StarSpace compares a product with the rest of its sequence;
# - train both on the same sequences, and check how many products they cover.

# %% tags=["parameters"]
run_dir = "reports/default"  # folder that this run writes to
dim = 50  # length of the product embeddings
w2v_window = 10  # word2vec: products before and after that are context
w2v_negatives = 10  # word2vec: noise products per pair
w2v_ns_exponent = 0.75  # word2vec: noise products are drawn by count to this power
w2v_subsample = 0.001  # word2vec: thin out products with a larger share of all visits; 0 keeps all
w2v_epochs = 0  # word2vec: passes over the sequences; 0: by the size of the log
w2v_learning_rate = 0.025  # word2vec: step size at the start
ss_similarity = "cosine"  # StarSpace; one of: cosine, dot
ss_loss = "hinge"  # StarSpace; one of: hinge, softmax
ss_margin = 0.2  # StarSpace: by how much the label must be nearer than a negative
ss_negatives = 50  # StarSpace: negatives per example
ss_window = 0  # StarSpace: products around the label that make up its bag; 0: the whole sequence
ss_epochs = 0  # StarSpace: passes over the sequences; 0: by the size of the log
ss_learning_rate = 0.05  # StarSpace: step size of Adagrad at the start
seed = 0  # of everything random

# %%
import time

import numpy as np
import pandas as pd

from shelfspace import embeddings, plots, runs, sequences, starspace, word2vec

plots.theme()
run = runs.run_folder(run_dir)
corpus = sequences.corpus(sequences.load(run / "sequences.parquet"))
products = pd.read_parquet(run / "products.parquet")

# %% [markdown]
# ## Skip-gram: predict the neighbours
#
# word2vec slides along a sequence. Each product $p$ should make the products $c$ near it likely, and $K$ products
# $n_k$ drawn at random unlikely (Mikolov et al. 2013, equation 4):
#
# $$\log \sigma(v_p \cdot u_c) + \sum_{k=1}^{K} \log \sigma(-v_p \cdot u_{n_k})$$
#
# where $\sigma(x) = 1 / (1 + e^{-x})$. Two products that have the same neighbours end up with similar vectors, also
# when nobody saw both: that is why two phones lie together although a customer buys only one of them.
#
# By hand: the history *phone A, phone B, phone A, case A*, and a window of one, give these pairs.

# %%
ada = ["phone A", "phone B", "phone A", "case A"]
pairs = [(ada[i], ada[j]) for i in range(4) for j in (i - 1, i + 1) if 0 <= j < 4]
plots.table(
    pd.DataFrame(pairs, columns=["product p", "context c"]),
    caption="A sequence of four products has six pairs under a window of one.",
)

# %% [markdown]
# The defaults for text do not suit shops: popular products are no stop words, and noise drawn by count to the power
# of 0.75 is rarely best (Caselles-Dupré et al., RecSys 2018). Window, negatives, exponent and subsampling are
# parameters of this notebook for that reason.

# %%
started = time.perf_counter()
by_word2vec = word2vec.train(
    corpus, dim=dim, window=w2v_window, negatives=w2v_negatives, ns_exponent=w2v_ns_exponent, subsample=w2v_subsample,
    epochs=w2v_epochs, learning_rate=w2v_learning_rate, seed=seed,
)  # fmt: skip
seconds = {"word2vec": time.perf_counter() - started}
by_word2vec.save(run / "product_embeddings" / "word2vec.parquet")

# %% [markdown]
# ## StarSpace: predict one product from the rest
#
# StarSpace takes one product $b$ out of a sequence, adds up the others to a bag $a$, and asks that $b$ be more similar
# to the bag than each of $K$ random products $b_k$, by a margin $\mu$ (Wu et al. 2017, equation 1):
#
# $$\sum_{k=1}^{K} \max\big(0,\ \mu - \mathrm{sim}(a, b) + \mathrm{sim}(a, b_k)\big)$$
#
# The order within the sequence plays no part, and both sides share one table. What it learns is exactly what is
# needed later: that the sum of what a user saw be near to what the user looks at next.
#
# By hand: with cosines of 0.7 to the label and of 0.6, 0.4 and 0.65 to three negatives, and a margin of 0.2, two of
# the negatives are too near.

# %%
cosines = np.array([0.6, 0.4, 0.65])
violation = np.maximum(0, 0.2 - 0.7 + cosines)
plots.table(
    pd.DataFrame({"cosine to the negative": cosines, "term of the loss": violation}),
    caption=f"The loss of this example is {violation.sum():.2f}; the second negative is far enough away and adds "
    "nothing.",
)

# %%
started = time.perf_counter()
by_starspace = starspace.train(
    corpus, dim=dim, similarity=ss_similarity, loss=ss_loss, margin=ss_margin, negatives=ss_negatives, window=ss_window,
    epochs=ss_epochs, learning_rate=ss_learning_rate, seed=seed,
)  # fmt: skip
seconds["starspace"] = time.perf_counter() - started
by_starspace.save(run / "product_embeddings" / "starspace.parquet")

# %% [markdown]
# ## What training did
#
# A loss that has stopped falling has learned what it can at this step size; the two losses are different quantities,
# so only the shapes can be compared.

# %%
losses = {"word2vec": list(by_word2vec.losses), "starspace": list(by_starspace.losses)}
falls = {name: 1 - values[-1] / values[0] for name, values in losses.items()}
plots.show(
    plots.training_loss(losses),
    caption=f"From the first to the last pass the loss fell by {falls['word2vec']:.0%} (word2vec) and "
    f"{falls['starspace']:.0%} (StarSpace), seed {seed}.",
    alt="Two panels with the training loss per epoch, one for word2vec and one for StarSpace, both falling.",
)

# %% [markdown]
# ## Coverage
#
# A product that nobody clicked in the training histories has no embedding. Rare products are the ones to lose.

# %%
product_ids = products.product_id.to_numpy().astype(str)
coverage = {
    name: embeddings.align(made, product_ids)[1]
    for name, made in (("word2vec", by_word2vec), ("starspace", by_starspace))
}
by_count = pd.DataFrame({"count": products["count"], "known": coverage["word2vec"]})
plots.show(
    plots.coverage_by_count(by_count),
    caption=f"{coverage['word2vec'].mean():.1%} of the {len(products):,} products have an embedding; those without "
    "one have few events.",
    alt="Dots with intervals: the share of products with an embedding, by the number of events of the product.",
)

# %% [markdown]
# ## What could go wrong
#
# - **Settings made for text.** A window, noise or subsampling that suits sentences may hide what a shop's sequences say.
#   Change one at a time, and judge by the valid users.
# - **Too few passes.** A loss that still falls steeply has not finished; one on which the valid users get worse has
#   learned the training sequences by heart.
# - **Collapse.** When all cosines are near 1, the vectors point the same way: the step size is too large, or there are too
#   few negatives.
# - **Comparing losses.** Two trainers measure different quantities. Compare them by what they find, not by their loss.
# - **Threads.** More than one thread makes gensim's result depend on the timing; here one is used, for the same bytes.
#
# ## Exercises
#
# 1. How many pairs does Ada's sequence of four products give under a window of two?
#
# <details><summary>Solution</summary>
#
# Each of the six pairs at a distance of one, and two more in each direction at a distance of two.
#
# ```python
# wider = [(ada[i], ada[j]) for i in range(4) for j in range(4) if 0 < abs(i - j) <= 2]
# print(len(wider))
# assert len(wider) == 10
# ```
#
# </details>
#
# 2. A label has a cosine of 0.7 to its bag, and three negatives have 0.6, 0.4 and 0.65. For which margins is the hinge
#    loss 0, and nothing is learned from the example?
#
# <details><summary>Solution</summary>
#
# Up to the gap between the label and the nearest negative.
#
# ```python
# gap = 0.7 - np.array([0.6, 0.4, 0.65]).max()
# loss_at = {margin: np.maximum(0, margin - 0.7 + np.array([0.6, 0.4, 0.65])).sum() for margin in (0.04, 0.06, 0.2)}
# print(gap, loss_at)
# assert loss_at[0.04] == 0 < loss_at[0.06] < loss_at[0.2]
# ```
#
# </details>
#
# 3. Train word2vec twice with the same seed, and once with another. What stays the same, and what only nearly?
#
# <details><summary>Solution</summary>
#
# The same seed gives the same bytes. Another seed turns the whole space: single numbers mean nothing, only angles do, and
# those agree more the longer it trains.
#
# ```python
# small = {name: word2vec.train(corpus, dim=16, epochs=2, seed=s).vectors for name, s in (("a", 0), ("again", 0), ("b", 1))}
# assert np.array_equal(small["a"], small["again"]) and not np.allclose(small["a"], small["b"])
# ```
#
# </details>

# %% [markdown]
# ## Takeaways

# %%
cost = pd.DataFrame({
    "trainer": list(seconds), "seconds": list(seconds.values()), "passes": [len(losses[name]) for name in seconds],
    "covered": [f"{coverage[name].mean():.1%}" for name in seconds],
})  # fmt: skip
plots.table(cost, caption=f"Both trainers on {len(corpus):,} sequences with {len(corpus.items):,} visits, d = {dim}.")
plots.takeaways([
    f"Both embeddings cover {coverage['word2vec'].mean():.1%} of the products; the article asked for 98 %.",
    f"word2vec took {seconds['word2vec']:.0f} s for {cost.passes[0]} passes and StarSpace {seconds['starspace']:.0f} "
    f"s for {cost.passes[1]}, on this machine.",
    "word2vec learns what stands next to what; StarSpace learns what belongs to the whole of a sequence.",
])  # fmt: skip
