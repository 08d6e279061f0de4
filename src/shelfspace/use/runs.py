"""A finished run, opened: similar products, recommendations and embeddings for whoever comes, and what a score is made of.

    run = shelfspace.open("reports/default")
    run.similar("A17", k=5)
    run.recommend("today.parquet")

What it says is what the run's own files say: ``recommendations.parquet`` for the histories of its own customers,
``user_embeddings.parquet`` for their embeddings. All of them together are answered to the bit; in other company a product of matrices
may round a score's last bit otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from shelfspace.files import run_files
from shelfspace.logs import engines, refuse
from shelfspace.measure.ranking import Model
from shelfspace.models import baselines, newcomers, recommendations, relational
from shelfspace.sequences import arrays
from shelfspace.sequences.arrays import Corpus, Examples
from shelfspace.use import histories
from shelfspace.vectors import embeddings, features
from shelfspace.vectors.embeddings import Embeddings, normalise
from shelfspace.vectors.threads import one_blas_thread

NEEDED = (
    "params.json", "products.parquet", "sequences.parquet", "decay.json", "best_decays.json", "recommender.json", "product_embeddings",
)  # fmt: skip
MOST = 10_000  # products that can be asked for at once


def open(folder: str | Path) -> Run:
    """Open a finished run.

    Parameters
    ----------
    folder : path
        A folder that `shelfspace report` wrote, or a link to one.

    Raises
    ------
    ValueError
        If it is none, or not finished.
    """
    return Run(folder)


class Run:
    """A finished run. Made by `open`; safe to be asked from several threads.

    Attributes
    ----------
    folder : Path
        With links followed, so that a link that is turned to another run does not mix the two.
    params : dict
        ``params.json``.
    products : DataFrame
        ``products.parquet``: product_id and what else the log told, sorted by product_id.
    product_ids : ndarray of str, shape (n_products,)
    model : {"ranked", "tied", "dense"}
        Whose recommendations left the run.
    embedding : {"word2vec", "starspace"}
        The product embedding that served its users best.
    vectors : ndarray of float32, shape (n_products, dim)
        Of that embedding; zero where there is none.
    known : ndarray of bool, shape (n_products,)
        Whether there is one.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder).resolve()
        lacking = [name for name in NEEDED if not (self.folder / name).exists()]
        if lacking:
            raise ValueError(f"{folder} is no finished run, as it has no {lacking[0]}; make one with: shelfspace report --out {folder}")
        self.params = run_files.needed(self.folder, "params.json", "it is no run")
        self.settings = self.params.get("parameters", {})
        self.choice = run_files.needed(self.folder, "decay.json", "it is no finished run")
        self.best_decays = run_files.needed(self.folder, "best_decays.json", "it is no finished run")
        self.left = run_files.needed(self.folder, "recommender.json", "it is no finished run")
        try:
            self.products = pd.read_parquet(self.folder / "products.parquet")
            self.product_ids = self.products.product_id.to_numpy().astype(str)
            self.model, self.embedding = self.left["model"], self.choice["embedding"]
            self.vectors, self.known = self.aligned(self.embedding)
        except (OSError, KeyError, AttributeError, pa.ArrowException) as error:
            raise ValueError(f"{folder} cannot be opened ({error}); make it again with: shelfspace report --out {folder}") from None
        self._unit = normalise(self.vectors)

    def aligned(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """The embedding word2vec or starspace in the order of `product_ids`: vectors, and whether there is one."""
        return embeddings.align(embeddings.load(self.folder / "product_embeddings" / f"{name}.parquet"), self.product_ids)

    def place(self, product: str) -> int:
        """Where a product stands in `product_ids`.

        Raises
        ------
        ValueError
            If the run does not know it.
        """
        place = int(np.searchsorted(self.product_ids, str(product)))
        if place == len(self.product_ids) or self.product_ids[place] != str(product):
            raise ValueError(f"The run has no product {refuse.show(product)}{refuse.closest(str(product), self.product_ids.tolist())}.")
        return place

    def similar(self, product: str | np.ndarray, k: int = 10) -> pd.DataFrame:
        """The products nearest to one by the cosine of their embeddings.

        Parameters
        ----------
        product : str or ndarray of float, shape (dim,) or (dim + 1,)
            An id, or a vector: of a customer (`user_embeddings`), or of a new product (`embed_products`).
        k : int

        Returns
        -------
        DataFrame
            At most k rows, the nearest first: product_id, similarity (cosine, from -1 to 1), and the run's product columns.

        Raises
        ------
        ValueError
            If the run does not know the product or has no embedding of it, or k is out of its range.
        """
        _check_k(k)
        allowed = self.known
        if isinstance(product, np.ndarray):
            if product.shape not in ((self.vectors.shape[1],), (self.vectors.shape[1] + 1,)) or not np.isfinite(product).all():
                raise ValueError(f"A vector of shape {product.shape} is none of this run; it must hold {self.vectors.shape[1]} numbers.")
            query = normalise(product[None].astype(np.float32))[0, : self.vectors.shape[1]]
        else:
            place = self.place(product)
            if not self.known[place]:
                raise ValueError(
                    f"The product {refuse.show(product)} has no embedding, as too few met it; embed_products places it by what it is."
                )
            query, allowed = self._unit[place], self.known.copy()
            allowed[place] = False
        cosine = np.where(allowed, self._unit @ query, -np.inf)
        k = min(k, int(allowed.sum()))
        best = np.argpartition(-cosine, k - 1)[:k] if k else np.zeros(0, int)
        best = best[np.lexsort((best, -cosine[best]))]
        found = self.products.iloc[best].reset_index(drop=True)
        found.insert(1, "similarity", cosine[best])
        return found

    def recommend(self, data, k: int = 20, seen: bool | None = None, columns: Mapping[str, str] | None = None) -> pd.DataFrame:
        """The best products for customers, whether the run saw them or not.

        Parameters
        ----------
        data : path, DataFrame, pyarrow.Table, or list of str
            Rows of a log, a row for each event, with the column names that the run's own log had, or the usual ones; or the ids of what
            one customer saw, oldest first. All that came before is to be in it: the run adds nothing to a history.
        k : int
            Products for each customer.
        seen : bool, optional
            Whether products that the customer saw may be among them; as in the run where it is None.
        columns : mapping of canonical name to column, optional
            Other names than the run's.

        Returns
        -------
        DataFrame
            user_id, rank (1 the best), product_id, score, by user and rank. Whoever is not known by a single product gets the most
            visited ones, without a score.

        Raises
        ------
        ValueError
            If the rows do not fit, saying what would; or k is out of its range.
        """
        with self.visits(data, columns) as path:
            found = [batch for table in histories.blocks(path) for batch in self.answers(*self.examples(table), k, seen)]
        return pa.Table.from_batches(found, recommendations.SCHEMA).to_pandas()

    @contextmanager
    def visits(self, data, columns: Mapping[str, str] | None = None, at: str | datetime = "") -> Iterator[Path]:
        """A log's rows as visits (`shelfspace.use.histories.visits`), by the run's own rules and names of columns."""
        own = dict(pair.split("=", 1) for pair in self.settings.get("columns", "").split(",") if pair)
        asked = dict(columns or {})
        if not asked and own:
            names = _names(data)
            asked = {name: column for name, column in own.items() if names is None or column in names or not column}
        gap, form = self.settings.get("session_gap", 30.0), self.settings.get("time_format", "")
        with histories.visits(data, asked, gap, at, form) as path:
            yield path

    def examples(self, table: pa.Table) -> tuple[Examples, np.ndarray]:
        """Histories of a piece of `visits`, with what the run counted of them, and customers without a known product."""
        found, strangers = histories.examples(table, self.product_ids)
        return self.own.of(found), strangers

    def answers(self, found: Examples, strangers: np.ndarray, k: int = 20, seen: bool | None = None) -> Iterator[pa.RecordBatch]:
        """`recommend` for histories that were made already, a block of them at a time; strangers last."""
        _check_k(k)
        seen = self.settings.get("seen", True) if seen is None else seen
        yield from recommendations.batches(self.scores, found, self.product_ids, k, seen)
        products = self.product_ids[self.popular[:k]].astype(object)
        for first in range(0, len(strangers), 10_000):
            some = strangers[first : first + 10_000]
            columns = (
                np.repeat(some.astype(object), len(products)), np.tile(np.arange(1, len(products) + 1), len(some)),
                np.tile(products, len(some)), pa.nulls(len(some) * len(products), pa.float32()),
            )  # fmt: skip
            yield pa.record_batch([pa.array(c, f.type) for c, f in zip(columns, recommendations.SCHEMA)], schema=recommendations.SCHEMA)

    def user_embeddings(self, data, at: str | datetime = "", columns: Mapping[str, str] | None = None) -> pd.DataFrame:
        """The embeddings of customers: the decayed average of what they saw, with the decay that the run chose.

        Parameters
        ----------
        data, columns
            See `recommend`.
        at : str or datetime
            Only events up to then count (UTC); empty: all. Ages are counted from a customer's newest visit, as everywhere.

        Returns
        -------
        DataFrame
            user_id, vector (ndarray of float32, shape (dim,)), by user. Customers none of whose products has an embedding are not in it.
        """
        with self.visits(data, columns, at) as path:
            connection, dim = engines.connect(), self.vectors.shape[1]
            rows = engines.read(connection, path)
            rows = rows.filter(rows.product_id.notnull())
            vectors = engines.read(connection, self.folder / "product_embeddings" / f"{self.embedding}.parquet")
            query = relational.relational(relational.histories(rows), vectors, dim, self.choice["decay"], self.choice["decay_time"])
            relational.write(query.order_by("user_id"), path.with_name("users.parquet"), dim)
            return pq.read_table(path.with_name("users.parquet")).to_pandas()

    def embed_products(self, table: pd.DataFrame) -> Embeddings:
        """Vectors of products that nobody saw yet, by what they are: each lies where those most like it lie.

        Parameters
        ----------
        table : DataFrame
            product_id, and any of name, description, category, brand, price.

        Returns
        -------
        Embeddings
            Of shape (n, dim + 1), by product_id; zero where nothing is known of a product. The last number is there so that a new product
            is no nearer to all others than those it is like (`shelfspace.models.newcomers.placer`); `similar` takes a row as it is.

        Raises
        ------
        ValueError
            If the run's products or the table have no such column.
        """
        if "product_id" not in table:
            raise ValueError(f"The table of new products has no column product_id; its columns are {refuse.listing(list(table))}.")
        if self._placer is None:
            raise ValueError(f"This run's log told nothing of its products; columns such as {', '.join(features.COLUMNS)} would.")
        if not any(column in table for column in features.COLUMNS):
            raise ValueError(f"The table tells nothing of the new products; it needs any of the columns {', '.join(features.COLUMNS)}.")
        table = table.assign(product_id=table.product_id.astype(str)).sort_values("product_id", kind="stable")
        if table.product_id.duplicated().any():
            raise ValueError(
                f"The product {refuse.show(table.product_id[table.product_id.duplicated()].iloc[0])} stands in the table twice."
            )
        if "price" in table:
            table = table.assign(price=pd.to_numeric(table.price, errors="coerce"))
        return Embeddings(table.product_id.to_numpy().astype(str), self._placer(table).astype(np.float32))

    def explain(self, history, product: str, columns: Mapping[str, str] | None = None) -> pd.Series:
        """What makes up the score of a product for one customer.

        Parameters
        ----------
        history, columns
            The rows of one customer; see `recommend`.
        product : str

        Returns
        -------
        Series
            "score", then the parts that sum to it (`shelfspace.models.ranked.explain`, `shelfspace.models.tied.explain`).

        Raises
        ------
        ValueError
            If there are several customers, the run does not know the product or any of the history's, or its model is the dense network,
            which has nothing to tell.
        """
        place = self.place(product)
        with self.visits(history, columns) as path:
            found, strangers = self.examples(pq.read_table(path, read_dictionary=["user_id", "product_id", "event"]))
        if len(found) + len(strangers) != 1:
            raise ValueError(f"The history is of {len(found) + len(strangers):,} customers; the rows of one would fit.")
        if len(strangers):
            raise ValueError("The run knows no product of this history, so that no score was made of it.")
        return self._recommender[1](found, place)

    @property
    def scores(self) -> Model:
        """The recommender that left the run (`shelfspace.measure.ranking.Model`); made when it is first asked for."""
        return self._recommender[0]

    @cached_property
    def corpus(self) -> Corpus:
        """All that the run's models counted."""
        return arrays.corpus(arrays.load(self.folder / "sequences.parquet"), targets=True)

    @cached_property
    def own(self) -> histories.Own:
        """What the run counted of each of its customers."""
        return histories.Own(self.corpus, self.product_ids)

    @cached_property
    def popular(self) -> np.ndarray:
        """Places of the products, the most visited first; int, shape (n_products,)."""
        return np.argsort(-baselines.visit_counts(self.corpus, self.product_ids), kind="stable")

    @cached_property
    def _placer(self):
        information = features.of_products(self.products)
        return newcomers.placer(information, self.vectors, self.known) if len(information.names) else None

    @cached_property
    def _recommender(self):
        """What ``05_recommender`` left: scores of all products, and what one of them is made of.

        All that knows how a run keeps its models is here.
        """
        from shelfspace.models import ranked

        row = np.zeros(1, np.int64)
        with one_blas_thread():  # as when the recommendations were written
            if self.model == "ranked":
                ranker = ranked.reopen(self.folder / "recommender_ranked.txt", self.corpus)
                scores = ranked.recommend(ranker)

                def explain(found, place):
                    return ranked.explain(ranker, found, row, row + place).iloc[0]

            elif self.model == "tied":
                from shelfspace.models import tied

                learned = tied.load(self.folder / "recommender_tied.keras")
                scores = tied.recommend(learned)

                def explain(found, place):
                    return tied.explain(learned, found, row, row + place).iloc[0]

            else:
                from shelfspace.models import dense, training

                network = training.keras.saving.load_model(self.folder / "recommender_dense.keras")
                scores = dense.recommend(network, self.vectors, self.choice["decay"], self.choice["decay_time"], self.known)

                def explain(found, place):
                    raise ValueError("The recommendations of this run are the dense network's, whose scores have no parts to be told.")

            places = self.left.get("new_places", 0)
            if places:
                clicked = baselines.visit_counts(self.corpus, self.product_ids) > 0
                nearest = newcomers.model(
                    self.products, *self.aligned("word2vec"), clicked, **self.best_decays["word2vec_user"]
                )  # fmt: skip
                scores = newcomers.keep_places(scores, nearest, places)
        return scores, explain


def _check_k(k: int) -> None:
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or not 1 <= k <= MOST:
        raise ValueError(f"k is {k!r}; it must be a whole number from 1 to {MOST:,}.")


def _names(data) -> list[str] | None:
    """The names of a table's columns; None for a file, whose reader refuses what is missing."""
    if isinstance(data, pd.DataFrame):
        return list(data)
    return data.column_names if isinstance(data, pa.Table) else [] if isinstance(data, list) else None
