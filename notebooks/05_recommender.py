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
#       tied:
#       - products.parquet
#       - product_embeddings/word2vec.parquet
#       - sequences.parquet
#       dense:
#       - products.parquet
#       - product_embeddings/*
#       - sequences.parquet
#       - decay.json
#     reads:
#     - products.parquet
#     - product_embeddings/*
#     - sequences.parquet
#     - decay.json
#     - best_decays.json
#     - shop/truth_users.parquet
#     writes:
#     - recommender*
#     - recommendations.parquet
#     - explanations.parquet
# ---

# %% [markdown]
# # 5. A neural recommender
#
# In this notebook you will
#
# - train the article's network on user embeddings;
# - build one that learns embeddings, decay and scores together, and measure what each of its terms is worth;
# - let several models name candidates, and train a ranker that orders them.

# %% tags=["parameters"]
run_dir = "reports/default"  # folder that this run writes to
hidden = "128"  # units of each Dense layer, as "128" or "256, 128"; whole numbers, each from 1 to 16384
dropout = 0.3  # share of units left out at random while training; 0 or more and below 1
prefixes = 1000  # also learn from so many of each user's last history visits; 0: from the target alone, as in the article; from 0 to 10000
epochs = 0  # passes of the dense network; 0: by the size of the log; from 0 to 10000
batch = 1024  # examples per step of the dense network; from 1 to 1000000
learning_rate = 0.008  # Adam's step size in the dense network at the start, from where it falls to 0; above 0 and at most 10
distribute = ""  # who shares the dense network's training: GPUs, or the machines of TF_CONFIG; one of: , mirrored, workers
examples = 400000  # examples that a pass of the dense network takes at most, drawn anew each time; from 1 to 1000000000
asked_targets = 20000  # ask for at most so many valid and so many test targets, drawn at random; from 1 to 1000000000
model = "best"  # whose recommendations leave the pipeline; best: of ranked and tied, by the valid users; one of: best, ranked, tied, dense
seen = True  # whether products that a user saw already may be recommended
explained = 200  # users whose recommendations leave with the parts of their scores, in explanations.parquet; from 0 to 2000
new_places = 0  # places of each twenty that are kept for products that nobody clicked, where products have information; from 0 to 19
tied_epochs = 0  # passes of the tied recommender; 0: by the size of the log; from 0 to 10000
tied_examples = 500000  # examples that a pass of the tied recommender takes at most, drawn anew each time; from 1 to 1000000000
tied_recency = 0.0  # how much more often recent examples train it; about 3 where tastes drift and the test comes last; from 0 to 100
tied_dropout = 0.4  # share of the numbers of a history's embeddings left out at random while training; 0 or more and below 1
rank_examples = 20000  # targets of train users kept back for the ranker, at most; the tied recommender has the others; from 1 to 1000000
rank_top = 40  # candidates that each source of the ranker names; from 1 to 1000
seed = 0  # of everything random; from 0 to 4294967295

# %% [markdown] tags=["aside"]
# The chapters before left the product table and the sequences.

# %% tags=["setup"]
import shutil

import keras
import numpy as np
import pandas as pd
from scipy.special import expit, softmax

from shelfspace.files import run_files
from shelfspace.measure import evaluation, intervals, ranking
from shelfspace.models import baselines, dense, factors, newcomers, ranked, recommendations, retrieval, tied, tied_training
from shelfspace.page import charts, exhibits, palette, result_charts
from shelfspace.sequences import arrays
from shelfspace.vectors import embeddings

palette.theme()
run = run_files.run_folder(run_dir)
products = pd.read_parquet(run / "products.parquet")
product_ids = products.product_id.to_numpy().astype(str)
table = arrays.load(run / "sequences.parquet")

# %% [markdown]
# ## What it learns from
#
# An example is a user embedding and the product that came next. The article takes one per user; with `prefixes`, the network also learns
# what came earlier in a history. From *phone A, phone B, case A, desk* and the target *chair*, two prefixes give three examples:

# %%
by_hand = ["phone A, phone B → case A", "phone A, phone B, case A → desk", "phone A, phone B, case A, desk → chair"]
exhibits.note(f"{'; '.join(by_hand)}.")

# %% [markdown] tags=["aside"]
# The same of all train users; the valid users are asked for their targets alone, as a recommender would be, and of a large log not for all.

# %% tags=["setup"]
train = arrays.examples(table, product_ids, "train", prefixes=prefixes)
valid = arrays.examples(table, product_ids, "valid").sample(asked_targets, seed)

# %% [markdown] tags=["aside"]
# Each history will become the user embedding of chapter 4, with the product embedding and the decay that were chosen there.

# %% tags=["dense"]
choice = run_files.read_json(run / "decay.json")
vectors, known = embeddings.align(embeddings.load(run / "product_embeddings" / f"{choice['embedding']}.parquet"), product_ids)
settings = (choice["decay"], choice["decay_time"], known)
exhibits.note(f"{len(train):,} examples train and {len(valid):,} validate.")

# %% [markdown]
# ## The article's network
#
# $$\mathrm{scores} = W\,\mathrm{BatchNorm}(\mathrm{Dropout}(\mathrm{ReLU}(A\,u + a))) + b$$
#
# where $u$ is the user embedding, freed of its mean and scale. A softmax over all products makes the scores probabilities, and the loss is
# the cross-entropy of the product that came. The step size falls to zero, so that the last steps settle what the first have found.

# %% [markdown] tags=["aside"]
# A step takes the products that came, and a sample of the others, from which the sum over all is estimated. With `distribute`,
# several GPUs or machines each take a share of every batch.

# After each pass the valid users judge, and the weights of the best pass are kept.

# %% tags=["dense"]
history = run_files.once(
    run, "recommender_dense.keras", dense.fit, vectors=vectors, known=known, decay=choice["decay"], decay_time=choice["decay_time"],
    learn=train, valid=valid, hidden=[int(size) for size in str(hidden).split(",")], dropout=dropout, distribute=distribute,
    epochs=epochs, batch=batch, learning_rate=learning_rate, examples=examples, seed=seed,
).returned  # fmt: skip

# %% [markdown] tags=["aside"]
# Where do its weights sit?

# %% tags=["aside"]
network = keras.saving.load_model(run / "recommender_dense.keras")
layers = pd.DataFrame(
    [
        {"layer": type(layer).__name__, "output": str(tuple(layer.output.shape[1:])), "weights": layer.count_params()}
        for layer in network.layers
    ]
)
exhibits.table(
    layers,
    caption=f"The article's network with {network.count_params():,} weights, most of them in the softmax over "
    f"{len(product_ids):,} products.",
)

# %% [markdown] tags=["aside"]
# The loss of the users it trains on can always be pushed down; look at where that of the valid users turns.

# %%
kept = max(history, key=lambda epoch: epoch["valid_mrr@20"])
exhibits.note(
    f"The weights of pass {history.index(kept) + 1} of {len(history)} are kept. Of all {network.count_params():,}, "
    f"{network.layers[-1].count_params() / network.count_params():.0%} sit in the softmax: its cost grows with the products."
)

# %% [markdown]
# ## The same idea, learned
#
# In the article's chain each link is fixed before the next is trained. The *tied* recommender keeps the decayed average and lets the
# targets teach all of it at once. Here it is a term at a time, for a customer who saw three of a shop's four products. Two numbers embed
# a product: how much it is like electronics, and like furniture.

# %%
goods = ["phone A", "case A", "chair", "desk"]
v = np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]])
visits = pd.DataFrame({"saw": goods[:3], "age (days)": [2, 1, 0], "to the cart": [0, 1, 0]})

# %% [markdown]
# **A decayed average.** As in chapter 4, but the decay $d$ is learned, and so is a weight $b_e$ for each kind of event:
#
# $$w_i = \mathrm{softmax}_i(-d\,t_i + b_{e_i}) \qquad u = \sum_i w_i\, v_i$$
#
# With $d = \ln 2$ a day halves a visit's weight; with $b_{\mathrm{cart}} = \ln 2$ the cart doubles it.

# %%
logit = np.log(2) * (visits["to the cart"] - visits["age (days)"])
visits["decayed"] = softmax(logit)
u = visits["decayed"].to_numpy() @ v[:3]

# %% [markdown]
# **Attention.** Which visit matters may also depend on its product, on the newest product, and on its place $P_i$:
#
# $$w_i = \mathrm{softmax}_i(-d\,t_i + b_{e_i} + a^\top \sigma(A v_i + B v_{\mathrm{last}} + P_i))$$
#
# Here one gate $\sigma$ opens for furniture if the newest product is furniture, too.

# %%
gate = expit(6 * v[:3, 1] + 6 * v[2, 1] - 9)
visits["with attention"] = softmax(logit + gate)
u = visits["with attention"].to_numpy() @ v[:3]
exhibits.table(visits, caption="The weights of three visits. After the chair, attention turns from the case to the chair.")

# %% [markdown]
# **A small network.** An average lies among what was seen, but the next product may lie elsewhere:
#
# $$q = u + W_2\,\mathrm{ReLU}(W_1 [u, v_{\mathrm{last}}] + c)$$
#
# Here a unit fires for who liked electronics but saw furniture last, and turns $q$ away from electronics.

# %%
unit = max(u[0] + v[2, 1] - 1, 0)
q = u + unit * np.array([-0.8, 0])
exhibits.note(f"The average ({u[0]:.2f}, {u[1]:.2f}) becomes the query ({q[0]:.2f}, {q[1]:.2f}).")

# %% [markdown]
# **Cosine and popularity.** The same table $v$ scores. The temperature $T$ sets how much the cosine counts beside the bias $\beta_j$,
# which is popularity: $\cos(q, v_j) / T + \beta_j$.

# %%
cosine = v @ q / np.linalg.norm(v, axis=1) / np.linalg.norm(q)
terms = pd.DataFrame({"cosine": cosine / 0.1, "popularity": 0.3 * np.log1p([100, 60, 20, 10])}, index=pd.Index(goods, name="product"))

# %% [markdown]
# **Seen before.** A product seen $i$ visits ago, with event $e_i$, has a bonus:
#
# $$\rho_j = r_i + s_{e_i} + o^\top \mathrm{ReLU}(H [h, \beta_j, \beta_{\mathrm{last}}] + g)$$
#
# What lies in the cart is still wanted ($s$). The last part, zero here, learns from habits $h$: who went back before, goes back again.

# %%
terms["seen before"] = [0.1, 0.4 + 1.0, -1.0, 0.0]  # r_2; r_1 and the cart; r_0; the desk is new

# %% [markdown]
# **What follows what.** A cosine is symmetric: it cannot say that the case follows the phone but not the phone the case. Counts can.
# $n_k(p_{-k} \to j)$ is how often $j$ came $k$ visits after the customer's $k$-th newest product; $\alpha_k$ and $\kappa_k$ are learned:
#
# $$\sum_{k=1}^{2} \alpha_k \log(1 + \kappa_k\, n_k(p_{-k} \to j))$$

# %%
after_chair, two_after_case = np.array([0, 0, 0, 3]), np.array([0, 0, 1, 1])
terms["what follows what"] = 0.5 * np.log1p(after_chair) + 0.5 * np.log1p(two_after_case)

# %% [markdown] tags=["aside"]
# The counts leave out the user's own sequence, in training as in use: else the model would learn to trust a count that holds its own
# target. By hand:

# %% tags=["aside"]
two = pd.DataFrame(
    {
        "from → to": ["phone A → case A", "case A → desk"],
        "sequence 1: phone A, case A, desk": [1, 1],
        "sequence 2: phone A, case A": [1, 0],
        "counted": [2, 1],
        "what an example of sequence 1 sees": [1, 0],
    }
)
exhibits.table(two, caption="Only what other users did can help to predict a user's next product, in training as in use.")

# %% [markdown]
# **What goes together.** Rare products are known better by what they were seen with than by a vector. With $n(a, b)$ sequences that
# hold both, and weights $\tilde w$ of a plain decay, this is the co-occurrence baseline:
#
# $$\log(1 + 30\, m_j)$$
#
# $$m_j = \sum_i \tilde w_i\, n(p_i, j) / \sqrt{n(p_i)\, n(j)}$$

# %% [markdown] tags=["aside"]
# Its weight is fixed: if trained, it would grow too large, as counts fit the sequences they were counted in better than later ones.

# %%
both = np.array([[9, 3, 0, 0], [3, 4, 1, 0], [0, 1, 4, 1]])  # a row for each visit
m = np.array([1, 2, 4]) / 7 @ (both / np.sqrt(np.outer([9, 4, 4], [9, 4, 4, 1])))
terms["what goes together"] = np.log1p(30 * m)

# %% [markdown]
# **The score** adds all of it up:
#
# $$\begin{array}{rl} \mathrm{score}_j = & \cos(q, v_j) / T + \beta_j + \rho_j \\
# & + \sum_{k=1}^{2} \alpha_k \log(1 + \kappa_k\, n_k(p_{-k} \to j)) \\
# & + \log(1 + 30\, m_j) \end{array}$$

# %%
terms["score"] = terms.sum(axis=1)
exhibits.table(
    terms, formats=dict.fromkeys(terms, ".2f"), index=True, caption="What the four scores are made of. The desk is first, though new."
)

# %% [markdown] tags=["aside"]
# Now the real one. Some of the train users' targets are kept back: a ranker further down learns from them when to believe this
# recommender, and would believe it too much if it had seen them.

# %% tags=["tied"]
asked = arrays.examples(table, product_ids, "train")  # the train users' targets
asked = asked if len(asked) else arrays.examples(table, product_ids, "train", prefixes=1)  # of a tiny log
owner = np.unique(asked.user_ids, return_inverse=True)[1]
drawn = np.random.default_rng(seed).permutation(len(asked))[owner]  # a place in the queue for each of the users
asked = asked[np.sort(np.argsort(drawn, kind="stable")[:rank_examples])]
train = train[~np.isin(train.end, asked.end)]  # of a large log, both would take a quarter of a gigabyte more

# %% [markdown] tags=["aside"]
# It starts from the embeddings of word2vec, and from what was counted in all that may train.

# %% tags=["tied"]
corpus = arrays.corpus(table, targets=True)
started_from = embeddings.align(embeddings.load(run / "product_embeddings" / "word2vec.parquet"), product_ids)
tied_history = run_files.once(
    run, "recommender_tied.keras", tied_training.fit, vectors=started_from[0], known=started_from[1], corpus=corpus,
    product_ids=product_ids, examples=train, valid=valid, epochs=tied_epochs, dropout=tied_dropout, strength=tied_recency,
    limit=tied_examples, seed=seed,
).returned  # fmt: skip

# %% [markdown] tags=["aside"]
# What both networks learned from is let go, as that of a large log takes gigabytes.

# %%
del train

# %% [markdown] tags=["aside"]
# Its curve beside that of the dense network; what both can be compared by is the MRR@20 of the valid users.

# %% tags=["aside"]
tied_kept = max(tied_history, key=lambda epoch: epoch["valid_mrr@20"])
exhibits.show(
    result_charts.learning_curve(tied_history),
    caption=f"The tied recommender keeps the weights of pass {tied_history.index(tied_kept) + 1} of {len(tied_history)}: MRR@20 of the "
    f"valid users is {tied_kept['valid_mrr@20']:.1%}, against {kept['valid_mrr@20']:.1%} of the dense network.",
    alt="Two panels: training and validation loss per epoch, and MRR@20 of the valid users per epoch.",
)

# %% [markdown]
# ## What it learned
#
# Some of its reasons can be read. Attention weighs visits too, so this half-life is what is left when it had its say. From here on it
# answers from its file, without TensorFlow, as in use.

# %%
learned = tied.load(run / "recommender_tied.keras")
found = learned.findings()
events = [arrays.EVENT_LEVELS[code] for code in np.unique(corpus.events)]
weigh, again = ("; ".join(f"{name} {found[key][name]:.2g}" for name in events) for key in ("event_weights", "repeat_odds"))
steps = ", ".join(f"{weight:.2g}" for weight in found["link_weight"])
rising = ", so more passes may help" if tied_kept is tied_history[-1] else ""
exhibits.note(
    f"The half-life of a visit is {found['half_life']:.1f} days. By event, a visit weighs: {weigh}; the odds that the next product is one "
    f"seen with it are: {again}. The weights α are {steps}. Pass {tied_history.index(tied_kept) + 1} of "
    f"{len(tied_history)} was best on the valid users{rising}."
)

# %% [markdown] tags=["aside"]
# In the simulated shop we know how fast interest truly fades:

# %%
truth = run / "shop" / "truth_users.parquet"
if truth.exists():
    true = np.log(2) / pd.read_parquet(truth).decay
    exhibits.note(
        f"Truly, the simulated users' half-lives lie between {true.quantile(0.1):.1f} and {true.quantile(0.9):.1f} days (10th and 90th "
        f"percentile), {true.median():.1f} in the middle."
    )

# %% [markdown] tags=["aside"]
# The toy's lines again, with what was learned. We take a valid user with a few visits, over about five days.

# %%
labels = charts.product_labels(products)
span = valid.times[valid.end - 1] - valid.times[valid.start]
one = valid[[np.argmin(np.where((valid.lengths >= 5) & (valid.lengths <= 8), np.abs(span - 5), np.inf))]]

# %% [markdown] tags=["aside"]
# Decay and events give each visit a weight; attention adds its own.

# %%
h = tied.histories(one, learned.visits, "days")
v = learned.vectors[h.items]
logit = learned.event_bias[h.event] - learned.decay * h.age
gates = expit(v @ learned.of_visit + v[0] @ learned.of_last + learned.of_place[h.place])

# %% [markdown] tags=["aside"]
# Compare the weights before and after attention.

# %% tags=["aside"]
weights = {"decayed": softmax(logit), "with attention": softmax(logit + gates @ learned.attention)}
exhibits.table(
    pd.DataFrame({"saw": labels[h.items], "event": np.array(arrays.EVENT_LEVELS)[h.event], "age (days)": h.age} | weights),
    formats=dict.fromkeys(["age (days)", *weights], ".2f"),
    caption="The weights of a valid user's visits, newest first.",
)

# %% [markdown] tags=["aside"]
# The toy's last table, for the same user's first five products, tells why they stand there.

# %% tags=["aside"]
best, scores = ranking.top_k(tied.recommend(learned)(one), 5)
parts = tied.explain(learned, one, np.zeros(best.size, int), best[0]).rename(columns=tied.TERMS)
exhibits.table(
    parts.assign(product=labels[best[0]]).set_index("product"),
    formats=dict.fromkeys(parts, ".2f"), index=True,
    caption=f"The terms of the same user's first five. What came next was: {labels[one.target[0]]}.",
)  # fmt: skip

# %% [markdown]
# ## What each term is worth
#
# Leave one term out of the trained model's score, and ask the valid users again: this is what the model leans on.

# %%
few = valid.sample(5000, seed)
leaving = {"nothing": []} | {what: [name] for name, what in tied.TERMS.items()}
left = {what: evaluation.evaluate(tied.recommend(learned, without), few, block=256) for what, without in leaving.items()}

# %% [markdown] tags=["aside"]
# Each row asks the same users, so the loss is paired, and so is its interval.

# %%
gained = np.stack([ranking.reciprocal_rank(each.ranks, 20) for each in left.values()], axis=1)
lost = gained[:, :1] - gained[:, 1:]
low, high = np.quantile(intervals.bootstrap(lost, few.user_ids, seed=seed), [0.025, 0.975], axis=0)
points = np.round(100 * np.stack([lost.mean(axis=0), low, high], axis=1), 1) + 0.0  # no -0.0
most = [*tied.TERMS.values()][lost.mean(axis=0).argmax()]

# %% [markdown] tags=["aside"]
# Discovery is of targets new to the user, ranked among products new to the user.

# %%
cuts = [evaluation.figures(each, few) for each in left.values()]
worth = pd.DataFrame({"left out": left.keys()})
worth["MRR@20 lost, in points"] = ["–", *(f"{mean} ({low} to {high})" for mean, low, high in points)]
for column, head in evaluation.COLUMNS.items():
    worth[head] = [cut[column]["mrr@20"] if cut[column] else None for cut in cuts]

# %% [markdown] tags=["aside"]
# A small loss can also mean that other terms tell much the same.

# %%
exhibits.table(
    worth,
    formats=dict.fromkeys(worth.columns[2:], ".1%"),
    caption=f"MRR@20 without one term, on {len(few):,} valid users, with 95 % intervals. It loses most without: {most}.",
)

# %% [markdown]
# ## Retrieve, then rank
#
# Each model knows something that the others do not. So every source names its first products, and a *ranker* looks closely at each of
# these candidates $j$: at what the sources say, how it stands to the history in category, brand and price, and who asks. It adds up
# many small decision trees,
#
# $$\mathrm{score}(u, j) = \sum_{m} \mathrm{tree}_m(\mathrm{features}(u, j))$$
#
# each grown to mend the order that those before it gave (LambdaRank).

# %%
aligned = {
    name: embeddings.align(embeddings.load(run / "product_embeddings" / f"{name}.parquet"), product_ids)
    for name in ("word2vec", "starspace")
}
run_files.once(
    run, "recommender_ease.npz", factors.fit_ease, corpus=corpus, product_ids=product_ids, regularisation=retrieval.EASE["regularisation"]
)
ease = factors.Ease(corpus, product_ids, saved=run / "recommender_ease.npz")  # a source that takes long to fit
best_decays = run_files.read_json(run / "best_decays.json")
sources = retrieval.sources(tied.recommend(learned), corpus, product_ids, aligned, best_decays, ease)
facts = retrieval.facts(corpus, products, vectors)
product, offsets = ranked.look(sources, facts, few, rank_top)[:2]

# %% [markdown] tags=["aside"]
# A source can be worth having though it is poor by itself, if it names targets that the others do not.

# %%
row = np.repeat(np.arange(len(few)), np.diff(offsets))
among = np.bincount(row, product == few.target[row], minlength=len(few)) > 0
alone = {name: evaluation.evaluate(source, few) for name, source in sources.items()}
exhibits.table(
    pd.DataFrame({
        "source": [palette.label_of(name) for name in alone],
        "names the target": [np.mean(each.ranks <= rank_top) for each in alone.values()],
        "a new one": [np.mean(each.ranks[~few.seen()] <= rank_top) for each in alone.values()],
    }),
    formats={"names the target": ".1%", "a new one": ".1%"},
    caption=f"What each source brings with its first {rank_top} products. Together they name {among.mean():.1%} of {len(few):,} targets, "
    f"and {among[~few.seen()].mean():.1%} of the new ones, with {len(product) / len(few):.0f} candidates each.",
)  # fmt: skip

# %% [markdown] tags=["aside"]
# The ranker learns from the targets that were kept back. Each is asked for twice: among all candidates and, where it was new to
# the user, among the new ones. So the same ranker serves a list of new products alone. Candidates that the trees hold equal stand in the
# order of the first source, the tied recommender.

# %%
learned_from = {"tied": run_files.sha256_file(run / "recommender_tied.keras"), "vectors": aligned, "best": best_decays}
_ = run_files.once(
    run, "recommender_ranked.txt", lambda path, made_of, **given: ranked.save(ranked.train(sources, facts, **given), path),
    made_of=[learned_from, corpus, products, vectors], examples=asked, top=rank_top, seed=seed,
)  # fmt: skip
ranker = ranked.load(run / "recommender_ranked.txt", sources, facts, rank_top)

# %% [markdown] tags=["aside"]
# What did it find worth looking at? Each split of a tree improves the order by something, which is put to what it looked at:

# %% tags=["aside"]
gain = pd.Series(ranker.trees.feature_importance("gain"), ranker.trees.feature_name())
share = gain.groupby(lambda name: name.partition("/")[0], sort=False).sum().sort_values(ascending=False) / max(gain.sum(), 1e-12)
exhibits.table(
    pd.DataFrame({"what it looks at": [palette.label_of(name) for name in share.index], "share": share.to_numpy()}),
    formats={"share": ".1%"},
    caption=f"What the ranker's {ranker.trees.num_trees()} trees go by: each group's share of all that their splits gained.",
)

# %% [markdown] tags=["aside"]
# The valid users choose whose recommendations leave the pipeline.

# %%
final = {"ranked": ranked.recommend(ranker), "tied": tied.recommend(learned), "dense": dense.recommend(network, vectors, *settings)}
on_valid = {name: evaluation.evaluate(each, valid) for name, each in final.items()}
mrr = {name: ranking.reciprocal_rank(each.ranks, 20).mean() for name, each in on_valid.items()}
leaves = max(("ranked", "tied"), key=mrr.get) if model == "best" else model

# %% [markdown]
# ## Twenty products for everybody
#
# What leaves the pipeline is a table for every user: rank, product, score. New products, which nobody clicked, are known to no model here;
# with `new_places`, the last places of each list are kept for those nearest to the user.

# %% [markdown] tags=["aside"]
# That costs what would have stood there: how often to show what nobody knows yet is for the shop to decide, not for clicks to tell.

# %%
everybody = arrays.latest(table, product_ids)
clicked = baselines.visit_counts(corpus, product_ids) > 0
unclicked = newcomers.model(products, *aligned["word2vec"], clicked, **best_decays["word2vec_user"]) if new_places else None
scores_of = newcomers.keep_places(final[leaves], unclicked, new_places)
files = {"dense": "recommender_dense.keras", "tied": "recommender_tied.keras", "ranked": "recommender_ranked.txt"}
told_by = [run_files.sha256_file(run / files[leaves]), choice if leaves == "dense" else learned_from]
_ = run_files.once(
    run, "recommendations.parquet", lambda path, made_of, **how: recommendations.write_recommendations(scores_of, path=path, **how),
    made_of=[told_by, corpus, products, best_decays, new_places], examples=everybody, product_ids=product_ids, seen=seen,
)  # fmt: skip
with run_files.atomic(run / "recommender.keras") as temporary:
    shutil.copyfile(run / f"recommender_{'dense' if leaves == 'dense' else 'tied'}.keras", temporary)
run_files.write_json(
    run / "recommender.json",
    {"model": leaves, "top": rank_top, "new_places": new_places, "valid_mrr@20": {name: float(each) for name, each in mrr.items()}},
)

# %% [markdown] tags=["aside"]
# One user's list, beside what the user had seen:

# %%
example = valid[np.flatnonzero(valid.lengths <= 8)[:1]] if (valid.lengths <= 8).any() else valid[:1]
top, scores = ranking.top_k(scores_of(example), 3)
saw = [labels[i] for i in example.items[example.start[0] : example.end[0]][-3:]]
came = "which is among them" if example.target[0] in top[0] else "which is not among them: most lists miss"
exhibits.note(
    f"A valid user saw, newest last: {', '.join(saw)}. The first recommended: {', '.join(labels[i] for i in top[0])}. "
    f"What came next was {labels[example.target[0]]}, {came}."
)

# %% [markdown] tags=["aside"]
# Why these? Each tree adds something to a product's score because of what it looked at, and what a group of features adds can be told
# exactly (SHAP values of trees, Lundberg et al., 2020): the parts sum to the score.

# %% tags=["aside"]
first_five = ranking.top_k(final["ranked"](example), 5)[0][0]
parts = ranked.explain(ranker, example, np.zeros(len(first_five), int), first_five)
parts = parts.loc[:, (parts != 0).any()].rename(columns=palette.label_of, index=lambda place: str(place + 1)).T
exhibits.table(
    parts.rename_axis("what adds to it").reset_index(),
    formats=dict.fromkeys(parts.columns, ".2f"),
    caption="The ranker's first five for the same user, and what their scores are made of. "
    + "; ".join(f"{place}: {labels[i]}" for place, i in enumerate(first_five, 1)) + ".",
)  # fmt: skip

# %% [markdown] tags=["aside"]
# So that a shop can say why, the recommendations of some users leave with the parts of their scores: a row for each product, the
# parts beside each other. The tied recommender's are the terms of its formula; the dense network has nothing to tell.

# %%
if leaves != "dense" and explained:
    some = everybody.sample(explained, seed)
    listed = pd.read_parquet(run / "recommendations.parquet", filters=[("user_id", "in", some.user_ids.tolist())])
    pairs = pd.Index(some.user_ids).get_indexer(listed.user_id), np.searchsorted(product_ids, listed.product_id.to_numpy(str))
    parts = ranked.explain(ranker, some, *pairs) if leaves == "ranked" else tied.explain(learned, some, *pairs)
    with run_files.atomic(run / "explanations.parquet") as temporary:
        listed[["user_id", "rank", "product_id"]].join(parts).to_parquet(temporary, index=False)

# %% [markdown] tags=["folded"]
# ## What could go wrong
#
# - **Targets in the input.** If a target were part of its own history, the network would repeat its input and look brilliant.
# - **A network that has learned popularity.** If all customers get much the same twenty products, that is all it has learned.
# - **Stale input.** Train the embeddings anew, and the network must be trained anew as well.

# %% [markdown] tags=["folded"]
# ## Exercises
#
# 1. Which share of the dense network's weights sits in its last layer, and how does it grow with the number of products?
#
# <details><summary>Solution</summary>
#
# The share is told above. The last layer has a weight for each pair of a unit and a product, and a bias for each product: it grows with
# the number of products, and the rest does not.
#
# ```python
# last = network.layers[-1].count_params()
# assert last == (int(hidden.split(",")[-1]) + 1) * len(product_ids)
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
# some = dense.recommend(network, vectors, *settings)(valid[:50])
# shares = np.exp(some - some.max(axis=1, keepdims=True))
# shares /= shares.sum(axis=1, keepdims=True)
# assert (ranking.ranks(some, valid.target[:50]) <= ranking.ranks(shares, valid.target[:50])).all()
# assert (np.argmax(some, axis=1) == np.argmax(shares, axis=1)).all()
# ```
#
# </details>
#
# 3. Is it more than a list of what is popular? Count the products that the dense network puts first for anybody.
#
# <details><summary>Solution</summary>
#
# It is, if more than one product stands first for somebody.
#
# ```python
# first_place, _ = ranking.top_k(dense.recommend(network, vectors, *settings)(valid[:500]), 1)
# assert len(np.unique(first_place)) > 1
# ```
#
# </details>

# %% [markdown]
# ## Takeaways

# %%
exhibits.takeaways([
    f"MRR@20 of the valid users: the dense network {kept['valid_mrr@20']:.1%}, the tied recommender {tied_kept['valid_mrr@20']:.1%}, the "
    f"ranker over {len(sources)} sources {mrr['ranked']:.1%}.",
    f"Recommendations of {palette.label_of(leaves)} for {len(everybody):,} users leave the pipeline.",
])  # fmt: skip
