"""Pictures of products as features: which colours a picture has, and which way its edges run.

Each picture becomes two descriptors, which need no training and no network: a histogram of colours, and histograms of the
orientations of edges in each cell of a grid (Dalal & Triggs 2005, "Histograms of Oriented Gradients"). Pictures that are
alike fall into one cluster of k-means, a "visual word" (Sivic & Zisserman 2003), and that is a feature as a word of
a name is: products share it (`shelfspace.vectors.features`).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import scipy.sparse as sp
from PIL import Image
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits

from shelfspace.vectors.features import Features

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp")
SIDE, LEVELS, CELLS, ORIENTATIONS = 64, 4, 4, 8


def of_folder(folder: str | Path, product_ids: np.ndarray, words: int = 32, seed: int = 0) -> Features:
    """Features of the products that have a picture in a folder, by the name of its file: ``P00012.jpg``.

    Parameters
    ----------
    folder : path
        Files of other names and of other endings than `ENDINGS` are passed over, and so is what is no file (a pipe would
        never end) and pictures that cannot be read.
    product_ids : ndarray of str, shape (n_products,)
    words : int
        Clusters of colours, and as many of shapes; fewer for fewer than four pictures each.
    seed : int
        Of k-means.

    Returns
    -------
    Features
        Two for each product with a picture: "colour:07" and "shape:21".

    Raises
    ------
    ValueError
        If there is no such folder, or no picture in it is named as a product and can be read.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder; images must name one with a picture for each product, named by its id.")
    files = {path.stem: path for path in sorted(folder.iterdir()) if path.suffix.lower() in ENDINGS and path.is_file()}
    found, colours, shapes = [], [], []
    for product_id in sorted(set(product_ids) & set(files)):
        pixels = _pixels(files[product_id])
        if pixels is not None:
            found.append(product_id)
            colours.append(colour(pixels))
            shapes.append(shape(pixels))
    if not found:
        raise ValueError(
            f"No picture in {folder} can be used; name each by its product's id, with one of the endings {', '.join(ENDINGS)}."
        )
    count = max(1, min(words, len(found) // 4))
    names, columns = [], []
    for kind, descriptors in (("colour", colours), ("shape", shapes)):
        with threadpool_limits(1):
            cluster = KMeans(count, n_init=1, random_state=seed).fit_predict(np.array(descriptors))
        columns.append(len(names) + cluster)
        names += [f"{kind}:{word:02d}" for word in range(count)]
    data = np.ones(2 * len(found), np.float32)
    indices = np.stack(columns, axis=1).reshape(-1)
    matrix = sp.csr_matrix((data, indices, np.arange(0, 2 * len(found) + 1, 2)), shape=(len(found), len(names)))
    return Features(np.array(found), np.array(names), matrix)


def colour(pixels: np.ndarray) -> np.ndarray:
    """Square roots of the shares of each of `LEVELS`³ colours, so that distances are those of Hellinger.

    Parameters
    ----------
    pixels : ndarray of float, shape (height, width, 3)
        Red, green and blue from 0 to 255.

    Returns
    -------
    ndarray of float64, shape (LEVELS³,)
        Of length 1.
    """
    level = np.minimum(pixels * LEVELS // 256, LEVELS - 1).astype(int)
    bins = (level[..., 0] * LEVELS + level[..., 1]) * LEVELS + level[..., 2]
    return np.sqrt(np.bincount(bins.reshape(-1), minlength=LEVELS**3) / bins.size)


def shape(pixels: np.ndarray) -> np.ndarray:
    """How strongly edges of each orientation run through each cell of a grid.

    Parameters
    ----------
    pixels : ndarray of float, shape (height, width, 3)
        Both sides at least `CELLS`.

    Returns
    -------
    ndarray of float64, shape (CELLS² × ORIENTATIONS,)
        Of length 1, or 0 throughout for a picture of one colour. Orientation o is that of gradients at an angle from
        o to o + 1 eighths of 180°: 0 is a step from left to right.
    """
    down, right = np.gradient(pixels.mean(axis=2))
    strength = np.hypot(down, right)
    angle = np.arctan2(down, right) % np.pi  # which side is the lighter one does not matter
    orientation = np.minimum(angle * ORIENTATIONS // np.pi, ORIENTATIONS - 1).astype(int)
    row, column = (np.arange(n) * CELLS // n for n in strength.shape)
    bins = (row[:, None] * CELLS + column) * ORIENTATIONS + orientation
    total = np.bincount(bins.reshape(-1), strength.reshape(-1), CELLS**2 * ORIENTATIONS)
    return total / max(np.linalg.norm(total), 1e-12)


def _pixels(path: Path) -> np.ndarray | None:
    """A picture on white, brought to `SIDE` × `SIDE` pixels; None where it cannot be read."""
    try:
        with Image.open(path) as image:
            image = image.convert("RGBA").resize((SIDE, SIDE))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    white = Image.new("RGBA", image.size, "white")
    return np.asarray(Image.alpha_composite(white, image).convert("RGB"), dtype=float)
