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
# - see how StarSpace compares a product with the rest of its sequence, with one update computed by hand;
# - train both on the same sequences, and see what each is better at and what each costs;
# - let features place products that nobody clicked, and the words of a search query.

# %% tags=["parameters"]
run_dir = "reports/default"  # folder that this run writes to
dim = 50  # length of the product embeddings; from 1 to 4096
w2v_trainer = "shelfspace"  # who trains word2vec: our own compiled trainer, or gensim, as good and slower; one of: shelfspace, gensim
w2v_window = 5  # word2vec: products before and after that are context; from 1 to 1000
w2v_negatives = 20  # word2vec: noise products per pair; from 1 to 1000
w2v_ns_exponent = 0.5  # word2vec: noise products are drawn by count to this power; from -2 to 2
w2v_subsample = 0.0  # word2vec: thin out products with a larger share of all visits; 0 keeps all; from 0 to 1
w2v_epochs = 0  # word2vec: passes over the sequences; 0: by the size of the log; from 0 to 10000
w2v_learning_rate = 0.1  # word2vec: step size at the start; above 0 and at most 1
ss_similarity = "cosine"  # StarSpace; one of: cosine, dot
ss_loss = "hinge"  # StarSpace; one of: hinge, softmax
ss_margin = 0.2  # StarSpace, hinge: by how much the label must be nearer than a negative; from 0 to 100
ss_temperature = 0.1  # StarSpace, softmax: what similarities are divided by; above 0 and at most 100
ss_negatives = 50  # StarSpace: negatives per batch of ten examples; from 1 to 10000
ss_window = 0  # StarSpace: products around the label that make up its bag; 0: the whole sequence; from 0 to 1000
ss_epochs = 0  # StarSpace: passes over the sequences; 0: by the size of the log; from 0 to 10000
ss_learning_rate = 0.05  # StarSpace: step size of Adagrad at the start; above 0 and at most 10
ss_patience = 0  # StarSpace: stop after so many passes without a better hit rate on valid users; 0: never; from 0 to 10000
compare_users = 1000  # valid users on whom the two are compared; from 1 to 10000000
start = ""  # a run of the day before: from its vectors our trainers set out, and onto them the result is turned; empty: from chance
feature_epochs = 10  # StarSpace with features: passes over the sequences; 0 leaves that part out; from 0 to 10000
seed = 0  # of everything random; from 0 to 4294967295

# %% [markdown]
# Only the sequences and the product table of the chapter before are needed.

# %% tags=["setup"]
from functools import partial

import numpy as np
import pandas as pd

from shelfspace.files import run_files
from shelfspace.measure import evaluation, intervals, ranking
from shelfspace.models import baselines, users
from shelfspace.page import charts, exhibits, palette, result_charts
from shelfspace.sequences import arrays
from shelfspace.vectors import embeddings, features, skipgram, starspace

palette.theme()

# %% [markdown]
# The rows of all tables of vectors follow the product table, which is sorted by product.

# %% tags=["setup"]
run = run_files.run_folder(run_dir)
products = pd.read_parquet(run / "products.parquet")
product_ids = products.product_id.to_numpy().astype(str)

# %% [markdown]
# The *corpus* is what trains: all histories, as one array of products and where each sequence begins. The valid users' targets say
# how good the vectors are. The table itself is let go, as that of a large log takes gigabytes. A training that starts from chance
# ends in a frame of its own, whatever the products mean; with `start`, today's vectors can be laid beside those of the day before.

# %% tags=["setup"]
table = arrays.load(run / "sequences.parquet")
corpus = arrays.corpus(table)
valid = arrays.examples(table, product_ids, "valid")
del table
arrays.release()
files = {name: f"product_embeddings/{name}.parquet" for name in ("word2vec", "starspace")}
earlier = {name: embeddings.load(run_files.run_folder(start) / file) if start else None for name, file in files.items()}
seconds = {}

# %% [markdown]
# ## What they learn from
#
# The embeddings learn from the histories and not from the train users' targets, from which the counts and the networks of
# later notebooks do learn. A network that is to find a target, given vectors that had already seen it, could come to trust
# them more than it may for the valid and test users, whose targets no vector has seen. Both ways were tried: on the valid
# users, neither was better for all models.
#
# ## Skip-gram: predict the neighbours
#
# word2vec slides along a sequence. Each product $p$ should make the products $c$ near it likely, and $K$ products
# $n_k$ drawn at random unlikely (Mikolov et al. 2013, equation 4):
#
# $$\log \sigma(v_p \cdot u_c) + \sum_{k=1}^{K} \log \sigma(-v_p \cdot u_{n_k})$$
#
# where $\sigma(x) = 1 / (1 + e^{-x})$. Each product has two vectors: $v$ where it stands in the middle, $u$ where it is a neighbour.
# With one vector for both, a product would be pushed to be its own neighbour, which it seldom is. $v$ is the embedding; $u$ is left
# behind when the training is over. Two products that have the same neighbours end up with similar vectors, also
# when nobody saw both: that is why two phones lie together although a customer buys only one of them.
#
# By hand: the history *phone A, phone B, phone A, case A*, and a window of one, give these pairs.

# %%
ada = ["phone A", "phone B", "phone A", "case A"]
pairs = [(ada[i], ada[j]) for i in range(4) for j in (i - 1, i + 1) if 0 <= j < 4]
exhibits.table(
    pd.DataFrame(pairs, columns=["product p", "context c"]),
    caption="A sequence of four products has six pairs under a window of one.",
)

# %% [markdown]
# The defaults for text do not suit shops: popular products are no stop words, and noise drawn by count to the power
# of 0.75 is rarely best (Caselles-Dupré et al., RecSys 2018). Window, negatives, exponent and subsampling are
# parameters of this notebook for that reason; their defaults were chosen by a search on valid users, with as many
# tries as StarSpace had.

# %% tags=["word2vec"]
w2v_settings = {
    "window": w2v_window, "negatives": w2v_negatives, "ns_exponent": w2v_ns_exponent, "subsample": w2v_subsample,
    "epochs": w2v_epochs, "learning_rate": w2v_learning_rate,
}  # fmt: skip

# %% [markdown]
# The trainer is a small one of our own; `w2v_trainer="gensim"` takes gensim's, which finds vectors as good in several times the
# processor time.

# %% tags=["word2vec"]
if w2v_trainer == "gensim":
    from shelfspace.vectors.word2vec import train as trainer
else:
    trainer = partial(skipgram.train, start=earlier["word2vec"])

# %% [markdown]
# `run_files.once` trains, unless a scheduler had a task of its own do so in this run; then the file is there.

# %% tags=["word2vec"]
seconds["word2vec"] = run_files.once(
    run, files["word2vec"],
    lambda path: embeddings.turned(trainer(corpus, dim=dim, seed=seed, **w2v_settings), earlier["word2vec"]).save(path),
)  # fmt: skip

# %% [markdown]
# ## StarSpace: predict one product from the rest
#
# StarSpace takes one product $b$ out of a sequence, adds up the others to a bag $a$, and asks that $b$ be more similar
# to the bag than each of $K$ random products $b_k$, by a margin $\mu$ (Wu et al. 2017, equation 1):
#
# $$\sum_{k=1}^{K} \max\big(0,\ \mu - \mathrm{sim}(a, b) + \mathrm{sim}(a, b_k)\big)$$
#
# The order within the sequence plays no part, and both sides share one table. It learns what is asked of it later: that the sum of
# what a user saw be near to another product of the user's. Whether that makes it better at it is measured below.
#
# By hand, with five products in the plane: the bag is *phone A* and *case A*, the label *phone B*, and the negatives
# are *chair* and *lamp*.

# %%
names = ["phone A", "case A", "phone B", "chair", "lamp"]
before = np.array([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0], [0.8, -0.6], [-1.0, 0.0]])
bag, label, noise = [0, 1], 2, [3, 4]
a = before[bag].sum(axis=0) / np.linalg.norm(before[bag].sum(axis=0))

# %% [markdown]
# The cosine of the bag to each product says which of the negatives are nearer to it than the label, or less than the margin farther:

# %%
cosines = before @ a
terms = np.maximum(0, 0.5 - cosines[label] + cosines[noise])

# %% [markdown]
# Where a term is above 0, the negative is too near:

# %%
exhibits.table(
    pd.DataFrame({"negative": ["chair", "lamp"], "cosine to the bag": cosines[noise], "term of the loss": terms}),
    caption=f"The bag has a cosine of {cosines[label]:.3f} to the label, phone B. With a margin of 0.5, "
    f"{(terms > 0).sum()} of the 2 negatives are too near.",
)

# %% [markdown]
# Only negatives that are too near teach. With $\bar n$ their mean, every product of the bag moves along
# $b - \bar n$; the label moves towards the bag, and each of the negatives away from it. Adagrad (Duchi et al. 2011) gives each row a
# step size of its own: what moved often takes smaller steps, so that popular products settle while rare ones still learn. It divides
# a step by the root of the row's mean square so far, so a first step has about the length $\eta \sqrt d$, $\eta$ being the learning
# rate.

# %%
gradient = before[noise][terms > 0].mean(axis=0) - before[label]
by_hand = before.copy()
by_hand[bag] -= 0.1 * gradient / np.sqrt((gradient**2).mean())
by_hand[label] += 0.1 * a / np.sqrt((a**2).mean())
by_hand[[n for n, term in zip(noise, terms) if term > 0]] -= 0.1 * a / np.sqrt((a**2).mean()) / (terms > 0).sum()

# %% [markdown]
# The trainer is asked for the same update.

# %%
loss, by_module = starspace.update(before, bag, label, noise, margin=0.5, learning_rate=0.1)

# %% [markdown]
# It comes to the same vectors:

# %%
moved = pd.DataFrame({
    "product": names, "before": [f"({x:.2f}, {y:.2f})" for x, y in before],
    "after, by hand": [f"({x:.3f}, {y:.3f})" for x, y in by_hand],
    "after, by the trainer": [f"({x:.3f}, {y:.3f})" for x, y in by_module],
})  # fmt: skip
exhibits.table(
    moved,
    caption=f"One update at a learning rate of 0.1. The loss is {terms.mean():.4f} by hand and {loss:.4f} by the "
    "trainer (the mean over the negatives); the vectors differ by at most "
    f"{np.abs(by_hand - by_module).max():.0e}.",
)

# %% [markdown]
# The real sequences now. After each pass some valid users judge: how often is the product they looked at next among
# the twenty nearest to the mean of their history?

# %% tags=["starspace"]
judges = valid.sample(compare_users, seed)
few = judges[: min(len(judges), 300)]
ss_settings = {
    "similarity": ss_similarity, "loss": ss_loss, "margin": ss_margin, "temperature": ss_temperature,
    "negatives": ss_negatives, "window": ss_window, "epochs": ss_epochs, "learning_rate": ss_learning_rate,
}  # fmt: skip

# %% [markdown]
# With `ss_patience`, the training stops when these users stop gaining; by default it makes all its passes, as most logs want them.

# %% tags=["starspace"]
seconds["starspace"] = run_files.once(run, files["starspace"], lambda path: embeddings.turned(starspace.train(
    corpus, dim=dim, seed=seed, patience=ss_patience, start=earlier["starspace"], **ss_settings,
    validate=lambda made: ranking.hit_rate(
        evaluation.evaluate(baselines.nearest_to_user(*embeddings.align(made, product_ids), decay=0.0), few).ranks, 20
    ).mean(),
), earlier["starspace"]).save(path))  # fmt: skip

# %% [markdown]
# ## What training did
#
# A loss that has stopped falling has learned what it can at this step size; the two losses are different quantities,
# so only the shapes can be compared.

# %%
trained = {name: embeddings.load(run / file) for name, file in files.items()}
losses = {name: list(made.losses) for name, made in trained.items()}
changed = {name: values[-1] / values[0] - 1 for name, values in losses.items()}
scores = trained["starspace"].scores

# %% [markdown]
# For StarSpace the hit rate on the valid users, pass by pass, says more than its loss.

# %%
exhibits.show(
    charts.training_loss(losses),
    caption=f"From the first to the last pass the loss changed by {changed['word2vec']:+.0%} (word2vec) and "
    f"{changed['starspace']:+.0%} (StarSpace), seed {seed}. StarSpace's hit rate on {len(few):,} valid users was "
    f"{scores[0]:.1%} after the first pass, {max(scores):.1%} at best (pass {int(np.argmax(scores)) + 1}) and "
    f"{scores[-1]:.1%} at the end.",
    alt="Two panels with the training loss per epoch, one for word2vec and one for StarSpace.",
)

# %% [markdown]
# ## What each is better at
#
# Both now have the same task: the products nearest to a valid user's history, and the rank of the product that came
# next. The comparison would mislead under a single similarity or a single kind of history, so it is made under the
# cosine and the dot product, with the plain mean of the history, with a decay, and with the last product alone.

# %%
aligned = {name: embeddings.align(made, product_ids) for name, made in trained.items()}
histories = {"mean": 0.0, "decayed by rank": 0.7, "last product": 20.0}

# %% [markdown]
# Both trainers, three kinds of history and two similarities make twelve ways to ask, all for the same users.

# %%
ranks = {}
for name, (vectors, known) in aligned.items():
    for history, decay in histories.items():
        by_cosine = baselines.nearest_to_user(vectors, known, decay, "rank")
        ranks[name, history, "cosine"] = evaluation.evaluate(by_cosine, judges).ranks
        ranks[name, history, "dot"] = evaluation.evaluate(
            lambda part: users.user_embeddings(part, vectors, decay, "rank", known) @ vectors.T, judges
        ).ranks

# %% [markdown]
# Every target counts in *all*; those that were new to the user and those of popular and less popular products are also looked at by
# themselves.

# %%
counts = products["count"].to_numpy()[judges.target]
parts = {
    "all": np.ones(len(judges), bool), "not seen before": ~judges.seen(), "popular": counts > np.median(counts),
    "less popular": counts <= np.median(counts),
}  # fmt: skip

# %% [markdown]
# A hit is a target among the twenty nearest products. Its share is counted for each way to ask, and each part.

# %%
rows = []
hits = {key: ranking.hit_rate(rank, 20) for key, rank in ranks.items()}
for (name, history, similarity), hit in hits.items():
    cells = {
        part: f"{100 * hit[of].mean():.1f} ± {196 * hit[of].std() / of.sum() ** 0.5:.1f}" if of.any() else "–" for part, of in parts.items()
    }
    rows.append({"trainer": palette.label_of(name), "history": history, "similarity": similarity} | cells)

# %% [markdown]
# Read the table down a column: which trainer, history and similarity does each part of the targets want?

# %%
compared = pd.DataFrame(rows).assign(hr=[hit.mean() for hit in hits.values()])
exhibits.table(
    compared.sort_values("hr", ascending=False, kind="stable").drop(columns="hr"),
    caption=f"HR@20 in % (± 1.96 standard errors) of {len(judges):,} valid users, the best first: all targets, those "
    "new to the user, and those of the more and the less popular products.",
)

# %% [markdown]
# Is the better of the two better by more than chance? Each is taken as it does best here, and both are asked about the same users, so
# that the difference of each user counts.

# %%
best = {name: max((key for key in hits if key[0] == name), key=lambda key: hits[key].mean()) for name in trained}
gain = hits[best["starspace"]] - hits[best["word2vec"]]
low, high = intervals.interval(gain, judges.user_ids, seed)
verdict = "not shown to differ" if low <= 0 <= high else "StarSpace ahead" if low > 0 else "word2vec ahead"

# %% [markdown]
# An interval that holds 0 shows no difference, which is not to say that there is none.

# %%
exhibits.note(
    f"Each at its best on these users, the difference in HR@20, StarSpace less word2vec, is {gain.mean():+.1%} "
    f"({low:+.1%} to {high:+.1%}): {verdict}."
)

# %% [markdown]
# ## What each costs
#
# The settings first. Nought stands for "by the size of the log" in the passes, and for "the whole sequence" in
# StarSpace's window.

# %%
chosen = {"word2vec": w2v_settings, "StarSpace": ss_settings}
every = list(dict.fromkeys([*w2v_settings, *ss_settings]))
columns = {name: [str(has.get(setting, "–")) for setting in every] for name, has in chosen.items()}
exhibits.table(
    pd.DataFrame({"setting": every} | columns),
    caption=f"The settings, both with d = {dim} and seed {seed}.",
)

# %% [markdown]
# And what they bought with it: products that have a vector, and visits learned from in a second.

# %%
coverage = {name: known for name, (_, known) in aligned.items()}
passes = {name: len(made.losses) for name, made in trained.items()}

# %% [markdown]
# StarSpace's seconds hold its checks on valid users, too.

# %%
cost = pd.DataFrame({
    "trainer": [palette.label_of(name) for name in trained], "seconds": list(seconds.values()),
    "passes": list(passes.values()),
    "visits per second": [len(corpus.items) * passes[name] / seconds[name] for name in trained],
    "covered": [f"{known.mean():.1%}" for known in coverage.values()],
})  # fmt: skip
exhibits.table(
    cost,
    formats={"visits per second": ",.0f", "seconds": ".1f"},
    caption=f"Both trainers on {len(corpus):,} sequences with {len(corpus.items):,} visits, one thread each.",
)

# %% [markdown]
# A product that nobody clicked in the training histories has no embedding. Rare products are the ones to lose.

# %%
if coverage["word2vec"].all():
    exhibits.note(f"Here all {len(products):,} products have an embedding.")
else:
    exhibits.show(
        result_charts.coverage_by_count(pd.DataFrame({"count": products["count"], "known": coverage["word2vec"]})),
        caption=f"{coverage['word2vec'].mean():.1%} of the {len(products):,} products have an embedding; those without one have few events.",
        alt="Dots with intervals: the share of products with an embedding, by the number of events of the product.",
    )

# %% [markdown]
# ## Features: products that nobody clicked, and queries
#
# A bag may hold more than products. Let a product be the sum of its own row and the rows of its **features**, the words
# of its name and description, its category, its brand and its price band, which other products share. Then a product
# without a single click has a vector, and so has a search query: the sum of its words. To see whether these are any
# good, a tenth of the products is taken out of the sequences, and the category out of the features.

# %%
of_products = features.of_products(products, ("name", "description", "brand", "price"))
hidden = np.sort(np.random.default_rng(seed).permutation(len(product_ids))[: len(product_ids) // 10])

# %% [markdown]
# StarSpace trains once more, on sequences without the hidden products and with features for all.

# %%
by_features = None
if feature_epochs and len(of_products.names) and len(hidden):
    by_features = starspace.train(
        arrays.without(corpus, product_ids[hidden]), features=of_products, dim=dim, epochs=feature_epochs, seed=seed
    )
    vectors, _ = embeddings.align(by_features, product_ids)
else:
    exhibits.note("This log has no product columns to make features of, or feature_epochs is 0, so this part is left out.")

# %% [markdown]
# What lies near a hidden product, and near two words of its name as a query?

# %%
labels = charts.product_labels(products)
if by_features is not None:
    one = hidden[np.argmax(products["count"].to_numpy()[hidden])]
    text = " ".join(str(labels[one]).lower().split()[-2:])
    by_words = by_features.embed_products(features.of_texts([text]))
    shown = {f"hidden: {labels[one]}": labels[embeddings.nearest(vectors, vectors[one], 5, np.array([one]))[0][0]]}
    if by_words.any():
        shown[f"query: {text}"] = labels[embeddings.nearest(vectors, by_words, 5)[0][0]]
    exhibits.table(pd.DataFrame(shown), caption="The five nearest products of a product that training never saw, and of a query.")

# %% [markdown]
# One product may be luck. Of all that were hidden, how many of the nearest are of the same category?

# %%
same = None
if by_features is not None and "category" in products:
    category = products.category.to_numpy(dtype=object)
    named = hidden[[isinstance(category[i], str) for i in hidden]]
    neighbours, _ = embeddings.nearest(vectors, vectors[named], k=10, exclude=named)
    same = float((category[neighbours] == category[named][:, None]).mean()) if len(named) else None
    exhibits.note(
        f"Of the ten products nearest to each of the {len(named):,} hidden ones, {same or 0:.1%} are of the same "
        "category, although the category was not among the features."
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
# - **Threads.** With more than one thread the result would depend on their timing; here one is used, for the same bytes.
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
# small = {name: skipgram.train(corpus, dim=16, epochs=2, seed=s).vectors for name, s in (("a", 0), ("again", 0), ("b", 1))}
# assert np.array_equal(small["a"], small["again"]) and not np.allclose(small["a"], small["b"])
# ```
#
# </details>

# %% [markdown]
# ## Takeaways

# %%
kind = {name: f"{palette.label_of(name)} ({key[1]}, {key[2]})" for name, key in best.items()}
exhibits.takeaways([
    f"Both embeddings cover {coverage['word2vec'].mean():.1%} of the products; the article asked for 98 %.",
    f"At their best on valid users, {kind['word2vec']} finds {hits[best['word2vec']].mean():.1%} of the next products "
    f"in twenty tries, {kind['starspace']} {hits[best['starspace']].mean():.1%}: {verdict}.",
    f"word2vec took {seconds['word2vec']:.0f} s for {passes['word2vec']} passes, StarSpace {seconds['starspace']:.0f} "
    f"s for {passes['starspace']}, its checks on valid users among them.",
    "StarSpace alone gives new products and queries a place, too, by what is said of them.",
    *([f"Features alone put a product among its own category {same:.0%} of the time."] if same is not None else []),
])  # fmt: skip
