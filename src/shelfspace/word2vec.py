"""Product embeddings by word2vec: skip-gram with negative sampling over shopping sequences, trained by gensim.

Mikolov et al. 2013, "Distributed Representations of Words and Phrases and their Compositionality", section 2.2. What
suits text need not suit a shop (Caselles-Dupré, Lesaint & Royo-Letelier, RecSys 2018, "Word2vec applied to
Recommendation: Hyperparameters Matter"): small logs want many more epochs, a larger step
and more negatives (benchmarks/README.md tells the search that chose the defaults).
"""

from __future__ import annotations

import numpy as np
from gensim.models import Word2Vec
from gensim.models.callbacks import CallbackAny2Vec
from tqdm import tqdm

from shelfspace.embeddings import Embeddings
from shelfspace.sequences import Corpus, passes

VISITS = 4_000_000  # trained on in all, when the number of epochs is left to the size of the log


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
        The training sequences (`shelfspace.sequences.corpus`).
    dim : int
        Length of the vectors.
    window : int
        Products up to this many places before and after are context.
    negatives : int
        Noise products drawn for each (product, context) pair.
    ns_exponent : float
        Noise products are drawn in proportion to count ** ns_exponent: 1 as often as they occur, 0 uniformly, below
        0 rare ones more often.
    subsample : float
        Occurrences of products with a share of all visits above about this value are thinned out; 0 keeps all.
    epochs : int
        Passes over the corpus; 0 chooses them by its size, for about four million visits in all (3 to 100 passes):
        small logs need many.
    learning_rate : float
        Step size of the gradient descent at the start; falls linearly to nearly 0.
    min_count : int
        Products with fewer visits get no embedding.
    seed : int
        One thread and one seed: the same bytes in every process.
    progress : bool
        Show a progress bar.

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
