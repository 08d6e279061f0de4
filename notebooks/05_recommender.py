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
# - read the decay that it learned beside the truth, and measure what each of its terms is worth;
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
from scipy.special import expit, softmax

from shelfspace.files import run_files
from shelfspace.measure import evaluation, intervals, ranking
from shelfspace.models import baselines, dense, factors, newcomers, ranked, recommendations, retrieval, tied, tied_training, training, users
from shelfspace.models.transitions import STEPS
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

# %% [markdown]
# Each history becomes the user embedding of chapter 4.

# %%
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

# %% [markdown]
# Where do its weights sit?

# %%
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
# recommender keeps the decayed average and lets the targets teach all of it at once. Here it is a term at a time, for a customer
# who saw three of a shop's four products. Two numbers embed a product: how much it is like electronics, and like furniture.

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
# **Attention.** Which visit matters may also depend on its product, on the newest product, and on the visit's place $P_i$:
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
# $W_2$ starts at zero, so training starts from the average. Here a unit fires for who liked electronics but saw furniture last, and
# turns $q$ away from electronics.

# %%
unit = max(u[0] + v[2, 1] - 1, 0)
q = u + unit * np.array([-0.8, 0])
exhibits.note(f"The average ({u[0]:.2f}, {u[1]:.2f}) becomes the query ({q[0]:.2f}, {q[1]:.2f}).")

# %% [markdown]
# **Cosine and popularity.** The same table $v$ scores; it starts at the pre-trained embeddings and keeps learning. The temperature $T$
# sets how much the cosine counts beside the bias $\beta_j$, which is popularity:
#
# $$\cos(q, v_j) / T + \beta_j$$

# %%
cosine = v @ q / np.linalg.norm(v, axis=1) / np.linalg.norm(q)
terms = pd.DataFrame({"cosine": cosine / 0.1, "popularity": 0.3 * np.log1p([100, 60, 20, 10])}, index=pd.Index(goods, name="product"))

# %% [markdown]
# **Seen before.** A product seen $i$ visits ago, with event $e_i$, has a bonus:
#
# $$\rho_j = r_i + s_{e_i} + o^\top \mathrm{ReLU}(H [h, \beta_j, \beta_{\mathrm{last}}] + g)$$
#
# What lies in the cart is still wanted ($s$). The last part, zero here, learns from the user's habits $h$ (who went back before, goes
# back again) and from popularity.

# %%
terms["seen before"] = [0.1, 0.4 + 1.0, -1.0, 0.0]  # r_2; r_1 and the cart; r_0; the desk is new

# %% [markdown]
# **What follows what.** A cosine is symmetric: it cannot say that the case follows the phone but not the phone the case. Counts can.
# $n_k(p_{-k} \to j)$ is how often $j$ came $k$ visits after the customer's $k$-th newest product (here $\alpha = 0.5$, $\kappa = 1$):
#
# $$\sum_{k=1}^{2} \alpha_k \log(1 + \kappa_k\, n_k(p_{-k} \to j))$$

# %%
after_chair, two_after_case = np.array([0, 0, 0, 3]), np.array([0, 0, 1, 1])
terms["what follows what"] = 0.5 * np.log1p(after_chair) + 0.5 * np.log1p(two_after_case)

# %% [markdown]
# The counts leave out the user's own sequence: else the model would learn to trust a count that holds its own target. By hand:

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
# **What goes together.** Rare products are known better by what they were seen with than by a vector. With $n(a, b)$ sequences that
# hold both, and weights $\tilde w$ of a plain decay, this is the co-occurrence baseline:
#
# $$\log(1 + 30\, m_j) \qquad m_j = \sum_i \tilde w_i\, n(p_i, j) / \sqrt{n(p_i)\, n(j)}$$
#
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
    terms, formats=dict.fromkeys(terms, ".2f"), index=True, caption="What the four scores are made of. The desk is first, though it is new."
)

# %% [markdown]
# Now the real one. Some of the train users' targets are kept back: a ranker further down learns from them when to believe this
# recommender, and would believe it too much if it had seen them.

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
tied_network = tied_training.start(vectors, known, corpus, product_ids, decay_time="days", seed=seed)
tied_history = tied_training.train(
    tied_network, rest, valid, epochs=tied_epochs, dropout=tied_dropout, chances=tied_training.recency(rest, tied_recency),
    limit=examples, seed=seed,
)  # fmt: skip
with run_files.atomic(run / "recommender_tied.keras") as temporary:
    tied_network.save(temporary)

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
# it had its say.) From here on it answers from its file, without TensorFlow, as in use.

# %%
learned = tied.load(run / "recommender_tied.keras")
found = learned.findings()
events = [prepare.EVENT_LEVELS[code] for code in np.unique(train.events)]
rows = {"half-life of a visit, in days": found["half_life"]}
rows |= {f"weight of a visit with {name}": found["event_weights"][name] for name in events}
rows |= {f"odds that the next product is one with {name}": found["repeat_odds"][name] for name in events}
rows |= {f"α of {k} visit{'s' * (k > 1)} later": a for k, a in zip(STEPS, found["link_weight"])}
exhibits.table(
    pd.DataFrame({"learned": rows.keys(), "value": rows.values()}),
    formats={"value": ".3g"},
    caption=f"Read from the tied recommender's {tied_network.count_params():,} weights. A view weighs 1, and odds are relative to "
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
# The toy's lines again, with what was learned. We take a valid user with a few visits, over about five days.

# %%
labels = charts.product_labels(products)
span = valid.times[valid.end - 1] - valid.times[valid.start]
one = valid[[np.argmin(np.where((valid.lengths >= 5) & (valid.lengths <= 8), np.abs(span - 5), np.inf))]]

# %% [markdown]
# Decay and events give each visit a weight; attention adds its own.

# %%
h = tied.histories(one, learned.visits, "days")
v = learned.vectors[h.items]
logit = learned.event_bias[h.event] - learned.decay * h.age
gates = expit(v @ learned.of_visit + v[0] @ learned.of_last + learned.of_place[h.place])

# %% [markdown]
# Compare the weights before and after attention.

# %%
weights = {"decayed": softmax(logit), "with attention": softmax(logit + gates @ learned.attention)}
exhibits.table(
    pd.DataFrame({"saw": labels[h.items], "event": np.array(prepare.EVENT_LEVELS)[h.event], "age (days)": h.age} | weights),
    formats=dict.fromkeys(["age (days)", *weights], ".2f"),
    caption="The weights of a valid user's visits, newest first.",
)

# %% [markdown]
# The toy's last table, for the same user's first five products, tells why they stand there.

# %%
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
# Leave one term out of the trained model's score, and ask the valid users again. A model trained without the term could make up for
# part of it, so the table shows what this model leans on.

# %%
few = valid.sample(5000, seed)
leaving = {"nothing": []} | {what: [name] for name, what in tied.TERMS.items()}
left = {what: evaluation.evaluate(tied.recommend(learned, without), few, block=256) for what, without in leaving.items()}

# %% [markdown]
# Each row asks the same users, so the loss is paired, and so is its interval.

# %%
gained = np.stack([ranking.reciprocal_rank(each.ranks, 20) for each in left.values()], axis=1)
lost = gained[:, :1] - gained[:, 1:]
low, high = np.quantile(intervals.bootstrap(lost, few.user_ids, seed=seed), [0.025, 0.975], axis=0)
points = np.round(100 * np.stack([lost.mean(axis=0), low, high], axis=1), 1) + 0.0  # no -0.0
most = [*tied.TERMS.values()][lost.mean(axis=0).argmax()]

# %% [markdown]
# Discovery is of targets new to the user, ranked among products new to the user.

# %%
cuts = [evaluation.figures(each, few) for each in left.values()]
worth = pd.DataFrame({"left out": left.keys()})
worth["MRR@20 lost, in points"] = ["–", *(f"{mean} ({low} to {high})" for mean, low, high in points)]
for metric in ("mrr@20", "hit_rate@20"):
    for column, head in evaluation.COLUMNS.items():
        worth[f"{palette.metric_label(metric)}, {head}"] = [cut[column][metric] if cut[column] else None for cut in cuts]

# %% [markdown]
# A small loss can also mean that other terms tell much the same.

# %%
exhibits.table(
    worth,
    formats=dict.fromkeys(worth.columns[2:], ".1%"),
    caption=f"The tied recommender with one term left out, on {len(few):,} valid users, with 95 % intervals. It loses most without: {most}.",
)

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
    (network if leaves == "dense" else tied_network).save(temporary)
run_files.write_json(
    run / "recommender.json",
    {"model": leaves, "top": rank_top, "new_places": new_places, "valid_mrr@20": {name: float(each) for name, each in mrr.items()}},
)

# %% [markdown]
# One user's list, beside what the user had seen:

# %%
example = valid[np.flatnonzero(valid.lengths <= 8)[:1]] if (valid.lengths <= 8).any() else valid[:1]
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
    f"The half-life it learned is {found['half_life']:.1f} days; of its terms, leaving out this one costs most: {most}.",
    f"The ranker over {len(sources)} sources reaches {mrr['ranked']:.1%}.",
    f"Recommendations of {palette.label_of(leaves)} for {len(everybody):,} users are in recommendations.parquet.",
])  # fmt: skip
