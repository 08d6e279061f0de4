"""A run's product embeddings in the forms that other tools open."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from shelfspace.files import run_files
from shelfspace.logs import refuse
from shelfspace.use.runs import Run
from shelfspace.vectors.embeddings import normalise

FORMS = {"word2vec": "txt", "parquet": "parquet", "faiss": "faiss", "npz": "npz"}
"""What can be written, and how the names of the files end."""


def export(run: Run, to: str, out: str | Path | None = None, embedding: str = "") -> list[Path]:
    """Write the product embeddings of a run.

    Parameters
    ----------
    run : Run
    to : {"word2vec", "parquet", "faiss", "npz"}
        - word2vec: the text format that gensim's KeyedVectors open, and beside it ``.vectors.tsv`` and ``.metadata.tsv``, which the
          TensorFlow Embedding Projector loads.
        - parquet: product_id, vector, and what else the log told of the products.
        - faiss: an exact index of the vectors brought to length 1, so that inner products are cosines and it answers as `Run.similar`;
          beside it ``.products.txt``, whose n-th line is the id of its n-th vector.
        - npz: the arrays product_ids and vectors, for numpy.
    out : path, optional
        File to write; RUN/exports/EMBEDDING.ENDING by default.
    embedding : {"", "word2vec", "starspace"}
        Which; empty: the one that the run chose.

    Returns
    -------
    list of Path
        The files, each written whole or not at all. Only products with an embedding are in them.

    Raises
    ------
    ValueError
        If the form or the embedding is another, or an id does not go into the form.
    """
    if to not in FORMS:
        raise ValueError(f"--to is {to!r}; it must be one of {', '.join(FORMS)}.")
    if embedding not in ("", "word2vec", "starspace"):
        raise ValueError(f"--embedding is {embedding!r}; it must be one of word2vec, starspace.")
    embedding = embedding or run.embedding
    vectors, known = run.aligned(embedding)
    table, vectors = run.products[known].reset_index(drop=True), np.ascontiguousarray(vectors[known])
    out = Path(out) if out else run.folder / "exports" / f"{embedding}.{FORMS[to]}"
    if out.is_dir():
        raise ValueError(f"{out} is a folder; --out takes the name of a file.")
    paths = []
    for ending, write in _WRITERS[to](table, vectors).items():
        path = out.with_suffix(ending) if ending else out
        with run_files.atomic(path) as temporary:
            write(temporary)
        paths.append(path)
    return paths


def _word2vec(products: pd.DataFrame, vectors: np.ndarray) -> dict[str, Callable[[Path], None]]:
    from gensim.models import KeyedVectors

    ids = [re.sub(r"\s+", "_", product) for product in products.product_id.astype(str)]  # a space ends a word of this format
    if len(set(ids)) < len(ids):
        raise ValueError("Two product ids differ in nothing but spaces, which the word2vec format cannot tell apart; npz and parquet can.")
    keyed = KeyedVectors(vectors.shape[1])
    keyed.add_vectors(ids, vectors)
    plain = products.astype(str).replace(r"[\t\r\n]+", " ", regex=True)
    return {
        "": lambda path: keyed.save_word2vec_format(str(path), binary=False),
        ".vectors.tsv": lambda path: np.savetxt(path, vectors, fmt="%.9g", delimiter="\t"),
        # Of a single column the Projector wants no head.
        ".metadata.tsv": lambda path: plain.to_csv(path, sep="\t", index=False, header=len(plain.columns) > 1),
    }


def _parquet(products: pd.DataFrame, vectors: np.ndarray) -> dict[str, Callable[[Path], None]]:
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])
    table = pa.Table.from_pandas(products, preserve_index=False).add_column(1, "vector", column)
    return {"": lambda path: pq.write_table(table, path)}


def _npz(products: pd.DataFrame, vectors: np.ndarray) -> dict[str, Callable[[Path], None]]:
    def write(path: Path) -> None:
        with open(path, "wb") as file:
            np.savez(file, product_ids=products.product_id.to_numpy().astype(str), vectors=vectors)

    return {"": write}


def _faiss(products: pd.DataFrame, vectors: np.ndarray) -> dict[str, Callable[[Path], None]]:
    if importlib.util.find_spec("faiss") is None:
        raise ValueError("An index needs the library faiss; install it with: pip install faiss-cpu.")
    import faiss

    ids = products.product_id.astype(str)
    if (broken := ids[ids.str.contains(r"[\r\n]")]).size:
        raise ValueError(f"The product id {refuse.show(broken.iloc[0])} holds a line's end, so that no line can tell it; npz can.")
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(normalise(vectors))
    return {
        "": lambda path: faiss.write_index(index, str(path)),
        ".products.txt": lambda path: path.write_text("".join(f"{name}\n" for name in ids), encoding="utf-8"),
    }


_WRITERS = {"word2vec": _word2vec, "parquet": _parquet, "faiss": _faiss, "npz": _npz}
