"""The products of a simulated shop: names, prices and popularity, and which replace or complement which."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from shelfspace.shop.catalogue import BRANDS, CATALOGUE, COLOURS, LINES, RANGES

ZIPF, ZIPF_SHIFT = 1.15, 1.0  # pull of a category's r-th product: (r + shift) ** -exponent
SUBSTITUTES, PER_COMPLEMENT = 80, 4  # neighbours kept per product, and per product and complement category
NEAR_TIER, NEAR_BRAND, NEAR_LINE = 0.8, 0.5, 0.6  # near substitutes: width in price tier, and bonuses
CROWD = 0.7  # among a product's neighbours, choice is in proportion to pull to this power


class Catalogue(NamedTuple):
    """The products as arrays, in order of category; the simulation knows them by these positions."""

    frame: pd.DataFrame  # as Shop.products, in this order
    department: np.ndarray  # int8, of each product
    brand: np.ndarray  # int8, place in the department's list
    tier: np.ndarray  # standardised log price within the category
    bounds: np.ndarray  # where each category begins, and the end
    cumulative: np.ndarray  # running sum of pull
    substitutes: tuple[np.ndarray, np.ndarray]  # places (n, k) and their cumulative probabilities
    complements: tuple[np.ndarray, np.ndarray]  # the same; probability 0 throughout where there is none
    queries: np.ndarray  # int32 (n, 3), codes of texts that search for the product
    texts: np.ndarray


def make_catalogue(size: int, rng: np.random.Generator) -> Catalogue:
    """Invent the products: how many per category; brand, model line, price, pull, texts and neighbours."""
    departments = list(BRANDS)
    traffic = np.array([row.traffic for row in CATALOGUE])
    exact = traffic**0.75 / (traffic**0.75).sum() * (size - len(CATALOGUE))
    counts = 1 + np.floor(exact).astype(int)
    counts[np.argsort(np.floor(exact) - exact, kind="stable")[: size - counts.sum()]] += 1
    bounds = np.concatenate([[0], np.cumsum(counts)])
    category = np.repeat(np.arange(len(CATALOGUE)), counts)
    department = np.array([departments.index(row.department) for row in CATALOGUE], dtype=np.int8)[category]
    brand_tier = {name: rng.permutation(np.linspace(-1.2, 1.2, len(BRANDS[name].split()))) for name in departments}

    brand, line = np.zeros(size, dtype=np.int8), np.zeros(size, dtype=np.int64)
    tier, pull = np.zeros(size), np.zeros(size)
    line_names: list[str] = []
    for place, row in enumerate(CATALOGUE):
        here, n = slice(bounds[place], bounds[place + 1]), counts[place]
        brands = rng.permutation(len(brand_tier[row.department]))[: max(1, min(9, n // 8))]
        share = 1.0 / np.arange(1, len(brands) + 1) ** 0.7
        which = rng.choice(len(brands), n, p=share / share.sum())
        brand[here] = brands[which]
        pull[here] = rng.permutation((np.arange(1, n + 1) + ZIPF_SHIFT) ** -ZIPF)
        pull[here] *= row.traffic / pull[here].sum()
        own_lines = len(line_names) + which * 3 + rng.integers(0, 3, n)
        offset = rng.normal(0.0, 0.45, (len(brands) * 3))[own_lines - len(line_names)]
        tier[here] = 0.8 * brand_tier[row.department][brand[here]] + offset + rng.normal(0.0, 0.3, n)
        for b in brands:
            words = rng.permutation(len(LINES))[:3]
            line_names += [f"{BRANDS[row.department].split()[b]} {LINES[word]}" for word in words]
        if row.fits:
            target = [other.name for other in CATALOGUE].index(row.fits)
            fitted = np.arange(bounds[target], bounds[target + 1])
            line[here] = line[rng.choice(fitted, n, p=pull[fitted] ** 0.5 / (pull[fitted] ** 0.5).sum())]
        else:
            line[here] = own_lines
    pull /= pull.sum()

    median = np.array([row.price for row in CATALOGUE])[category] * np.exp(0.42 * tier)
    price = np.where(median >= 100, np.round(median / 10) * 10 - 1, np.floor(median) + 0.99)
    frame = pd.DataFrame({"category": [CATALOGUE[c].name for c in category]})
    frame["brand"] = [BRANDS[departments[d]].split()[b] for d, b in zip(department, brand, strict=True)]
    frame["department"] = [departments[d] for d in department]
    frame["line"] = [line_names[code] for code in line]
    frame["price"], frame["pull"] = price, pull
    # Ids are shuffled, so that they tell nothing of the category.
    width = max(5, len(str(size)))
    frame["product_id"] = [f"P{number:0{width}d}" for number in rng.permutation(size) + 1]
    queries, texts = _texts(frame, category, tier, rng)
    return Catalogue(
        frame, department, brand, tier, bounds, np.cumsum(pull),
        _substitutes(bounds, brand, line, tier, pull), _complements(bounds, line, tier, pull), queries, texts,
    )  # fmt: skip


def _texts(frame: pd.DataFrame, category: np.ndarray, tier: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Add names and descriptions to `frame`; return each product's queries as codes and texts."""
    names, descriptions, queries, taken = [], [], [], {}
    ranges = np.array(RANGES)[np.digitize(tier, [-0.9, -0.3, 0.3, 0.9])]
    draws = rng.random((len(frame), 4))
    for brand, line, c, price_range, draw in zip(frame["brand"], frame["line"], category, ranges, draws, strict=True):
        row = CATALOGUE[c]
        variants, qualities = (half.split(",") for half in row.features.split(";"))
        noun, variant, quality = (
            options[int(u * len(options))] for options, u in zip((row.nouns.split(","), variants, qualities), draw[:3], strict=True)
        )
        extra = f"{quality} " if draw[3] < 0.4 else ""
        what = f"{extra}{variant} {noun}"
        name = f"{brand} {what} for {line}" if row.fits else f"{line} {what}"
        again = taken[name] = taken.get(name, -1) + 1
        if again:
            edition, colour = divmod(again - 1, len(COLOURS))
            colour = COLOURS[(colour + len(name)) % len(COLOURS)]
            name += f", pack of {again + 1}" if row.packs else f", {colour}"
            name += f", edition {edition + 1}" if edition and not row.packs else ""
        names.append(name)
        made_for = f", made for {line} {row.fits}" if row.fits else ""
        descriptions.append(f"{price_range}, {quality} {variant} {noun} by {brand} {row.use}{made_for}.")
        queries += [row.nouns.split(",")[0], f"{brand} {noun}".lower(), f"{variant} {noun}".lower()]
    frame["name"], frame["description"] = names, descriptions
    codes, texts = pd.factorize(pd.Series(queries), sort=True)
    return codes.astype(np.int32).reshape(-1, 3), np.asarray(texts, dtype=object)


def _substitutes(bounds, brand, line, tier, pull) -> tuple[np.ndarray, np.ndarray]:
    """Near substitutes of every product: places and cumulative probabilities, both (n, `SUBSTITUTES`).

    The nearest of the category by price tier, brand and model line; of these, the ones with more pull are
    likelier. A product that is alone in its category is its own substitute.
    """
    reach = 100  # products to either side that are looked at: it keeps the work linear
    places = np.repeat(np.arange(len(tier))[:, None], SUBSTITUTES, axis=1)
    weights = np.zeros(places.shape)
    weights[:, 0] = 1.0
    for place, row in enumerate(CATALOGUE):
        here = np.arange(bounds[place], bounds[place + 1])
        here = here[np.lexsort((tier[here], line[here]) if row.fits else (tier[here],))]
        n, keep = len(here), min(SUBSTITUTES, len(here) - 1)
        if keep == 0:
            continue
        width = min(n, 2 * reach + 1)
        start = np.clip(np.arange(n) - reach, 0, n - width)
        near = here[start[:, None] + np.arange(width)]
        score = -((tier[near] - tier[here][:, None]) ** 2) / (2 * NEAR_TIER**2)
        score += NEAR_BRAND * (brand[near] == brand[here][:, None])
        score += NEAR_LINE * (line[near] == line[here][:, None])
        score[near == here[:, None]] = -np.inf
        best = np.argpartition(-score, keep - 1, axis=1)[:, :keep]
        places[here, :keep] = np.take_along_axis(near, best, 1)
        weights[here, :keep] = np.exp(np.take_along_axis(score, best, 1)) * pull[places[here, :keep]] ** CROWD
    return places, _running(weights)


def _complements(bounds, line, tier, pull) -> tuple[np.ndarray, np.ndarray]:
    """Complements of every product: places and cumulative probabilities, 0 where there are none.

    An accessory that is made for a model line goes with the products of that line only; any other with those
    whose price tier is nearest to its own. The catalogue names the likeliest complement category first.
    """
    names = [row.name for row in CATALOGUE]
    most = max(len(row.complements.split(",")) for row in CATALOGUE) * PER_COMPLEMENT
    places, weights = np.zeros((len(tier), most), dtype=np.int64), np.zeros((len(tier), most))
    for place, row in enumerate(CATALOGUE):
        here = np.arange(bounds[place], bounds[place + 1])
        for rank, name in enumerate(filter(None, row.complements.split(","))):
            goal = names.index(name)
            there = np.arange(bounds[goal], bounds[goal + 1])
            if CATALOGUE[goal].fits:
                there = there[np.lexsort((-pull[there], line[there]))]
                pick = np.searchsorted(line[there], line[here])[:, None] + np.arange(PER_COMPLEMENT)
                found = there[np.minimum(pick, len(there) - 1)]
                fits = (pick < len(there)) & (line[found] == line[here][:, None])
            else:
                there = there[np.argsort(tier[there], kind="stable")]
                pick = np.searchsorted(tier[there], tier[here]) - PER_COMPLEMENT // 2
                pick = np.clip(pick, 0, max(0, len(there) - PER_COMPLEMENT))
                pick = pick[:, None] + np.arange(PER_COMPLEMENT)
                found, fits = there[np.minimum(pick, len(there) - 1)], pick < len(there)
            weight = fits * pull[found] ** CROWD
            weight /= np.maximum(weight.sum(axis=1, keepdims=True), 1e-300) * (1 + rank)
            slots = slice(rank * PER_COMPLEMENT, (rank + 1) * PER_COMPLEMENT)
            places[here, slots], weights[here, slots] = found, weight
    return places, _running(weights)


def _running(weights: np.ndarray) -> np.ndarray:
    """Cumulative probabilities along rows; a row of zeros stays 0."""
    total = np.cumsum(weights, axis=1)
    return total / np.where(total[:, -1:] > 0, total[:, -1:], 1.0)
