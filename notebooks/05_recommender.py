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
# - build a second one that keeps the article's idea and learns all of it: the embeddings, the decay, the weights;
# - read the decay that it learned beside the truth;
# - let several models name candidates, and train a ranker that puts these in order;
# - write twenty recommendations for every user.

# %% tags=["parameters"]
run_dir = "reports/default"  # folder that this run writes to
hidden = "128"  # units of each Dense layer, as "128" or "256, 128"; whole numbers, each from 1 to 16384
dropout = 0.3  # share of units left out at random while training; 0 or more and below 1
prefixes = 1000  # also learn from so many of each user's last history visits; 0: from the target alone, as in the article; from 0 to 10000
epochs = 20  # passes of the dense network at most; from 1 to 10000
batch = 1024  # examples per step of the dense network; from 1 to 1000000
learning_rate = 0.004  # Adam's step size in the dense network; above 0 and at most 10
distribute = ""  # who shares the dense network's training: GPUs, or the machines of TF_CONFIG; one of: , mirrored, workers
examples = 400000  # examples that a pass of either network takes at most, drawn anew each time; from 1 to 1000000000
patience = 1  # passes of the dense network without a gain on the valid users before stopping; from 0 to 10000
model = "best"  # whose recommendations leave the pipeline; best: of ranked and tied, by the valid users; one of: best, ranked, tied, dense
seen = True  # whether products that a user saw already may be recommended
explained = 200  # users whose recommendations leave with the parts of their scores, in explanations.parquet; from 0 to 2000
new_places = 0  # places of each twenty that are kept for products that nobody clicked, where products have information; from 0 to 19
tied_epochs = 0  # passes of the tied recommender; 0: by the size of the log; from 0 to 10000
tied_recency = 0.0  # how much more often recent examples train it; about 3 where tastes drift and the test comes last; from 0 to 100
tied_dropout = 0.4  # share of the numbers of a history's embeddings left out at random while training; 0 or more and below 1
rank_examples = 20000  # targets of train users kept back for the ranker, at most; the tied recommender has the others; from 1 to 1000000
rank_top = 40  # candidates that each source of the ranker names; from 1 to 1000
seed = 0  # of everything random; from 0 to 4294967295

# %% [markdown]
# The embedding and the decay are those that the chapter before chose.

# %%
import numpy as np
import pandas as pd

from shelfspace.files import run_files
from shelfspace.measure import evaluation, ranking
from shelfspace.models import baselines, dense, factors, newcomers, ranked, recommendations, retrieval, tied, training, transitions, users
from shelfspace.page import charts, exhibits, palette, result_charts
from shelfspace.sequences import arrays, prepare
from shelfspace.vectors import embeddings

palette.theme()
run = run_files.run_folder(run_dir)
products = pd.read_parquet(run / "products.parquet")
product_ids = products.product_id.to_numpy().astype(str)
table = arrays.load(run / "sequences.parquet")
choice = run_files.read_json(run / "decay.json")
vectors, known = embeddings.align(embeddings.load(run / "product_embeddings" / f"{choice['embedding']}.parquet"), product_ids)

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
exhibits.table(by_hand, caption="Three examples from phone A, phone B, case A, desk and the target chair, with prefixes = 2.")

# %% [markdown]
# The same of all train users; the valid users are asked for their targets alone, as a recommender would be.

# %%
train = arrays.examples(table, product_ids, "train", prefixes=prefixes)
valid = arrays.examples(table, product_ids, "valid")
settings = (choice["decay"], choice["decay_time"], known)
train_users, valid_users = (users.user_embeddings(part, vectors, *settings) for part in (train, valid))
exhibits.note(
    f"{len(train):,} examples train and {len(valid):,} validate; the input is the "
    f"{palette.label_of(choice['embedding'])} user embedding with d = {choice['decay']:g}."
)

# %% [markdown]
# ## The article's network
#
# $$\mathrm{scores} = W\,\mathrm{BatchNorm}(\mathrm{Dropout}(\mathrm{ReLU}(A\,u + a))) + b$$
#
# where $u$ is the user embedding, freed of its mean and scale, and a softmax over the $M$ products turns scores into
# probabilities. The loss is the cross-entropy of the product that came. The bias $b$ learns how popular each product
# is, the rest what follows from a taste. A catalogue of more than four thousand products is trained on a sample of it at
# each step, with the sum over the rest estimated from those drawn. With `distribute`, several GPUs or machines each take
# a share of every batch.

# %%
training.deterministic(seed)
shared = training.strategy(distribute)
units = [int(size) for size in str(hidden).split(",")]
network = dense.dense(train_users, len(product_ids), hidden=units, dropout=dropout)
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

# %% [markdown]
# After each pass the valid users judge. When they stop gaining, the training stops, and the weights of the best pass are kept.

# %%
history = dense.train(
    network, train_users, train.target, valid_users, valid.target, epochs=epochs, batch=batch, learning_rate=learning_rate,
    patience=patience, examples=examples, seed=seed, shared=shared,
)  # fmt: skip
with run_files.atomic(run / "recommender_dense.keras") as temporary:
    network.save(temporary)

# %% [markdown]
# The loss of the users it trains on can always be pushed down; look at where that of the valid users turns.

# %%
kept = max(history, key=lambda epoch: epoch["valid_mrr@20"])
exhibits.show(
    result_charts.learning_curve(history),
    caption=f"The weights of epoch {history.index(kept) + 1} are kept, where MRR@20 of the valid users is highest "
    f"({kept['valid_mrr@20']:.1%}).",
    alt="Two panels: training and validation loss per epoch, and MRR@20 of the valid users per epoch.",
)

# %% [markdown]
# ## The same idea, learned
#
# In the article's chain each link is fixed before the next is trained: the embeddings by their context, the decay by a
# sweep, and only then the network, which has to learn a second vector for every product, on the way out. The *tied*
# recommender keeps the decayed average and lets the targets teach all of it at once:
#
# $$w_i = \mathrm{softmax}_i(-d\,t_i + b_{e_i} + a^\top \sigma(A v_i + B v_{\mathrm{last}} + P_i)) \qquad u = \sum_i w_i\, v_i$$
#
# $$q = u + W_2\,\mathrm{ReLU}(W_1 [u, v_{\mathrm{last}}] + c)$$
#
# $$\mathrm{score}_j = \frac{\cos(q, v_j)}{T} + \beta_j + \rho_j + \sum_{k=1}^{2} \alpha_k \log(1 + \kappa_k\, n_k(\cdot \to j)) + \log(1 + 30\, s_j)$$
#
# - $v$ starts at the pre-trained embeddings and keeps learning; the same table is used to average and to score.
# - $d$ is the decay and $b_e$ the weight of a kind of event; both are learned. The last term of $w_i$ is attention: which
#   visit matters may depend on the newest product and on the visit's place.
# - $\beta_j$ is popularity; $\rho_j$ is a bonus for what the user saw before, learned from how many visits ago that was and
#   what came of it (what lies in the cart is still wanted), from the user's habits so far (who went back to products before,
#   goes back again), and from how popular the product is.
# - $n_1(a \to j)$ is how often $j$ came right after $a$, $n_2$ how often two visits after. A cosine is symmetric: it
#   cannot say that the case follows the phone but not the phone the case. The counts leave out what the user's own sequence
#   added to them, in training as in use: otherwise the model would learn to trust a count that holds its own target, and
#   would then put first what nobody but the user did.
# - $s_j = \sum_i \tilde w_i\, n(p_i, j) / \sqrt{n(p_i)\, n(j)}$ is the co-occurrence baseline, where $n(a, b)$ is how many
#   sequences hold both and $\tilde w$ are the weights of a plain decay: rare products are known better by whom they were seen
#   with than by a vector. Its weight is fixed: if trained, it would grow too large, as counts fit the sequences that they were
#   counted in better than later ones.
#
# By hand, the counts of two sequences, and what is left of them for an example of the first:

# %%
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
# Some of the train users' targets are kept back: a ranker further down learns from them when to believe this recommender, and
# would believe it too much if it had seen them.

# %%
asked = arrays.examples(table, product_ids, "train")  # the train users' targets
asked = asked if len(asked) else arrays.examples(table, product_ids, "train", prefixes=1)  # of a tiny log
owner = np.unique(asked.user_ids, return_inverse=True)[1]
drawn = np.random.default_rng(seed).permutation(len(asked))[owner]  # a place in the queue for each of the users
asked = asked[np.sort(np.argsort(drawn, kind="stable")[:rank_examples])]
rest = train[~np.isin(train.end, asked.end)]

# %% [markdown]
# It starts from the embeddings, and from what was counted in all that may train.

# %%
training.deterministic(seed)
corpus = arrays.corpus(table, targets=True)
learned = tied.start(vectors, known, corpus, product_ids, decay_time="days", seed=seed)
tied_history = tied.train(
    learned, rest, valid, epochs=tied_epochs, dropout=tied_dropout, chances=tied.recency(rest, tied_recency), limit=examples,
    seed=seed,
)  # fmt: skip
with run_files.atomic(run / "recommender_tied.keras") as temporary:
    learned.save(temporary)

# %% [markdown]
# Its curve beside that of the dense network; what both can be compared by is the MRR@20 of the valid users.

# %%
tied_kept = max(tied_history, key=lambda epoch: epoch["valid_mrr@20"])
exhibits.show(
    result_charts.learning_curve(tied_history),
    caption=f"The tied recommender, whose weights of epoch {tied_history.index(tied_kept) + 1} are kept: MRR@20 of the valid users is "
    f"{tied_kept['valid_mrr@20']:.1%}, against {kept['valid_mrr@20']:.1%} of the dense network.",
    alt="Two panels: training and validation loss per epoch, and MRR@20 of the valid users per epoch.",
)

# %% [markdown]
# ## What it learned
#
# A dense network keeps its reasons to itself. Here some can be read: how fast interest fades, and what a visit that led
# to the cart weighs beside one that did not. (The attention weighs visits too, so this is the fading that is left when
# it had its say.)

# %%
found = learned.findings()
events = [prepare.EVENT_LEVELS[code] for code in np.unique(train.events)]
rows = {"half-life of a visit, in days": found["half_life"]}
rows |= {f"weight of a visit with {name}": found["event_weights"][name] for name in events}
rows |= {f"odds that the next product is one with {name}": found["repeat_odds"][name] for name in events}
rows |= {f"α of {k} visit{'s' * (k > 1)} later": a for k, a in zip(transitions.STEPS, found["link_weight"])}
exhibits.table(
    pd.DataFrame({"learned": rows.keys(), "value": rows.values()}),
    formats={"value": ".3g"},
    caption=f"Read from the tied recommender's {learned.count_params():,} weights. A view weighs 1, and odds are relative to "
    "those of a product seen as long ago that was only viewed.",
)

# %% [markdown]
# In the simulated shop we know how fast interest truly fades:

# %%
truth = run / "shop" / "truth_users.parquet"
if truth.exists():
    true = np.log(2) / pd.read_parquet(truth).decay
    exhibits.note(
        f"The simulated users forget with half-lives between {true.quantile(0.1):.1f} and {true.quantile(0.9):.1f} days "
        f"(10th and 90th percentile), {true.median():.1f} in the middle; learned was one of {found['half_life']:.1f} days."
    )
else:
    exhibits.note("There is no true half-life to compare with; the simulated shop (`data=shop`) has one.")

# %% [markdown]
# ## Retrieve, then rank
#
# Each of these models knows something that the others do not. Large shops put them together in two steps. *Retrieve*: every
# source names its first products, which makes a few hundred candidates of many thousands. *Rank*: a ranker looks closely at
# each candidate $j$, at what every source says of it, and at what none of them can say: how it stands to the history in
# category, brand and price, what became of it in the cart, and what kind of customer asks. It adds up many small decision
# trees,
#
# $$\mathrm{score}(u, j) = \sum_{m} \mathrm{tree}_m(\mathrm{features}(u, j))$$
#
# each grown to mend the order that those before it gave (LambdaRank: a pair of products in the wrong order counts by what
# swapping them would gain). What does each source bring by itself?

# %%
aligned = {
    name: embeddings.align(embeddings.load(run / "product_embeddings" / f"{name}.parquet"), product_ids)
    for name in ("word2vec", "starspace")
}
sources = retrieval.sources(tied.recommend(learned), corpus, product_ids, aligned, choice["best"], factors.ease(corpus, product_ids))
facts = retrieval.facts(corpus, products, vectors)
few = valid.sample(5000, seed)
product, offsets, _ = ranked.look(sources, facts, few, rank_top)

# %% [markdown]
# A source can be worth having though it is poor by itself, if it names targets that the others do not.

# %%
row = np.repeat(np.arange(len(few)), np.diff(offsets))
among = np.bincount(row, product == few.target[row], minlength=len(few)) > 0
alone = {name: evaluation.evaluate(source, few) for name, source in sources.items()}
exhibits.table(
    pd.DataFrame({
        "source": [palette.label_of(name) for name in alone],
        "names the target": [np.mean(each.ranks <= rank_top) for each in alone.values()],
        "names a new target": [np.mean(each.ranks[~few.seen()] <= rank_top) for each in alone.values()],
        "MRR@20 by itself": [ranking.reciprocal_rank(each.ranks, 20).mean() for each in alone.values()],
    }),
    formats={"names the target": ".1%", "names a new target": ".1%", "MRR@20 by itself": ".1%"},
    caption=f"What each source brings with its first {rank_top} products for {len(few):,} targets of valid users. Together they name "
    f"{among.mean():.1%} of them, and {among[~few.seen()].mean():.1%} of the new ones, with {len(product) / len(few):.0f} candidates each.",
)  # fmt: skip

# %% [markdown]
# The ranker learns from the targets that were kept back. Each is asked for twice: among all candidates and, where it was new to
# the user, among the new ones. So the same ranker serves a list of new products alone. On a small log the valid users stop it
# after a few trees, which leave many candidates equal; these stand in the order of the first source, the tied recommender.

# %%
ranker = ranked.train(sources, facts, asked, valid, top=rank_top, seed=seed)
with run_files.atomic(run / "recommender_ranked.txt") as temporary:
    ranked.save(ranker, temporary)

# %% [markdown]
# What did it find worth looking at? Each split of a tree improves the order by something, which is put to what it looked at:

# %%
gain = pd.Series(ranker.trees.feature_importance("gain"), ranker.trees.feature_name())
share = gain.groupby(lambda name: name.partition("/")[0], sort=False).sum().sort_values(ascending=False) / max(gain.sum(), 1e-12)
exhibits.table(
    pd.DataFrame({"what it looks at": [palette.label_of(name) for name in share.index], "share": share.to_numpy()}),
    formats={"share": ".1%"},
    caption=f"What the ranker's {ranker.trees.num_trees()} trees go by: each group's share of all that their splits gained.",
)

# %% [markdown]
# The valid users choose whose recommendations leave the pipeline.

# %%
final = {"ranked": ranked.recommend(ranker), "tied": tied.recommend(learned), "dense": dense.recommend(network, vectors, *settings)}
on_valid = {name: evaluation.evaluate(each, valid) for name, each in final.items()}
mrr = {name: ranking.reciprocal_rank(each.ranks, 20).mean() for name, each in on_valid.items()}
leaves = max(("ranked", "tied"), key=mrr.get) if model == "best" else model

# %% [markdown]
# ## Twenty products for everybody
#
# What leaves the pipeline is a table: user, rank, product, score. Here it is written for every user, from all that
# came before the user's last target, by the recommender that `model` names.
#
# None of them knows a product that nobody clicked. Where the log tells what products are, such a one can be placed by the
# products most like it (chapter 7). With `new_places`, the last places of each list are kept for the new products that lie nearest to the
# user. It costs what would have stood there: how often to show what nobody knows yet is for the shop to decide, not for
# clicks to tell.

# %%
everybody = arrays.latest(table, product_ids)
clicked = baselines.visit_counts(corpus, product_ids) > 0
unclicked = newcomers.model(products, *aligned["word2vec"], clicked, **choice["best"]["word2vec_user"]) if new_places else None
scores_of = newcomers.keep_places(final[leaves], unclicked, new_places)
recommendations.write_recommendations(scores_of, everybody, product_ids, run / "recommendations.parquet", seen=seen)
with run_files.atomic(run / "recommender.keras") as temporary:
    (network if leaves == "dense" else learned).save(temporary)
run_files.write_json(
    run / "recommender.json",
    {"model": leaves, "top": rank_top, "new_places": new_places, "valid_mrr@20": {name: float(each) for name, each in mrr.items()}},
)

# %% [markdown]
# One user's list, beside what the user had seen:

# %%
example = valid[np.flatnonzero(valid.lengths <= 8)[:1]] if (valid.lengths <= 8).any() else valid[:1]
labels = charts.product_labels(products)
top, scores = ranking.top_k(scores_of(example), 5)
saw = [labels[i] for i in example.items[example.start[0] : example.end[0]][-5:]]
shown = pd.DataFrame({"saw (newest last)": pd.Series(saw), "recommended": pd.Series([labels[i] for i in top[0]])}).fillna("")
exhibits.table(
    shown,
    caption=f"A valid user: the last {len(saw)} products seen, and the first five recommended. What came next was: "
    f"{labels[example.target[0]]}.",
)

# %% [markdown]
# Why these? Each tree adds something to a product's score because of what it looked at, and what a group of features adds can be told
# exactly (SHAP values of trees, Lundberg et al., 2020): the parts sum to the score.

# %%
first_five = ranking.top_k(final["ranked"](example), 5)[0][0]
parts = ranked.explain(ranker, example, np.zeros(len(first_five), int), first_five)
parts = parts.loc[:, (parts != 0).any()].rename(columns=palette.label_of, index=lambda place: str(place + 1)).T
exhibits.table(
    parts.rename_axis("what adds to it").reset_index(),
    formats=dict.fromkeys(parts.columns, ".2f"),
    caption="The ranker's first five for the same user, and what their scores are made of. "
    + "; ".join(f"{place}: {labels[i]}" for place, i in enumerate(first_five, 1)) + ".",
)  # fmt: skip

# %% [markdown]
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
#   each, nor found by counts; `new_places` keeps places for them.
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
# ```python
# first_place, _ = ranking.top_k(dense.recommend(network, vectors, *settings)(valid[:500]), 1)
# print(f"{len(np.unique(first_place))} products for {len(first_place)} users")
# assert len(np.unique(first_place)) > 1
# ```
#
# </details>

# %% [markdown]
# ## Takeaways

# %%
exhibits.takeaways([
    f"The dense network stopped after {len(history)} epochs; most of its {network.count_params():,} weights belong to the "
    "softmax, so its cost grows with the number of products.",
    f"The tied recommender scores against the table it averages. On the valid users its MRR@20 is "
    f"{tied_kept['valid_mrr@20']:.1%}, the dense network's {kept['valid_mrr@20']:.1%}.",
    f"The half-life it learned is {found['half_life']:.1f} days.",
    f"The ranker over {len(sources)} sources reaches {mrr['ranked']:.1%}.",
    f"Recommendations of {palette.label_of(leaves)} for {len(everybody):,} users are in recommendations.parquet.",
])  # fmt: skip
