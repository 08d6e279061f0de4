"""The article's next steps as variants: each switches one thing of a default, and all are trained and scored alike.

A variant's answer is always the same: the products nearest by cosine to the decayed user embedding. What differs is
how the vectors were learned, how visits weigh, or how the nearest are found; so whatever a variant gains over its base is
the worth of its one switch (`shelfspace.trials.gains` measures it). What a log cannot tell (no purchase, no category, no search)
leaves variants out, with a sentence that says why.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
import pyarrow as pa
from tqdm import tqdm

from shelfspace.measure import evaluation, ranking
from shelfspace.measure.ranking import Model
from shelfspace.models import newcomers
from shelfspace.models.baselines import nearest_to_user
from shelfspace.models.users import user_embeddings
from shelfspace.sequences import arrays
from shelfspace.sequences.arrays import EVENT_LEVELS, Corpus, Examples
from shelfspace.trials import searches
from shelfspace.vectors import features, neighbours, skipgram, starspace
from shelfspace.vectors.embeddings import Embeddings, align
from shelfspace.vectors.features import Features

EVENT_GRID = {  # how often a visit may count by its event; a view counts once
    "add_to_cart": (0.5, 1.0, 2.0, 4.0, 8.0, 16.0),
    "purchase": (0.1, 0.25, 0.5, 1.0, 2.0, 4.0),
}
MIKOLOV, STARSPACE = "Mikolov et al. 2013, eq. 4", "Wu et al. 2017, section 3"
AIRBNB = "Grbovic & Cheng 2018, section 3"


@dataclass(frozen=True)
class Variant:
    """One thing switched.

    Attributes
    ----------
    name : str
    label : str
        What is switched, for a reader.
    base : str
        Name of the variant that it is compared with; empty for the defaults.
    trainer : {"word2vec", "starspace"}
        Whose product vectors, and whose decay, it uses.
    switches : tuple of str
        What it is made of: "weights", "goals", "market", "searches", "information", "alone", "images" in training;
        "given" or "learned" weights of events, or "newcomers", in use; "graph" in search.
    needs : tuple of str
        What the log must have (`LACKS`).
    formula, source : str
    """

    name: str
    label: str
    base: str
    trainer: str
    switches: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    formula: str = ""
    source: str = ""


VARIANTS = (
    Variant("word2vec", "word2vec", "", "word2vec", (), (), "log σ(v_p·u_c) + Σ_k log σ(-v_p·u_k)", MIKOLOV),
    Variant("word2vec_weights", "word2vec, events weigh in training", "word2vec", "word2vec", ("weights",), ("events",),
            "w(e_c) times the terms of a context c with event e_c", "the article"),
    Variant("word2vec_given", "word2vec, events weigh in the user, given", "word2vec", "word2vec", ("given",), ("events",),
            "w_i ∝ b(e_i) exp(-d t_i), b as given", "the article"),
    Variant("word2vec_learned", "word2vec, events weigh in the user, learned", "word2vec", "word2vec", ("learned",), ("events",),
            "w_i ∝ b(e_i) exp(-d t_i), b the best on valid users", "the article"),
    Variant("word2vec_goals", "word2vec, global positives", "word2vec", "word2vec", ("goals",), ("purchases",),
            "+ log σ(v_p·u_b), b: bought in the session", AIRBNB),
    Variant("word2vec_market", "word2vec, negatives of the category", "word2vec", "word2vec", ("market",), ("categories",),
            "+ Σ_m log σ(-v_p·u_m), m: of p's category", AIRBNB),
    Variant("word2vec_airbnb", "word2vec, both of Airbnb's", "word2vec", "word2vec", ("goals", "market"), ("purchases", "categories"),
            "both terms", AIRBNB),
    Variant("word2vec_newcomers", "word2vec, new products by information", "word2vec", "word2vec", ("newcomers",), ("columns",),
            "cos(u, v_new) = mean of cos(u, v) over the 3 products most alike by information", AIRBNB),
    Variant("word2vec_graph", "word2vec, approximate search", "word2vec", "word2vec", ("graph",), ("faiss",),
            "HNSW graph over v", "Malkov & Yashunin 2018"),
    Variant("starspace", "StarSpace", "", "starspace", (), (), "Σ_k max(0, μ - sim(a, b) + sim(a, b_k))", STARSPACE),
    Variant("starspace_weights", "StarSpace, events weigh in training", "starspace", "starspace", ("weights",), ("events",),
            "a visit is the label b in proportion to w(e)", "the article"),
    Variant("starspace_searches", "StarSpace, searches in the sequences", "starspace", "starspace", ("searches",), ("searches",),
            "a query is its own row and those of its words", STARSPACE),
    Variant("starspace_goals", "StarSpace, global positives", "starspace", "starspace", ("goals",), ("purchases",),
            "+ the loss of a = the visit of b, b* = bought in the session", AIRBNB),
    Variant("starspace_market", "StarSpace, negatives of the category", "starspace", "starspace", ("market",), ("categories",),
            "some of the b_k are of b's category", AIRBNB),
    Variant("starspace_airbnb", "StarSpace, both of Airbnb's", "starspace", "starspace", ("goals", "market"),
            ("purchases", "categories"), "both", AIRBNB),
    Variant("starspace_alone", "StarSpace, information alone", "starspace", "starspace", ("information", "alone"), ("columns",),
            "a product is the sum of its features' rows", STARSPACE),
    Variant("starspace_both", "StarSpace, clicks and information", "starspace", "starspace", ("information",), ("columns",),
            "a product is its own row and those of its features", STARSPACE),
    Variant("starspace_images", "StarSpace, clicks and pictures", "starspace", "starspace", ("images",), ("images",),
            "a product is its own row and those of its picture's colours and shapes", STARSPACE),
)  # fmt: skip

PLACE_NEW = {"newcomers", "information", "images", "searches"}  # switches without which a product that nobody clicked has no vector

LACKS = {
    "events": "its training visits are all of one kind of event",
    "purchases": "no training session holds a purchase that another product led to",
    "categories": "no two products that were visited have different categories",
    "columns": "it has no name, description, category, brand or price that two products share",
    "searches": "it has no search before a visit of the history",
    "images": "no folder of pictures was given (images)",
    "faiss": "the library faiss is not installed",
}


@dataclass(frozen=True)
class Material:
    """What all variants are made from; `gather` makes it.

    Attributes
    ----------
    products : DataFrame
    product_ids : ndarray of str
    corpus : Corpus
        The training sequences.
    valid, test : Examples
    information, pictures : Features, optional
    asked : pyarrow.Table, optional
        The sequences with the searches among them.
    has : frozenset of str
        The keys of `LACKS` that the log does not lack.
    """

    products: pd.DataFrame
    product_ids: np.ndarray
    corpus: Corpus
    valid: Examples
    test: Examples
    information: Features | None = None
    pictures: Features | None = None
    asked: pa.Table | None = None
    has: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Settings:
    """What all variants share.

    Attributes
    ----------
    decays : mapping of trainer to keywords
        decay and decay_time of its user embedding.
    dim : int
    sg_epochs, ss_epochs : int
        Passes of word2vec and of StarSpace over the sequences.
    counts : tuple of float
        How often a visit with each of `EVENT_LEVELS` counts, where that is given.
    market : int
        Negatives of the same category, where there are any.
    seed : int
    """

    decays: Mapping[str, Mapping] = field(default_factory=lambda: dict.fromkeys(("word2vec", "starspace"), {"decay": 0.1}))
    dim: int = 50
    sg_epochs: int = 6
    ss_epochs: int = 20
    counts: tuple[float, ...] = (1, 3, 5)
    market: int = 3
    seed: int = 0


@dataclass(frozen=True)
class Made:
    """A variant, ready to be measured.

    Attributes
    ----------
    variant : Variant
    model : Model
        Scores of all products.
    valid, test : Examples
        The examples as this model takes them: with searches among the visits, say.
    vectors : ndarray of float32, shape (n_products, dim)
        Zero where a product has none.
    known : ndarray of bool, shape (n_products,)
    answer : callable
        From examples to their first 20 products, the whole way as in use.
    train_seconds : float
        NaN where nothing was trained here.
    megabytes : float
        What must be held to answer.
    place : callable, optional
        From a product table to the vectors of its products, by what the table says of them.
    chosen : dict
        What the valid users chose.
    tried : DataFrame, optional
        What it was chosen from: how often each event counted, and the MRR@20 of the valid users.
    recall : float
        Share of the exact first 20 that the answer holds; NaN where it is exact.
    """

    variant: Variant
    model: Model
    valid: Examples
    test: Examples
    vectors: np.ndarray
    known: np.ndarray
    answer: Callable[[Examples], np.ndarray]
    train_seconds: float
    megabytes: float
    place: Callable[[pd.DataFrame], np.ndarray] | None = None
    chosen: dict = field(default_factory=dict)
    tried: pd.DataFrame | None = None
    recall: float = float("nan")


def gather(table: pa.Table, products: pd.DataFrame, *, asked: pd.DataFrame | None = None, pictures: Features | None = None) -> Material:
    """Bring together what variants are made from, and see what the log has.

    Parameters
    ----------
    table : pyarrow.Table
        ``sequences.parquet`` as `shelfspace.sequences.arrays.load` gives it.
    products : DataFrame
        ``products.parquet``.
    asked : DataFrame, optional
        Searches (`shelfspace.trials.searches.of_log`).
    pictures : Features, optional
        From `shelfspace.vectors.images.of_folder`.

    Raises
    ------
    ValueError
        If no target is left to choose settings or to test.
    """
    product_ids = products.product_id.to_numpy().astype(str)
    corpus = arrays.corpus(table)
    valid, test = (arrays.examples(table, product_ids, split) for split in ("valid", "test"))
    for split, examples in (("valid", valid), ("test", test)):
        if not len(examples):
            raise ValueError(f"None of these users has a target of the {split} users; take more of them (next_users).")
    information = features.of_products(products)
    goals, category = arrays.goals(corpus), groups(products, corpus)
    with_searches = None
    if asked is not None and len(asked):
        with_searches = searches.insert(table, asked)
    has = {
        "events": len(np.unique(corpus.events)) > 1,
        "purchases": bool((corpus.items[goals] != corpus.items)[goals >= 0].any() and (goals < 0).any()),
        "categories": len(np.unique(category[category >= 0])) > 1,
        "columns": len(information.names) > 0,
        "searches": with_searches is not None and with_searches.num_rows > table.num_rows,
        "images": pictures is not None,
        "faiss": neighbours.installed(),
    }
    return Material(
        products, product_ids, corpus, valid, test, information, pictures, with_searches,
        frozenset(name for name, there in has.items() if there),
    )  # fmt: skip


def groups(products: pd.DataFrame, corpus: Corpus) -> np.ndarray:
    """Number of the category of each product of the corpus, -1 for none; int64, shape (n_products of the corpus,)."""
    if "category" not in products:
        return np.full(len(corpus.product_ids), -1)
    category = products.set_index(products.product_id.astype(str)).category.reindex(corpus.product_ids)
    codes, _ = pd.factorize(category.where(category.notna() & (category.astype(str) != "")), sort=True)
    return codes.astype(np.int64)


def lacking(variant: Variant, material: Material) -> str:
    """Why the log cannot tell what a variant is worth; empty when it can."""
    missing = [LACKS[need] for need in variant.needs if need not in material.has]
    return f"{variant.label}: left out, as {' and '.join(missing)}." if missing else ""


def train(material: Material, settings: Settings, *, progress: bool = True) -> dict[str, Made]:
    """Make all variants that the log can tell, by name, in the order of `VARIANTS`.

    Those that share a base's vectors take them from it. `lacking` says why others are left out.
    """
    pair = Corpus(np.array(["a", "b"]), np.array([0, 1], np.int32), np.array([0, 2]))
    for trainer in (skipgram, starspace):
        trainer.train(pair, epochs=1, progress=False)  # compiled here, so that no variant's time holds it
    made: dict[str, Made] = {}
    for variant in tqdm([one for one in VARIANTS if not lacking(one, material)], desc="variants", disable=not progress):
        made[variant.name] = _made(variant, material, settings, made)
    return made


def embed(variant: Variant, material: Material, settings: Settings, hidden: np.ndarray | None = None) -> Embeddings:
    """Train a variant's product embeddings, with its switches on.

    Parameters
    ----------
    hidden : ndarray of str, optional
        Products that are taken out of the training sequences.
    """
    on = set(variant.switches)
    corpus = arrays.corpus(material.asked) if "searches" in on else material.corpus
    corpus = corpus if hidden is None else arrays.without(corpus, hidden)
    given: dict = {"dim": settings.dim, "seed": settings.seed, "progress": False}
    if "searches" in on:
        given["features"] = features.of_texts(i for i in corpus.product_ids if i.startswith(searches.PREFIX))
    if "weights" in on:
        given["weights"] = np.asarray(settings.counts)[corpus.events]
    if "goals" in on:
        given["goals"] = arrays.goals(corpus)
    if "market" in on:
        given |= {"groups": groups(material.products, corpus), "market": settings.market}
    if on & {"information", "images"}:
        given |= {"features": material.information if "information" in on else material.pictures, "own_rows": "alone" not in on}
    if variant.trainer == "word2vec":
        return skipgram.train(corpus, epochs=settings.sg_epochs, **given)
    return starspace.train(corpus, epochs=settings.ss_epochs, **given)


def _made(variant: Variant, material: Material, settings: Settings, made: Mapping[str, Made]) -> Made:
    """Train a variant, or take its base's vectors and use them in another way."""
    decay = settings.decays[variant.trainer]
    on = set(variant.switches)
    if on & {"given", "learned"}:
        base = made[variant.base]
        weights, chosen, tried = settings.counts, {}, None
        if "learned" in on:
            tried = _event_grid(base, decay)
            weights = tuple(tried[list(EVENT_LEVELS)].iloc[tried["mrr@20"].argmax()].tolist())
            chosen = dict(zip(EVENT_LEVELS, weights))
        model = nearest_to_user(base.vectors, base.known, event_weights=weights, **decay)
        return _exact(model, base, variant=variant, chosen=chosen, tried=tried)
    if "newcomers" in on:
        base, started = made[variant.base], time.perf_counter()
        place = newcomers.placer(material.information, base.vectors, base.known)
        vectors, known = newcomers.fill(base.vectors, base.known, place, material.products)
        seconds = base.train_seconds + time.perf_counter() - started
        size = vectors.nbytes + 2 * material.information.matrix.data.nbytes  # of the features, numbers and places
        return _exact(
            nearest_to_user(vectors, known, **decay), base, variant=variant, vectors=vectors, known=known, place=place,
            train_seconds=seconds, megabytes=size / 1e6,
        )  # fmt: skip
    if "graph" in on:
        return replace(_approximate(made[variant.base], material, decay), variant=variant)
    started = time.perf_counter()
    embedded = embed(variant, material, settings)
    seconds = time.perf_counter() - started
    vectors, known = align(embedded, material.product_ids)
    size = vectors.nbytes + (embedded.features.vectors.nbytes if embedded.features else 0)
    place = None
    if on & {"information", "searches"} and len(material.information.names):

        def place(rows: pd.DataFrame) -> np.ndarray:
            return embedded.embed_products(features.of_products(rows, min_products=1, max_share=1.0))

    plain = Made(variant, None, material.valid, material.test, vectors, known, None, seconds, size / 1e6, place)
    if "searches" in on:
        return _asking(embedded, material, decay, plain)
    return _exact(nearest_to_user(vectors, known, **decay), plain)


def _exact(model: Model, like: Made, **changed) -> Made:
    """The same with another model, whose answer is the first 20 of all scores."""
    return replace(like, model=model, answer=lambda examples: ranking.top_k(model(examples), 20)[0], **changed)


def _event_grid(base: Made, decay: Mapping) -> pd.DataFrame:
    """MRR@20 of the valid users for a view that counts once beside every combination of `EVENT_GRID`."""
    rows = []
    for values in itertools.product(*EVENT_GRID.values()):
        weights = (1.0, *values)
        model = nearest_to_user(base.vectors, base.known, event_weights=weights, **decay)
        score = ranking.reciprocal_rank(evaluation.evaluate(model, base.valid).ranks, 20).mean()
        rows.append(dict(zip(EVENT_LEVELS, weights)) | {"mrr@20": score})
    return pd.DataFrame(rows)


def _approximate(base: Made, material: Material, decay: Mapping) -> Made:
    """The base's vectors in a graph; products that the graph does not find have no score."""
    graph = neighbours.graph(base.vectors, base.known)

    def users(examples: Examples) -> np.ndarray:
        return user_embeddings(examples, base.vectors, known=base.known, **decay)

    def model(examples: Examples) -> np.ndarray:
        found, cosines = graph.search(users(examples), 20)
        scores = np.full((len(examples), len(base.vectors)), -np.inf, dtype=np.float32)
        rows, columns = np.nonzero(found >= 0)
        scores[rows, found[rows, columns]] = cosines[rows, columns]
        return scores

    def answer(examples: Examples) -> np.ndarray:
        return graph.search(users(examples), 20)[0]

    some = material.test[:2000]
    share = neighbours.recall(answer(some), base.answer(some))
    return replace(base, model=model, answer=answer, megabytes=graph.size / 1e6, recall=share)


def _asking(embedded: Embeddings, material: Material, decay: Mapping, plain: Made) -> Made:
    """User embeddings of visits and queries; queries are no candidates."""
    ids = np.union1d(material.product_ids, embedded.product_ids)
    vectors, known = align(embedded, ids)
    is_product = np.isin(ids, material.product_ids)
    whole = nearest_to_user(vectors, known, **decay)

    def model(examples: Examples) -> np.ndarray:
        return np.where(is_product, whole(examples), -np.inf)

    valid, test = (arrays.examples(material.asked, ids, split) for split in ("valid", "test"))
    return _exact(model, replace(plain, valid=valid, test=test, megabytes=plain.megabytes + vectors[~is_product].nbytes / 1e6))


def outside(name: str, label: str, model: Model, material: Material, megabytes: float, base: str = "word2vec") -> Made:
    """A model that was trained elsewhere, to be measured beside the variants, against the default `base`."""
    nothing = np.zeros((0, 0), np.float32)
    variant = Variant(name, label, base, base)
    return _exact(model, Made(variant, model, material.valid, material.test, nothing, np.zeros(0, bool), None, float("nan"), megabytes))


def cold(material: Material, settings: Settings, made: Mapping[str, Made], hidden: np.ndarray) -> dict[str, np.ndarray]:
    """Ranks of the test targets when some products had not a single click.

    The hidden products are taken out of the training sequences, and the defaults and all variants that can place a new product
    (`PLACE_NEW`) are trained on what is left: hiding also takes them from the contexts of the other products, whose vectors move.
    Those that use a base's vectors use its new ones.

    Parameters
    ----------
    hidden : ndarray of int
        Rows of the product table.

    Returns
    -------
    dict of variant's name to ndarray of int64, shape (n_test,)
        The targets that are hidden products say how new products fare; the others, what their company costs the rest.
    """
    found, without = {}, {}
    for variant in [one for one in VARIANTS if one.name in made and (not one.base or PLACE_NEW & {*one.switches})]:
        on, decay = set(variant.switches), settings.decays[variant.trainer]
        if "newcomers" in on:
            vectors, known = without[variant.base]
        else:
            embedded = embed(variant, material, settings, material.product_ids[hidden])
            vectors, known = align(embedded, material.product_ids)
            if "searches" in on:
                vectors[hidden] = embedded.embed_products(material.information)[hidden]
                known = vectors.any(axis=1)
            without[variant.name] = vectors, known
        if "newcomers" in on:
            place = newcomers.placer(material.information, vectors, known)
            vectors, known = newcomers.fill(vectors, known, place, material.products)
        found[variant.name] = evaluation.evaluate(nearest_to_user(vectors, known, **decay), material.test).ranks
    return found
