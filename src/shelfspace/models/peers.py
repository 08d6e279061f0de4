"""Peers: two networks of the literature that a reader would ask for, small and carefully trained.

GRU4Rec (Hidasi et al. 2016) reads a history with a gated recurrent unit, SASRec (Kang & McAuley 2018) with self-attention.
Both look a product up in one table of embeddings, make one vector of a history, and score product j with the same table,

    score_j = h . v_j + bias_j

They know the order of the visits alone: neither their times nor what came of them. Both learn at every visit of a sequence at
once, by cross-entropy over all products, or over a sample of a large catalogue (`shelfspace.models.training.sample`): either gained
more by that than by anything else since (Hidasi & Czapp 2023; Klenitskiy & Vasilev 2023).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
from tqdm import tqdm

from shelfspace.measure.evaluation import evaluate
from shelfspace.measure.ranking import Model, reciprocal_rank
from shelfspace.models.losses import cross_entropy
from shelfspace.models.training import deterministic, keras, sample, tf
from shelfspace.sequences.arrays import Corpus, Examples

PEERS = ("gru4rec", "sasrec")
DROPOUTS = (0.2, 0.5)  # that are tried
VISITS = 50  # newest visits of a history that count
BLOCKS = 2  # of self-attention


def network(kind: str, n_products: int, dim: int, dropout: float) -> keras.Model:
    """From products, shape (n, length), to the vector after each of them, float32, shape (n, length, dim).

    No vector depends on what comes later, so that what stands behind the end of a sequence does not matter. The weights
    "table/embeddings", shape (n_products, dim), are the first of them.

    Parameters
    ----------
    kind : {"gru4rec", "sasrec"}
    n_products, dim : int
    dropout : float
        Share of the numbers of each layer left out at random while training.

    Raises
    ------
    ValueError
        If there is no such peer.
    """
    if kind not in PEERS:
        raise ValueError(f"There is no peer {kind!r}; it must be one of {', '.join(PEERS)}.")
    layers, small = keras.layers, keras.initializers.RandomNormal(stddev=0.02)
    items = keras.Input((None,), dtype="int32")
    x = layers.Embedding(n_products, dim, embeddings_initializer=small, name="table")(items)
    if kind == "gru4rec":
        x = layers.GRU(dim, return_sequences=True)(layers.Dropout(dropout)(x))
        return keras.Model(items, layers.Dense(dim)(layers.Dropout(dropout)(x)), name=kind)
    place = keras.ops.cumsum(keras.ops.ones_like(items), axis=1) - 1
    x = x + layers.Embedding(VISITS, dim, embeddings_initializer=small, name="place")(place)
    x = layers.Dropout(dropout)(x)
    for _ in range(BLOCKS):
        calm = layers.LayerNormalization()(x)
        x = x + layers.MultiHeadAttention(1, dim, dropout=dropout)(calm, calm, use_causal_mask=True)
        calm = layers.LayerNormalization()(x)
        x = x + layers.Dropout(dropout)(layers.Dense(dim)(layers.Dense(dim, activation="relu")(calm)))
    return keras.Model(items, layers.LayerNormalization()(x), name=kind)


def pieces(corpus: Corpus, product_ids: np.ndarray) -> list[np.ndarray]:
    """The sequences, cut from their ends into pieces of at most `VISITS` + 1 visits; the last of one begins the next."""
    items, found = corpus.places(product_ids).astype(np.int32), []
    for start, end in zip(corpus.offsets[:-1], corpus.offsets[1:]):
        while end - start > 1:
            found.append(items[max(start, end - VISITS - 1) : end])
            end -= VISITS
    return found


def train(
    kind: str,
    corpus: Corpus,
    product_ids: np.ndarray,
    valid: Examples | None = None,
    *,
    dim: int = 100,
    dropout: float = 0.3,
    epochs: int = 30,
    patience: int = 2,
    batch: int = 128,
    learning_rate: float = 0.002,
    negatives: int = 2048,
    full_below: int = 4096,
    seed: int = 0,
    progress: bool = True,
) -> tuple[Model, int]:
    """Fit a peer with Adam, and keep the pass with the best MRR@20 of the valid examples.

    Parameters
    ----------
    kind : {"gru4rec", "sasrec"}
    corpus : Corpus
        What may train (`shelfspace.sequences.arrays.corpus` with targets).
    product_ids : ndarray of str, shape (n_products,)
        The product table, sorted.
    valid : Examples, optional
        Without them, all passes are made and the last one is kept.
    dim, dropout
        See `network`.
    epochs, patience : int
        Passes at most, and passes without a gain before stopping.
    batch : int
        Pieces of sequences at each step, of much the same length.
    learning_rate : float
    negatives, full_below : int
        See `shelfspace.models.tied_training.train`.
    seed : int
        Of everything random.
    progress : bool
        Show a progress bar.

    Returns
    -------
    model : Model
    kept : int
        The pass that was kept, from 1.

    Raises
    ------
    ValueError
        If there is no such peer, or no sequence of two products.
    """
    n_products, rng = len(product_ids), np.random.default_rng(seed)
    parts = pieces(corpus, product_ids)
    if not parts:
        raise ValueError("No sequence has two products, so there is nothing to learn; give a longer log.")
    lengths = np.array([len(part) for part in parts])
    deterministic(seed)
    body = network(kind, n_products, dim, dropout)
    table, bias = body.get_layer("table").embeddings, keras.Variable(np.zeros(n_products, np.float32), name="bias")
    weights = [*body.trainable_variables, bias]
    optimizer = keras.optimizers.Adam(learning_rate)
    optimizer.build(weights)

    @tf.function(reduce_retracing=True)
    def step(items, at, products, correction, target):
        with tf.GradientTape() as tape:
            h = tf.gather_nd(body(items, training=True), at)
            logits = tf.matmul(h, tf.gather(table.value, products), transpose_b=True) + tf.gather(bias.value, products) + correction
            loss = tf.reduce_mean(cross_entropy(logits, target))
        gradients = tape.gradient(loss, [weight.value for weight in weights])
        optimizer.apply([tf.convert_to_tensor(gradient) for gradient in gradients], weights)
        return loss

    model, best, kept, state = _recommend(body, bias), -1.0, epochs, None
    with tqdm(total=epochs, desc=kind, unit="epoch", disable=not progress) as bar:
        for epoch in range(1, epochs + 1):
            order = np.lexsort((rng.random(len(parts)), lengths))  # alike in length, otherwise by chance
            chunks = [order[first : first + batch] for first in range(0, len(order), batch)]
            losses = []
            for chunk in (chunks[i] for i in rng.permutation(len(chunks))):
                items = _pad([parts[i][:-1] for i in chunk])
                targets = np.concatenate([parts[i][1:] for i in chunk])
                size = lengths[chunk] - 1
                row = np.repeat(np.arange(len(chunk)), size)
                at = np.stack([row, np.arange(len(row)) - np.repeat(np.cumsum(size) - size, size)], axis=1)
                wanted, place = np.unique(targets, return_inverse=True)
                products, correction = sample(wanted, n_products, negatives if n_products > full_below else n_products, rng)
                losses.append(step(*(tf.constant(x) for x in (items, at, products, correction, place))))
            bar.update()
            bar.set_postfix(loss=f"{np.mean(losses):.3f}")
            if valid is None:
                continue
            mrr = reciprocal_rank(evaluate(model, valid).ranks, 20).mean()
            bar.set_postfix(loss=f"{np.mean(losses):.3f}", valid_mrr=f"{mrr:.4f}")
            if mrr > best:
                best, kept, state = mrr, epoch, [weight.numpy() for weight in weights]
            elif epoch - kept >= patience:
                break
    for weight, value in zip(weights, state or []):
        weight.assign(value)
    return model, kept


def maker(kind: str, *given, **settings) -> Callable[[float], Model]:
    """Trains a peer for a dropout, once for each, as `shelfspace.measure.evaluation.sweep` asks for it; the rest is as for `train`."""
    return cache(lambda dropout: train(kind, *given, dropout=dropout, **settings)[0])


def _pad(rows: list[np.ndarray]) -> np.ndarray:
    """Rows side by side, behind their ends product 0, which no vector before it sees; int32, shape (n, longest)."""
    items = np.zeros((len(rows), max(map(len, rows))), np.int32)
    for row, values in enumerate(rows):
        items[row, : len(values)] = values
    return items


def _recommend(body: keras.Model, bias: keras.Variable) -> Model:
    """The network, as it is when it is asked, as a `shelfspace.measure.ranking.Model`."""

    @tf.function(input_signature=[tf.TensorSpec((None, None), tf.int32), tf.TensorSpec((None,), tf.int32)])
    def score(items, last):
        h = tf.gather(body(items, training=False), last, batch_dims=1)
        return tf.matmul(h, body.get_layer("table").embeddings.value, transpose_b=True) + bias.value

    def scores(examples: Examples) -> np.ndarray:
        starts = np.maximum(examples.start, examples.end - VISITS)
        rows = [examples.items[start:end] for start, end in zip(starts, examples.end)]
        return score(_pad(rows), (examples.end - starts - 1).astype(np.int32)).numpy()

    return scores
