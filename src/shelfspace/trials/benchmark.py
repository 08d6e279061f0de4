"""A published split of session recommendation through the same code as the report, to compare with published figures.

SPLIT_DIR holds ``train_sessions.parquet`` (session, items: the products of each session in order) and
``test_prefixes.parquet`` (prefix, target, maybe session_id). Training uses every prefix of every training session. A test row is
scored as it stands: all products are candidates, those of the prefix too, and a target that no training session holds stays
in, with whatever score a model has for a product that it never met. There are no times, so age is rank. Intervals are
drawn over sessions, all of whose test rows come along.

Every model has the same data, and is chosen in the same way, never on test rows: its settings, at most six, are tried on the
last 5 % of the training sessions, with everything (embeddings too) trained on those before; then it is trained anew on all training
sessions with the best. `dense` and the peers are trained for as many passes as were best there. What `tied` has is the same for all
splits, its defaults, but for `RECENCY`, which ``benchmarks/recency.py`` chose in that way. The ranker of `ranked` learns from those
last 5 %, over sources that are trained on the sessions before; then its sources are trained anew on all, and the ranker stays.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import numpy as np
import pandas as pd

from shelfspace.measure import evaluation
from shelfspace.measure.ranking import Model
from shelfspace.models import baselines, dense, factors, peers, ranked, retrieval, session_knn, tied, tied_training, training, users
from shelfspace.sequences.arrays import Corpus, Examples
from shelfspace.trials import published
from shelfspace.trials.published import Split
from shelfspace.vectors import embeddings, skipgram

DIM = 100
BY_DECAY = {"decay": (0.0, 0.1, 0.3, 0.7, 1.5, 3.0), "decay_time": ("rank",)}  # settings that are tried: six of each model
BY_STEPS = {"steps": (1, 2, 3, 4, 8, 16)}
BY_NEIGHBOURS = {"neighbours": (100, 300, 1000), "decay": (None, 0.3)}
BY_STEP_SIZE = {"learning_rate": (0.05, 0.1, 0.2)}
BY_REGRESSION = {"regularisation": (100.0, 300.0, 1000.0), "decay": (0.3, 1.0), "decay_time": ("rank",)}
RANKED = 30_000  # of their prefixes that train the ranker, at most; a fifth of the sessions says when to stop
DENSE_EPOCHS = 6  # at most
RECENCY = 0.0  # how much more often recent sessions train tied: of 0 and 2 the one with the higher mean MRR@20, see above


def makers(split: Split, seed: int = 0, progress: bool = True, shortest: int = 1) -> dict[str, Callable[[], tuple[Model, dict]]]:
    """The models by name, each as a function that trains it and gives it with the settings that were chosen.

    Parameters
    ----------
    split : Split
    seed : int
        Of everything random.
    progress : bool
        Show progress bars.
    shortest : int
        Prefixes of so many products at least train `dense` and `tied`, and so the first source of `ranked`.
    """
    ids = split.product_ids
    early, judges = split.held_out(seed)
    corpus = split.corpus()
    counts = baselines.visit_counts(corpus, ids)

    @cache
    def embedded(held_out: bool, learning_rate: float) -> tuple[np.ndarray, np.ndarray]:
        part = split.corpus(early) if held_out else corpus
        return embeddings.align(skipgram.train(part, dim=DIM, learning_rate=learning_rate, seed=seed, progress=progress), ids)

    @cache
    def step_size() -> dict:
        return best(lambda learning_rate: baselines.nearest_to_last(*embedded(True, learning_rate)), BY_STEP_SIZE)

    def vectors(held_out: bool = False) -> tuple[np.ndarray, np.ndarray]:
        return embedded(held_out, **step_size())

    def best(make: Callable[..., Model], grid: dict) -> dict:
        return evaluation.sweep({"": make}, {"": grid}, judges)[1][""]

    def tuned(make: Callable[[Corpus], Callable[..., Model]], grid: dict) -> tuple[Model, dict]:
        settings = best(make(split.corpus(early)), grid)
        return make(corpus)(**settings), settings

    @cache
    def user_decay() -> dict:
        return best(partial(baselines.nearest_to_user, *vectors(True)), BY_DECAY)

    @cache
    def cooccurrence() -> tuple[Model, dict]:
        return tuned(lambda part: partial(baselines.item_to_item, baselines.cooccurrence(part, ids)), BY_DECAY)

    @cache
    def ease() -> tuple[Model, dict]:
        return tuned(lambda part: factors.Ease(part, ids), BY_REGRESSION)

    def dense_network() -> tuple[Model, dict]:
        settings = user_decay()

        def trained(part: slice, held_out: bool, epochs: int, judged: Sequence[Examples] = ()):
            table, known = vectors(held_out)
            averaged = partial(users.user_embeddings, vectors=table, **settings, known=known)
            train = split.examples(part, shortest)
            inputs = averaged(train)
            training.deterministic(seed)
            network = dense.dense(inputs, len(ids))
            valid = [values for each in judged for values in (averaged(each), each.target)]
            history = dense.train(network, inputs, train.target, *valid, epochs=epochs, seed=seed, progress=progress)
            return dense.recommend(network, table, **settings, known=known), history

        _, history = trained(early, True, DENSE_EPOCHS, [judges])
        epochs = 1 + int(np.argmax([epoch["valid_mrr@20"] for epoch in history]))
        return trained(slice(None), False, epochs)[0], settings | {"epochs": epochs}

    @cache
    def trained_tied(held_out: bool = False) -> Model:
        return tied_on(split, early if held_out else slice(None), vectors(held_out), RECENCY, shortest, seed=seed, progress=progress)

    def with_ranker() -> tuple[Model, dict]:
        settings = {"cooccurrence": cooccurrence()[1], "ease": ease()[1], "word2vec_user": user_decay()}

        def parts(part: Corpus, held_out: bool) -> tuple[dict[str, Model], retrieval.Facts]:
            sources = retrieval.sources(
                trained_tied(held_out), part, ids, {"word2vec": vectors(held_out)}, settings, factors.Ease(part, ids)
            )
            return sources, retrieval.facts(part, pd.DataFrame({"product_id": ids}), vectors(held_out)[0])

        ranker = ranked.train(*parts(split.corpus(early), True), split.held_out(seed, RANKED)[1], seed=seed)
        sources, facts = parts(corpus, False)
        return ranked.recommend(replace(ranker, sources=sources, facts=facts)), settings

    def peer(kind: str) -> tuple[Model, dict]:
        @cache
        def trained(dropout: float) -> tuple[Model, int]:
            return peers.train(kind, split.corpus(early), ids, judges, dim=DIM, dropout=dropout, seed=seed, progress=progress)

        settings = best(lambda dropout: trained(dropout)[0], {"dropout": peers.DROPOUTS})
        settings |= {"epochs": trained(settings["dropout"])[1]}
        return peers.train(kind, corpus, ids, dim=DIM, **settings, seed=seed, progress=progress)[0], settings

    return {
        "popular": lambda: (baselines.popular(counts), {}),
        "own_products": lambda: tuned(
            lambda part: partial(baselines.own_products, baselines.visit_counts(part, ids)), BY_DECAY
        ),
        "cooccurrence": cooccurrence,
        "markov": lambda: tuned(lambda part: partial(baselines.markov, part, ids), BY_STEPS),
        "session_knn": lambda: tuned(lambda part: partial(session_knn.session_knn, part, ids), BY_NEIGHBOURS),
        "ease": ease,
        "word2vec_last": lambda: (baselines.nearest_to_last(*vectors()), step_size()),
        **{kind: partial(peer, kind) for kind in peers.PEERS},
        "dense": dense_network,
        "tied": lambda: (trained_tied(), {"recency": RECENCY}),
        "ranked": with_ranker,
    }  # fmt: skip


def tied_on(
    split: Split, sessions: slice, vectors: tuple[np.ndarray, np.ndarray], recency: float, shortest: int = 1, *,
    seed: int = 0, progress: bool = True,
) -> Model:  # fmt: skip
    """`tied` as it is trained on published splits, on some of the training sessions.

    Parameters
    ----------
    split : Split
    sessions : slice
    vectors : tuple
        Embeddings of all products, and which have one (`shelfspace.vectors.embeddings.align`).
    recency : float
        See `shelfspace.models.tied_training.recency`.
    shortest, seed, progress
        As in `makers`.
    """
    train = split.examples(sessions, shortest)
    training.deterministic(seed)
    model = tied_training.start(*vectors, split.corpus(sessions), split.product_ids, decay_time="rank", seed=seed)
    tied_training.train(model, train, chances=tied_training.recency(train, recency), seed=seed, progress=progress)
    return tied.recommend(model.learned())


def run(
    folder: str | Path,
    names: Sequence[str] = (),
    *,
    seed: int = 0,
    shortest: int = 1,
    progress: bool = True,
    say: Callable[[str], None] = lambda text: None,
) -> dict:
    """Train and measure every model on a split.

    Parameters
    ----------
    folder : str or Path
        SPLIT_DIR.
    names : sequence of str
        Models to run; all by default.
    seed : int
        Of everything random.
    shortest : int
        Prefixes of so many products at least train the networks: some papers leave out those of one. What is counted in
        sessions is the same either way, and so are the test rows.
    progress : bool
        Show progress bars.
    say : callable
        Takes one line for each model when it is done.

    Returns
    -------
    dict
        "split" (name and sizes), "seed", "shortest", and "models": for each name hit_rate@K and mrr@K (shares, with their
        "ci95" over sessions), the same of the rows whose target was in the prefix ("seen") and of the others with the products
        of the prefix left out of the candidates ("discovery"), the "settings" chosen, "train_seconds", "test_seconds" and
        "peak_mb". Seconds to train include those to choose; embeddings count for the first model that needs them.

    Raises
    ------
    ValueError
        If the folder does not fit (see `read`), a name is unknown, or no prefix is long enough.
    """
    split = published.read(folder)
    known = makers(split, seed, progress, shortest)
    for name in names:
        if name not in known:
            raise ValueError(f"There is no model {name!r}; it must be one of {', '.join(known)}.")
    train, test = split.examples(), split.test
    if not 1 <= shortest <= train.lengths.max():
        raise ValueError(
            f"shortest is {shortest}; it must be from 1 to {train.lengths.max()}, the length of the longest prefix that trains."
        )
    size = {
        "name": Path(folder).resolve().name,
        "products": len(split.product_ids),
        "train_sessions": len(split.offsets) - 1,
        "train_examples": len(train),
        "train_examples_of_two_or_more": int((train.lengths > 1).sum()),
        "test_rows": len(test),
        "test_sessions": len(np.unique(test.user_ids)),
        "test_rows_of_seen_targets": int(test.seen().sum()),
        "test_rows_of_unknown_targets": int((~np.isin(test.target, split.items)).sum()),
    }
    say(
        "{name}: {train_sessions:,} sessions, {train_examples:,} training examples ({train_examples_of_two_or_more:,} with a prefix "
        "of two products or more), {test_rows:,} test rows of {test_sessions:,} sessions ({test_rows_of_seen_targets:,} with a target "
        "of the prefix, {test_rows_of_unknown_targets:,} with one never met), {products:,} products".format(**size)
    )
    models = {}
    for name in names or known:
        reset = _reset_peak()
        begun = time.perf_counter()
        model, settings = known[name]()
        trained = time.perf_counter()
        columns = evaluation.columns(evaluation.evaluate(model, test), test, seed)
        models[name] = columns["all"] | {column: columns[column] for column in ("seen", "discovery")} | {
            "settings": settings,
            "train_seconds": trained - begun,
            "test_seconds": time.perf_counter() - trained,
            "peak_mb": _peak_mb(reset),
        }  # fmt: skip
        say(_line(name, models[name]))
    return {"split": size, "seed": seed, "shortest": shortest, "models": models}


def table(result: dict) -> str:
    """The result of `run` as text: a line for each model, HR@20 and MRR@20 in % of all, seen before and discovery."""
    first = f"{'':<16}{'all':>16}{'seen before':>16}{'discovery':>16}"
    head = f"{'model':<16}" + 3 * f"{'HR@20':>8}{'MRR@20':>8}" + f"{'train s':>9}{'test s':>8}{'peak MB':>9}"
    return "\n".join([first, head] + [_line(name, found) for name, found in result["models"].items()])


def _line(name: str, found: dict) -> str:
    figures = [f"{100 * part[key]:8.2f}" if part else f"{'–':>8}" for part in (found, found["seen"], found["discovery"])
               for key in ("hit_rate@20", "mrr@20")]  # fmt: skip
    return f"{name:<16}" + "".join(figures) + f"{found['train_seconds']:9.1f}{found['test_seconds']:8.1f}{found['peak_mb']:9.0f}"


def _reset_peak() -> bool:
    """Start the process's peak memory afresh, where the system can (Linux)."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
        return True
    except OSError:
        return False


def _peak_mb(reset: bool) -> float:
    """Peak memory of the process in MB: since `_reset_peak` if that worked, else since its start."""
    if reset:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024**2 if sys.platform == "darwin" else 1024)
