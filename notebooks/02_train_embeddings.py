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
#       word2vec:
#       - products.parquet
#       - sequences.parquet
#       starspace:
#       - products.parquet
#       - sequences.parquet
#     reads:
#     - products.parquet
#     - sequences.parquet
#     writes:
#     - product_embeddings/*
# ---

# %% [markdown]
# # 2. Train product embeddings
#
# In this notebook you will
#
# - see how word2vec and StarSpace learn from sequences, each with an example by hand;
# - train both on the same sequences, and see what each is better at;
# - let features place products that nobody clicked.
#
# An **embedding** is a list of numbers that stands for a product, learned so that similar products get similar numbers.

# %% tags=["parameters"]
run_dir = "reports/default"  # folder that this run writes to
dim = 50  # length of the product embeddings; from 1 to 4096
w2v_trainer = "shelfspace"  # who trains word2vec: our own compiled trainer, or gensim, as good and slower; one of: shelfspace, gensim
w2v_window = 5  # word2vec: products before and after that are context; from 1 to 1000
w2v_negatives = 20  # word2vec: noise products per visit; from 1 to 1000
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

# %% [markdown] tags=["aside"]
# Only the sequences and the product table of the chapter before are needed.

# %% tags=["setup"]
from functools import partial

import numpy as np
import pandas as pd

from shelfspace.files import run_files
from shelfspace.measure import evaluation, intervals, ranking
from shelfspace.models import baselines, users
from shelfspace.page import charts, exhibits, palette
from shelfspace.sequences import arrays
from shelfspace.vectors import embeddings, features, skipgram, starspace

palette.theme()

# %% [markdown] tags=["aside"]
# The rows of all tables of vectors follow the product table, which is sorted by product.

# %% tags=["setup"]
run = run_files.run_folder(run_dir)
products = pd.read_parquet(run / "products.parquet")
product_ids = products.product_id.to_numpy().astype(str)

# %% [markdown] tags=["aside"]
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
# ## Skip-gram: predict the neighbours
#
# word2vec learns from pairs of products that stand near each other in a sequence. Each product $p$ should make the products $c$ near it
# likely, and $K$ products $n_k$ drawn at random unlikely
# ([Mikolov et al. 2013](https://arxiv.org/abs/1310.4546), equation 4):
#
# $$\log \sigma(v_p \cdot u_c) + \sum_{k=1}^{K} \log \sigma(-v_p \cdot u_{n_k})$$
#
# where $\sigma(x) = 1 / (1 + e^{-x})$. Each product has two vectors: $v$ where it stands in the middle, which is the embedding, and $u$
# where it is a neighbour, which is left behind. With one for both, a product would be pushed to be its own neighbour. Two products with
# the same neighbours end up with similar vectors, also when nobody saw both: so two phones lie together although a customer buys only one.
#
# By hand: a window of one gives these pairs.

# %%
ada = ["phone A", "phone B", "phone A", "case A"]
pairs = [(ada[i], ada[j]) for i in range(4) for j in (i - 1, i + 1) if 0 <= j < 4]
exhibits.note(f"{', '.join(ada)}: {len(pairs)} pairs, namely {'; '.join(f'{p} → {c}' for p, c in pairs)}.")

# %% [markdown] tags=["aside"]
# The embeddings learn from the histories and not from the train users' targets, from which the counts and the networks of
# later notebooks do learn. A network that is to find a target, given vectors that had already seen it, could come to trust
# them more than it may for the valid and test users, whose targets no vector has seen. Both ways were tried: on the valid
# users, neither was better for all models.
#
# The defaults for text do not suit shops: popular products are no stop words, and noise drawn by count to the power
# of 0.75 is rarely best (Caselles-Dupré et al., RecSys 2018). Window, negatives, exponent and subsampling are
# parameters of this notebook for that reason; their defaults were chosen by a search on valid users, with as many
# tries as StarSpace had.

# %% tags=["word2vec"]
w2v_settings = {
    "window": w2v_window, "negatives": w2v_negatives, "ns_exponent": w2v_ns_exponent, "subsample": w2v_subsample,
    "epochs": w2v_epochs, "learning_rate": w2v_learning_rate,
}  # fmt: skip

# %% [markdown] tags=["aside"]
# The trainer is a small one of our own; `w2v_trainer="gensim"` takes gensim's, which finds vectors as good in several times the
# processor time.

# %% tags=["word2vec"]
if w2v_trainer == "gensim":
    from shelfspace.vectors.word2vec import train as trainer
else:
    trainer = partial(skipgram.train, start=earlier["word2vec"])

# %% [markdown] tags=["aside"]
# `run_files.once` trains, unless the same code made the file from the same before.

# %% tags=["word2vec"]
seconds["word2vec"] = run_files.once(
    run, files["word2vec"], embeddings.fit, train=trainer, like=earlier["word2vec"], corpus=corpus, dim=dim, seed=seed, **w2v_settings
).seconds

# %% [markdown]
# ## StarSpace: predict one product from the rest
#
# StarSpace learns from whole sequences: it takes one product $b$ out, adds up the others to a bag $a$, and asks that $b$ be more similar
# to the bag than each of $K$ random products $b_k$, by a margin $\mu$
# ([Wu et al. 2017](https://arxiv.org/abs/1709.03856), equation 1):
#
# $$\sum_{k=1}^{K} \max\big(0,\ \mu - \mathrm{sim}(a, b) + \mathrm{sim}(a, b_k)\big)$$
#
# The order plays no part, and both sides share one table. By hand, in the plane: the bag is *phone A* and *case A*, the label *phone B*,
# the negatives are *chair* and *lamp*.

# %%
names = ["phone A", "case A", "phone B", "chair", "lamp"]
before = np.array([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0], [0.8, -0.6], [-1.0, 0.0]])
bag, label, noise = [0, 1], 2, [3, 4]
a = before[bag].sum(axis=0) / np.linalg.norm(before[bag].sum(axis=0))

# %% [markdown] tags=["aside"]
# The cosine of the bag to each product says which of the negatives are nearer to it than the label, or less than the margin farther:

# %%
cosines = before @ a
terms = np.maximum(0, 0.5 - cosines[label] + cosines[noise])

# %% [markdown] tags=["aside"]
# Where a term is above 0, the negative is too near.

# %% tags=["aside"]
exhibits.table(
    pd.DataFrame({"negative": ["chair", "lamp"], "cosine to the bag": cosines[noise], "term of the loss": terms}),
    caption=f"The bag has a cosine of {cosines[label]:.3f} to the label, phone B. With a margin of 0.5, "
    f"{(terms > 0).sum()} of the 2 negatives are too near.",
)

# %% [markdown]
# Only negatives that are too near teach. With $\bar n$ their mean, every product of the bag moves along
# $b - \bar n$; the label moves towards the bag, and each of the negatives away from it. Adagrad
# ([Duchi et al. 2011](https://jmlr.org/papers/v12/duchi11a.html)) divides each row's steps by how much it moved so far, so that popular
# products settle while rare ones still learn.

# %%
gradient = before[noise][terms > 0].mean(axis=0) - before[label]
by_hand = before.copy()
by_hand[bag] -= 0.1 * gradient / np.sqrt((gradient**2).mean())
by_hand[label] += 0.1 * a / np.sqrt((a**2).mean())
by_hand[[n for n, term in zip(noise, terms) if term > 0]] -= 0.1 * a / np.sqrt((a**2).mean()) / (terms > 0).sum()

# %% [markdown] tags=["aside"]
# The trainer is asked for the same update.

# %%
loss, by_module = starspace.update(before, bag, label, noise, margin=0.5, learning_rate=0.1)

# %% [markdown] tags=["aside"]
# It comes to the same vectors:

# %%
moved = pd.DataFrame({
    "product": names, "before": [f"({x:.2f}, {y:.2f})" for x, y in before],
    "after, by hand": [f"({x:.3f}, {y:.3f})" for x, y in by_hand],
    "after, by the trainer": [f"({x:.3f}, {y:.3f})" for x, y in by_module],
})  # fmt: skip
exhibits.table(
    moved,
    caption=f"One update at a learning rate of 0.1, with a loss of {terms.mean():.4f} by hand and {loss:.4f} by the trainer.",
)

# %% [markdown] tags=["aside"]
# One update is one step. Many of them, by both trainers side by side:

# %%
exhibits.toy("theatre", "In the report, word2vec and StarSpace play here on these five products, step by step.")

# %% [markdown] tags=["aside"]
# The real sequences now. After each pass some valid users judge: how often is the product they looked at next among
# the twenty nearest to the mean of their history?

# %% tags=["starspace"]
judges = valid.sample(compare_users, seed)
few = judges[: min(len(judges), 300)]
ss_settings = {
    "similarity": ss_similarity, "loss": ss_loss, "margin": ss_margin, "temperature": ss_temperature,
    "negatives": ss_negatives, "window": ss_window, "epochs": ss_epochs, "learning_rate": ss_learning_rate,
}  # fmt: skip

# %% [markdown] tags=["aside"]
# With `ss_patience`, the training stops when these users stop gaining; by default it makes all its passes, as most logs want them.

# %% tags=["starspace"]
validate = partial(baselines.hit_rate_of_mean, examples=few, product_ids=product_ids)
seconds["starspace"] = run_files.once(
    run, files["starspace"], embeddings.fit, train=starspace.train, like=earlier["starspace"], start=earlier["starspace"], corpus=corpus,
    dim=dim, seed=seed, patience=ss_patience, validate=validate, **ss_settings,
).seconds  # fmt: skip

# %% [markdown] tags=["aside"]
# What training did: the two losses are different quantities, so only the shapes can be compared.

# %%
trained = {name: embeddings.load(run / file) for name, file in files.items()}
losses = {name: list(made.losses) for name, made in trained.items()}
changed = {name: values[-1] / values[0] - 1 for name, values in losses.items()}
scores = trained["starspace"].scores

# %% [markdown] tags=["aside"]
# For StarSpace the hit rate on the valid users, pass by pass, says more than its loss.

# %% tags=["aside"]
exhibits.show(
    charts.training_loss(losses),
    caption=f"From the first to the last pass the loss changed by {changed['word2vec']:+.0%} (word2vec) and "
    f"{changed['starspace']:+.0%} (StarSpace); after the last, StarSpace finds {scores[-1]:.1%} of the valid users' next products in "
    f"twenty tries, {max(scores):.1%} at best. A falling step size also moves a loss: judge by what is found.",
    alt="Two panels with the training loss per epoch, one for word2vec and one for StarSpace.",
)

# %% [markdown]
# ## What each is better at
#
# Which finds what a valid user looked at next? Asked with the mean of the history, decayed or not, or with its last product alone:

# %%
aligned = {name: embeddings.align(made, product_ids) for name, made in trained.items()}
histories = {"mean": 0.0, "decayed by rank": 0.7, "last product": 20.0}

# %% [markdown] tags=["aside"]
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

# %% [markdown] tags=["aside"]
# Every target counts in *all*; those that were new to the user and those of popular and less popular products are also looked at by
# themselves.

# %%
counts = products["count"].to_numpy()[judges.target]
parts = {
    "all": np.ones(len(judges), bool), "not seen before": ~judges.seen(), "popular": counts > np.median(counts),
    "less popular": counts <= np.median(counts),
}  # fmt: skip

# %% [markdown] tags=["aside"]
# A hit is a target among the twenty nearest products. Its share is counted for each way to ask, and each part.

# %%
rows = []
hits = {key: ranking.hit_rate(rank, 20) for key, rank in ranks.items()}
for (name, history, similarity), hit in hits.items():
    cells = {
        part: f"{100 * hit[of].mean():.1f} ± {196 * hit[of].std() / of.sum() ** 0.5:.1f}" if of.any() else "–" for part, of in parts.items()
    }
    rows.append({"trainer": palette.label_of(name), "history": history, "similarity": similarity} | cells)

# %% [markdown] tags=["aside"]
# Under the dot product, too, which the table below leaves out where the cosine finds more: popular products have long vectors.

# %%
best = {name: max((key for key in hits if key[0] == name), key=lambda key: hits[key].mean()) for name in trained}
likeness = {name: best[name][2] for name in trained}
kept = pd.DataFrame([row for row, key in zip(rows, hits) if key[2] == likeness[key[0]]])
exhibits.table(
    kept.drop(columns="similarity"),
    caption=f"HR@20 in % (± 1.96 standard errors) of {len(judges):,} valid users, by {likeness['word2vec']} (word2vec) and "
    f"{likeness['starspace']} (StarSpace).",
)

# %% [markdown] tags=["aside"]
# Is the better of the two better by more than chance? Each is taken as it does best here, and both are asked about the same users, so
# that the difference of each user counts.

# %%
gain = hits[best["starspace"]] - hits[best["word2vec"]]
low, high = intervals.interval(gain, judges.user_ids, seed)
verdict = "not shown to differ" if low <= 0 <= high else "StarSpace ahead" if low > 0 else "word2vec ahead"

# %% [markdown] tags=["aside"]
# An interval that holds 0 shows no difference, which is not to say that there is none.

# %%
exhibits.note(
    f"Each at its best, StarSpace less word2vec is {100 * gain.mean():+.1f} points of HR@20 ({100 * low:+.1f} to {100 * high:+.1f}): "
    f"{verdict}."
)

# %% [markdown] tags=["aside"]
# The settings. Nought stands for "by the size of the log" in the passes, and for "the whole sequence" in StarSpace's window.

# %% tags=["aside"]
chosen = {"word2vec": w2v_settings, "StarSpace": ss_settings}
every = list(dict.fromkeys([*w2v_settings, *ss_settings]))
columns = {name: [str(has.get(setting, "–")) for setting in every] for name, has in chosen.items()}
exhibits.table(
    pd.DataFrame({"setting": every} | columns),
    caption=f"The settings, both with dim = {dim} and seed {seed}.",
)

# %% [markdown] tags=["aside"]
# What they cost: seconds, and products that have a vector.

# %% [markdown] tags=["aside"]
# StarSpace's seconds hold its checks on valid users, too.

# %%
coverage = {name: known.mean() for name, (_, known) in aligned.items()}
passes = {name: len(made.losses) for name, made in trained.items()}
speed = {name: len(corpus.items) * passes[name] / seconds[name] for name in trained}
told = "; ".join(f"{palette.label_of(n)} took {seconds[n]:.1f} s for {passes[n]} passes, {speed[n]:,.0f} visits a second" for n in trained)
exhibits.note(f"{told}. {coverage['word2vec']:.1%} of the products have an embedding; the article asked for 98 %.")

# %% [markdown]
# ## Features: products that nobody clicked
#
# A product that nobody clicked has no embedding. So let a product be the sum of its own row and the rows of its **features**, the words
# of its name and description, its brand and its price band, which other products share: then a new one has a vector, and so has a search
# query. To see whether these are any good, a tenth of the products is hidden from the training, and the category from the features.

# %%
of_products = features.of_products(products, ("name", "description", "brand", "price"))
hidden = np.sort(np.random.default_rng(seed).permutation(len(product_ids))[: len(product_ids) // 10])

# %% [markdown] tags=["aside"]
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

# %% [markdown] tags=["aside"]
# What lies near a hidden product, and near two words of its name as a query?

# %% tags=["aside"]
labels = charts.product_labels(products)
if by_features is not None:
    one = hidden[np.argmax(products["count"].to_numpy()[hidden])]
    text = " ".join(str(labels[one]).lower().split()[-2:])
    by_words = by_features.embed_products(features.of_texts([text]))
    shown = {f"hidden: {labels[one]}": labels[embeddings.nearest(vectors, vectors[one], 5, np.array([one]))[0][0]]}
    if by_words.any():
        shown[f"query: {text}"] = labels[embeddings.nearest(vectors, by_words, 5)[0][0]]
    exhibits.table(pd.DataFrame(shown), caption="The five nearest products of a product that training never saw, and of a query.")

# %% [markdown] tags=["aside"]
# One product may be luck. Of all that were hidden, a thousand at most, how many of the nearest are of the same category?

# %%
same = None
if by_features is not None and "category" in products:
    category = products.category.to_numpy(dtype=object)
    named = [i for i in np.random.default_rng(seed).permutation(hidden) if isinstance(category[i], str)][:1000]
    neighbours, _ = embeddings.nearest(vectors, vectors[named], k=10, exclude=named)
    same = float((category[neighbours] == category[named][:, None]).mean()) if len(named) else None
    exhibits.note(f"Of the ten products nearest to each of {len(named):,} hidden ones, {same or 0:.1%} are of its category.")

# %% [markdown] tags=["folded"]
# ## What could go wrong
#
# - **Settings made for text.** A window or noise that suits sentences may hide what a shop's sequences say.
# - **Collapse.** When all cosines are near 1, the step size is too large, or there are too few negatives.
# - **Comparing losses.** Two trainers measure different quantities: compare what they find.

# %% [markdown] tags=["folded"]
# ## Exercises
#
# 1. How many pairs does Ada's sequence of four products give under a window of two?
#
# <details><summary>Solution</summary>
#
# Ten: the six pairs at a distance of one, and two more in each direction at a distance of two.
#
# ```python
# wider = [(ada[i], ada[j]) for i in range(4) for j in range(4) if 0 < abs(i - j) <= 2]
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
# Up to 0.05, the gap between the label and the nearest negative.
#
# ```python
# loss_at = {margin: np.maximum(0, margin - 0.7 + np.array([0.6, 0.4, 0.65])).sum() for margin in (0.04, 0.06, 0.2)}
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
    f"At their best on valid users, {kind['word2vec']} finds {hits[best['word2vec']].mean():.1%} of the next products in twenty tries, "
    f"{kind['starspace']} {hits[best['starspace']].mean():.1%}: {verdict}.",
    "Both place a product by its company. StarSpace alone places a new one, too, by what is said of it.",
])  # fmt: skip
