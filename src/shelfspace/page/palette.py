"""What things are called and which colour they have, the same throughout a report; the style of its figures.

Colours are safe for the colour-blind (Okabe & Ito 2008; Tol 2021), and what colour says is said by a marker
or a label too.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

from shelfspace.page.words import clean

WIDTH = 5.2  # inches of a figure: narrow enough that text can still be read at the width of a phone
INK, MUTED, GRID, PAPER, QUIET = "#1f2328", "#656b73", "#e3e3df", "#ffffff", "#b9bbbd"

COLORS = {
    "word2vec": "#0072b2",
    "starspace": "#d55e00",
    "cooccurrence": "#aa4499",
    "own": "#b8860b",
    "recently_popular": "#4a4a4a",
    "popular": "#7a7a7a",
    "markov": "#332288",
    "session_knn": "#1a9a8a",
    "ease": "#8c510a",
    "matrix_factorisation": "#999933",
    "gru4rec": "#5b7c00",
    "sasrec": "#0b6e99",
    "ranked": "#c1272d",
    "tied": "#882255",
    "dense": "#117733",
    "recommender": "#117733",
    "ceiling": "#555555",
    "view": "#0072b2",
    "add_to_cart": "#d55e00",
    "purchase": "#117733",
    "search": "#aa4499",
    "train": "#0072b2",
    "valid": "#d55e00",
    "test": "#117733",
    "other": QUIET,
}
"""Fixed colours of models and events; `color_of` also finds them inside longer names
("nearest_last_word2vec")."""

PALETTE = tuple("#0072b2 #e69f00 #117733 #cc79a7 #56b4e9 #d55e00 #332288 #999933 #44aa99 #882255".split())
MARKERS = {
    "last": "s", "user": "^", "own": "D", "recently": "p", "popular": "X", "cooccurrence": "v", "markov": ">",
    "session": "P", "factorisation": "*", "gru4rec": "h", "sasrec": "d",
}  # fmt: skip
METRICS = {
    "hit_rate": "HR", "mrr": "MRR", "catalogue_coverage": "Catalogue coverage", "gini": "Gini", "novelty": "Novelty",
    "diversity": "Diversity",
}  # fmt: skip


def color_of(name: str) -> str:
    """The colour of a model, an event or a category, the same in every figure: "#rrggbb".

    Names of `COLORS` win, then a name that contains one of them; any other name takes a place in the palette
    from its own letters. Use `colors_of` where several categories must be told apart.
    """
    key = _key(name)
    if key in COLORS:
        return COLORS[key]
    for known, color in COLORS.items():
        if len(known) > 4 and known.replace("_", "") in key.replace("_", "") or known in key.split("_"):
            return color
    return PALETTE[zlib.crc32(key.encode()) % len(PALETTE)]


def colors_of(names: Sequence[str]) -> dict[str, str]:
    """One colour for each category; no two alike up to ten, and the same for the same set of names."""
    taken: dict[str, str] = {}
    for name in sorted(set(map(str, names)) - {"other"}):
        start = zlib.crc32(_key(name).encode())
        free = [PALETTE[(start + step) % len(PALETTE)] for step in range(len(PALETTE))]
        taken[name] = next((color for color in free if color not in taken.values()), free[0])
    return taken | {"other": COLORS["other"]}


def theme() -> None:
    """Set matplotlib's and seaborn's style: quiet axes, text that is still legible at the width of a
    phone."""
    import seaborn as sns  # whose imports take as long as all others of a page

    sns.set_theme(style="whitegrid", font="DejaVu Sans", rc=dict(_STYLE))


LABELS = {
    "word2vec": "word2vec",
    "starspace": "StarSpace",
    "popular": "Most popular",
    "own_products": "Own products",
    "recently_popular": "Recently popular",
    "cooccurrence": "Co-occurrence",
    "markov": "Markov, after the last product",
    "session_knn": "Session-KNN",
    "ease": "EASE",
    "matrix_factorisation": "Matrix factorisation",
    "gru4rec": "GRU4Rec",
    "sasrec": "SASRec",
    "word2vec_last": "word2vec, near the last product",
    "starspace_last": "StarSpace, near the last product",
    "word2vec_user": "word2vec, near the user",
    "starspace_user": "StarSpace, near the user",
    "dense": "Recommender (dense)",
    "recommender": "Recommender",
    "tied": "Recommender (tied)",
    "ranked": "Recommender (ranked)",
    "own": "the customer's own visits to it",
    "customer": "the customer",
    "popularity": "its popularity",
    "category": "its category",
    "brand": "its brand",
    "price": "its price",
    "near": "its embedding",
    "base": "start",
    "ceiling": "What can be known",
}


def label_of(name: str) -> str:
    """The written form of a model's or an embedding's name: "starspace" → "StarSpace"; unknown ones with
    blanks for _."""
    return LABELS.get(_key(name), clean(name).replace("_", " "))


def metric_label(name: str) -> str:
    """The written form of a metric's key: "hit_rate@20" → "HR@20"."""
    head, at, k = name.partition("@")
    return METRICS.get(head, head.replace("_", " ")) + at + k


def _key(name: str) -> str:
    key = "".join(char if char.isalnum() else "_" for char in str(name).lower())
    return key.replace("co_occurrence", "cooccurrence").strip("_")


def marker_of(name: str) -> str:
    """The marker of a model: its colour says which embedding it uses, its marker says how."""
    key = _key(name)
    return next(
        (marker for part, marker in MARKERS.items() if part in key.split("_") or part in key and len(part) > 5),
        "o",
    )


_STYLE = {
    "figure.facecolor": PAPER,
    "axes.facecolor": PAPER,
    "savefig.facecolor": PAPER,
    "figure.dpi": 96,
    "savefig.dpi": 150,
    "font.size": 9.5,
    "axes.titlesize": 10,
    "axes.labelsize": 9.5,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.edgecolor": QUIET,
    "axes.linewidth": 0.8,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "xtick.bottom": True,
    "ytick.left": False,
    "lines.linewidth": 2,
    "lines.markersize": 6,
    "text.parse_math": False,
}


def decay_unit(decay_time: str) -> str:
    """The unit of a decay, by how age is counted: "per day", "per ln(1 + days)" or "per visit"."""
    return {"days": "per day", "log_days": "per ln(1 + days)", "rank": "per visit"}[decay_time]
