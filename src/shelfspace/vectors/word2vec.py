"""Skip-gram word2vec with negative sampling, trained by gensim: the well-known trainer, to compare `shelfspace.vectors.skipgram` with.

Mikolov et al. 2013, "Distributed Representations of Words and Phrases and their Compositionality", section 2.2.
"""

from __future__ import annotations

import numpy as np
from gensim.models import Word2Vec
from gensim.models.callbacks import CallbackAny2Vec
from tqdm import tqdm

from shelfspace.sequences.arrays import Corpus, passes
from shelfspace.vectors.embeddings import Embeddings
from shelfspace.vectors.skipgram import VISITS


class _EveryEpoch(CallbackAny2Vec):
    """Show progress, and keep gensim's running loss as a mean per visit of each epoch."""

    def __init__(self, epochs: int, visits: int, progress: bool):
        self.bar = tqdm(total=epochs, desc="word2vec", unit="epoch", disable=not progress)
        self.visits = visits
        self.losses: list[float] = []

    def on_epoch_begin(self, model):
        model.running_training_loss = 0.0  # gensim adds up in float32 for ever: start every epoch afresh

    def on_epoch_end(self, model):
        self.losses.append(float(model.get_latest_training_loss()) / self.visits)
        self.bar.update()
        self.bar.set_postfix(loss=f"{self.losses[-1]:.3f}")

    def on_train_end(self, model):
        self.bar.close()


def train(
    corpus: Corpus,
    *,
    dim: int = 50,
    window: int = 5,
    negatives: int = 20,
    ns_exponent: float = 0.5,
    subsample: float = 0.0,
    epochs: int = 0,
    learning_rate: float = 0.1,
    min_count: int = 1,
    seed: int = 0,
    progress: bool = True,
) -> Embeddings:
    """Train skip-gram word2vec with negative sampling.

    Parameters
    ----------
    corpus : Corpus
        The training sequences (`shelfspace.sequences.arrays.corpus`).
    dim, window, negatives, ns_exponent, subsample, epochs, learning_rate, seed, progress
        As in `shelfspace.vectors.skipgram.train`.
    min_count : int
        Products with fewer visits get no embedding.

    Returns
    -------
    Embeddings
        The input vectors of the products in the corpus.

    Raises
    ------
    ValueError
        If the corpus is empty or `min_count` leaves no product.
    """
    counts = np.bincount(corpus.items, minlength=len(corpus.product_ids))
    if not (counts >= min_count).any():
        raise ValueError(f"No product has {min_count} training visits; lower min_count or give a longer log.")
    epochs = epochs or passes(len(corpus.items), VISITS)
    watch = _EveryEpoch(epochs, len(corpus.items), progress)
    model = Word2Vec(
        vector_size=dim, window=window, negative=negatives, ns_exponent=ns_exponent, sample=subsample, alpha=learning_rate,
        min_count=min_count, sg=1, seed=seed, workers=1,
    )  # fmt: skip
    model.build_vocab(corpus)
    model.train(
        corpus,
        total_examples=len(corpus),
        total_words=len(corpus.items),
        epochs=epochs,
        compute_loss=True,
        callbacks=[watch],
    )
    product_ids = corpus.product_ids[counts >= min_count]
    return Embeddings(product_ids, model.wv[product_ids.tolist()], tuple(watch.losses))
