"""A simulated electronics-and-home shop: products with readable names, users, and four weeks of their events.

Users browse by one rule. Before each visit, every earlier visit i of the user pulls with exp(-decay ·
age_i), where `decay` (per day) is the user's true recency weight, and lasting taste pulls with the
constant `TASTE`; one of them is drawn in proportion. Taste leads to a favourite category and there to a
product of the user's price tier and brand. An earlier visit leads to that product again, to a near
substitute (same category, similar price, brand and model), or to a complement (a case for that very
phone); once its product is in the cart, mostly to a complement. So the next product follows a
time-decayed sum of what the user saw: missions come and go, the newest product is informative yet noisy,
and the ground truth of categories, complements and decays is known.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from shelfspace.shop import assortment, tables
from shelfspace.shop.assortment import Catalogue
from shelfspace.shop.catalogue import BRANDS, CATALOGUE

SESSION_GAP = 65 * 60.0  # least seconds between two sessions' visits; the usual rule splits at 30 minutes

# Sessions, gaps, returns and popularity are calibrated to real logs (benchmarks/README.md says how closely).
# Taste, stray visits and the closeness of substitutes are not: no log tells them. They were set so that the
# next product can be learnt, but not too easily.
TASTE = 0.6  # pull of the lasting taste; a visit of this moment pulls with 1
STRAY = 0.3  # share of taste's visits that follow the crowd into any category
FAVOURITES = (0.45, 0.72, 0.9, 1.0)  # running shares of a user's favourite categories among taste's other visits
OFFERED, TIER_FIT, BRAND_FIT = 6, 0.6, 1.2  # taste's choice: products on offer, width in price tier, bonus of the brand
AGAIN, COMPLEMENT = 0.11, 0.16  # moves from an earlier visit; the rest are substitutes
AGAIN_TAKEN, COMPLEMENT_TAKEN = 0.04, 0.66  # the same once its product is in the cart
CART, CART_AGAIN, BUY = 0.06, 0.16, 0.5  # a first visit, a return visit, and from cart to purchase
SEARCH_TASTE, SEARCH_COMPLEMENT = 0.55, 0.3  # share of these moves that go through the search box
DECAY_MEDIAN, DECAY_SIGMA = 0.4, 0.8  # log-normal true recency weight, per day
VISITS_MEDIAN, VISITS_SIGMA, VISITS_MAX = 8.6, 0.62, 200  # log-normal visits per user
NEW_SESSION = 0.3  # chance that a visit opens a session
CLICK_MEDIAN, CLICK_SIGMA, CLICK_MAX = 68.0, 1.25, 1_700.0  # seconds between visits of a session, log-normal
PAY_LEAST, PAY_MEDIAN, PAY_SIGMA, PAY_MAX = 60.0, 90.0, 0.8, 1_500.0  # seconds from the last visit to paying: least + log-normal
RETURN_MEDIAN, RETURN_SIGMA = 0.7, 1.6  # days between sessions, log-normal
HOURS = (30, 18, 11, 8, 8, 12, 24, 40, 55, 64, 68, 70, 72, 70, 68, 68, 70, 76, 86, 98, 100, 92, 72, 48)
WEEKDAYS = (1.08, 1.04, 1.02, 1.0, 0.9, 0.92, 1.04)  # Monday first


@dataclass(frozen=True)
class Shop:
    """A simulated log with its ground truth.

    Attributes
    ----------
    events : pandas.DataFrame
        In order of time: user_id (categorical), session_id (int64, from 1 in order of start), timestamp
        (datetime64[us], UTC without zone), event (categorical: search, view, add_to_cart, purchase),
        product_id (categorical, null where event is search), query (categorical, null elsewhere).
    products : pandas.DataFrame
        By product_id: product_id, name, category, brand, price, description; then the ground truth:
        department, line (the model line that it belongs to or is made for), tier (its price's place in the category,
        in standard deviations, roughly), pull (on users; sums to 1).
    users : pandas.DataFrame
        By user_id: user_id, decay (true recency weight per day), price_tier (0 is the middle of every
        category, in standard deviations of the log price, roughly), favourite_category, favourite_brand (in
        the department of that category), favourite_categories (four, the likeliest first) and favourite_brands (one
        in each department), as texts with commas.
    complements : pandas.DataFrame
        product_id, complement_id, chance (that a move from the product to a complement goes there): directed pairs, a
        phone and a case for that phone's line. By both ids.
    substitutes : pandas.DataFrame
        product_id, substitute_id, chance: the same for moves to a near substitute.
    """

    events: pd.DataFrame
    products: pd.DataFrame
    users: pd.DataFrame
    complements: pd.DataFrame
    substitutes: pd.DataFrame


def simulate(users: int = 30_000, products: int = 3_000, days: int = 28, seed: int = 0, visits: float = VISITS_MEDIAN) -> Shop:
    """Simulate a shop, all of it in memory.

    Parameters
    ----------
    users : int
        Number of users, at least 1.
    products : int
        Number of products, at least one for each category of `CATALOGUE`.
    days : int
        Length of the log, from `tables.START` on.
    seed : int
        One seed gives the same shop to the byte, in every process.
    visits : float
        Median of a user's visits, however many days there are; the default makes about 12 events of each user.

    Returns
    -------
    Shop

    Raises
    ------
    ValueError
        If a number is too small, naming the smallest that works.
    """
    catalogue, blocks = in_blocks(users, products, days, seed, visits)
    parts = list(blocks)
    traits = {name: np.concatenate([part[1][name] for part in parts]) for name in parts[0][1]}
    return Shop(_frame(catalogue, [part[0] for part in parts], users), **tables.truth(catalogue, traits))


def in_blocks(users: int, products: int, days: int, seed: int, visits: float):
    """The catalogue, and an iterator over blocks of users: their log, as `_events` gives it, and their traits."""
    given = {"users": users, "products": products, "days": days, "seed": seed}
    least = {"users": 1, "products": len(CATALOGUE), "days": 1, "seed": 0}
    for name, value in given.items():
        if not isinstance(value, (int, np.integer)) or value < least[name]:
            why = ", one for each category" if name == "products" else ""
            raise ValueError(f"{name} is {value!r}; it must be a whole number of at least {least[name]}{why}.")
    if not visits > 0:
        raise ValueError(f"visits is {visits!r}; it must be a number above 0.")
    block = 20_000  # users at a time, so that memory does not grow with their number
    seeds = np.random.SeedSequence(seed).spawn(1 + -(-users // block))
    catalogue = assortment.make_catalogue(products, np.random.default_rng(seeds[0]))
    return catalogue, (
        _browse(catalogue, min(block, users - first), first, days, visits, np.random.default_rng(child))
        for first, child in zip(range(0, users, block), seeds[1:], strict=True)
    )


def _draw(cumulative: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One column per row of cumulative probabilities (rows that end in 1)."""
    return (cumulative <= rng.random(len(cumulative))[:, None]).sum(axis=1)


def _browse(
    shop: Catalogue, users: int, first: int, days: int, median: float, rng: np.random.Generator
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Let a block of users browse by the rule of this module's docstring, all of them one visit at a time.

    Users are ordered by their number of visits, so those who still browse at step k are the first ones. Rows
    of the two-dimensional arrays are steps, columns are users.
    """
    visits = np.exp(np.log(median) + VISITS_SIGMA * rng.standard_normal(users)).round().astype(int)
    visits = -np.sort(-np.clip(visits, 1, VISITS_MAX))
    who = first + rng.permutation(users)  # so that ids tell nothing of the number of visits
    steps = visits[0]
    active = np.searchsorted(-visits, -np.arange(steps), side="left")  # users with more than k visits
    traits = _traits(shop, users, rng)
    opens, seconds = _times(visits, days, rng)

    product = np.zeros((steps, users), dtype=np.int32)
    taken, search = np.zeros((steps, users), dtype=bool), np.full((steps, users), -1, dtype=np.int32)
    pulls = np.zeros((steps, users))  # of the visits so far; the newest one pulls with 1
    for k in range(steps):
        n = active[k]
        taste = np.ones(n, dtype=bool)  # a first visit has nothing to follow
        again, complement, chosen = np.zeros(n, bool), np.zeros(n, bool), np.zeros(n, int)
        if k:
            fade = np.exp(-traits["decay"][:n] * (seconds[k, :n] - seconds[k - 1, :n]) / 86_400)
            running = np.cumsum(pulls[:k, :n], axis=0)
            taste = rng.random(n) * (TASTE + running[-1] * fade) < TASTE
            past = np.minimum((running <= rng.random(n) * running[-1]).sum(axis=0), k - 1)
            pulls[:k, :n] *= fade
            anchor, has = product[past, np.arange(n)], taken[past, np.arange(n)]
            move = rng.random(n)
            again = ~taste & (move < np.where(has, AGAIN_TAKEN, AGAIN))
            complement = ~taste & (move > 1.0 - np.where(has, COMPLEMENT_TAKEN, COMPLEMENT))
            complement &= shop.complements[1][anchor, -1] > 0
            chosen[again] = anchor[again]
            for moving, (places, cumulative) in (
                (complement, shop.complements),
                (~(taste | again | complement), shop.substitutes),
            ):
                chosen[moving] = places[anchor[moving], _draw(cumulative[anchor[moving]], rng)]
        chosen[taste] = _by_taste(shop, traits, np.flatnonzero(taste), rng)
        pulls[k, :n] = 1.0
        product[k, :n] = chosen
        taken[k, :n] = rng.random(n) < np.where(again, CART_AGAIN, CART) * traits["buys"][:n]
        asks = rng.random(n) < np.where(taste, SEARCH_TASTE, np.where(complement, SEARCH_COMPLEMENT, 0.0))
        search[k, :n] = np.where(asks, shop.queries[chosen, rng.integers(0, 3, n)], -1)
    log = _events(visits, who, opens, seconds, product, taken, search, rng)
    order = np.argsort(who)
    return log, {name: traits[name][order] for name in ("decay", "tier", "favourite", "brands")}


def _traits(shop: Catalogue, users: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """The users: recency weight, price tier, favourite categories and brands, how readily they buy."""
    traffic = np.log([row.traffic for row in CATALOGUE])
    liking = traffic + rng.gumbel(size=(users, len(CATALOGUE)))
    return {
        "decay": np.clip(DECAY_MEDIAN * np.exp(DECAY_SIGMA * rng.standard_normal(users)), 0.02, 8.0),
        "tier": rng.normal(0.0, 0.8, users),
        "favourite": np.argsort(-liking, axis=1)[:, :4],
        "brands": rng.integers(0, 9, (users, len(BRANDS))).astype(np.int8),
        "buys": rng.gamma(1.5, 1 / 1.5, users),
    }


def _by_taste(shop: Catalogue, traits: dict[str, np.ndarray], who: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A product by lasting taste.

    `OFFERED` popular products of a favourite category (now and then of the whole shop) are on offer; the one
    that fits the user's price tier and brand is likely.
    """
    rank = np.searchsorted(FAVOURITES[:-1], rng.random(len(who)))
    place = traits["favourite"][who, rank]
    edges = np.concatenate([[0.0], shop.cumulative])[shop.bounds]
    low, high = edges[place], edges[place + 1]
    stray = rng.random(len(who)) < STRAY
    low, high = np.where(stray, 0.0, low), np.where(stray, edges[-1], high)
    wanted = low[:, None] + rng.random((len(who), OFFERED)) * (high - low)[:, None]
    offered = np.minimum(np.searchsorted(shop.cumulative, wanted, side="right"), len(shop.tier) - 1)
    fit = -((shop.tier[offered] - traits["tier"][who][:, None]) ** 2) / (2 * TIER_FIT**2)
    fit += BRAND_FIT * (shop.brand[offered] == traits["brands"][who[:, None], shop.department[offered]])
    return offered[np.arange(len(who)), np.argmax(fit + rng.gumbel(size=fit.shape), axis=1)]


def _times(visits: np.ndarray, days: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """When the visits are: which open a session, and seconds since `tables.START`, both (steps, users).

    Gaps within and between sessions are log-normal. Starts of sessions are drawn on a clock that runs as the
    shop's traffic does and then read on the real one, which gives nights and weekends.
    """
    shape = (visits[0], len(visits))
    on = np.arange(shape[0])[:, None] < visits
    opens = rng.random(shape) < NEW_SESSION
    opens[0] = True
    opens &= np.cumsum(opens, axis=0) <= 12 * days  # what fits in the time
    pause = np.minimum(CLICK_MEDIAN * np.exp(CLICK_SIGMA * rng.standard_normal(shape)), CLICK_MAX)
    gap = np.where(opens, RETURN_MEDIAN * np.exp(RETURN_SIGMA * rng.standard_normal(shape)), 0.0)
    gap[0] = 0.0
    since = np.cumsum(np.where(on, gap, 0.0), axis=0)
    longest = days * rng.uniform(0.6, 0.96, len(visits))
    since *= np.minimum(1.0, longest / np.maximum(since[-1], 1e-9))
    begin = rng.random(len(visits)) * (days - since[-1])
    weekday = np.repeat(np.resize(WEEKDAYS, days), 24) * np.resize(HOURS, 24 * days)
    clock = np.concatenate([[0.0], np.cumsum(weekday) / weekday.sum()]) * days
    start = np.interp(begin + since, clock, np.arange(len(clock)) * 3_600.0)
    # Within a session the real clock runs on; a session starts when the one before is over.
    inside = np.cumsum(np.where(opens, SESSION_GAP, np.roll(pause, 1, axis=0)), axis=0)
    seconds = np.maximum.accumulate(np.where(opens, start - inside, -np.inf), axis=0) + inside
    last = np.where(on, seconds, 0.0).max(axis=0)
    seconds -= np.maximum(0.0, last + 1_800.0 - days * 86_400.0)
    return opens, seconds


def _events(visits, who, opens, seconds, product, taken, search, rng) -> dict[str, np.ndarray]:
    """Visits as events: a search before some, a cart add after some, purchases at the end of a session."""
    user, step = np.nonzero((np.arange(len(product))[:, None] < visits).T)
    of = (step, user)
    n, at = len(user), seconds[of]
    session = np.cumsum(opens[of]) - 1
    ends = np.append(np.flatnonzero(np.diff(session)), n - 1)  # last visit of each session
    quick = 0.5 * rng.random((2, n))
    to_next = np.append(np.where(np.diff(session) == 0, np.diff(at), 120.0), 120.0)
    from_last = np.append(30.0, np.where(np.diff(session) == 0, np.diff(at), 30.0))
    asked, put = np.flatnonzero(search[of] >= 0), np.flatnonzero(taken[of])
    bought = put[rng.random(len(put)) < BUY]
    pause = PAY_LEAST + PAY_MEDIAN * np.exp(PAY_SIGMA * rng.standard_normal(len(ends)))
    paid = at[ends] + np.minimum(pause, PAY_MAX)
    rows = np.concatenate([asked, np.arange(n), put, bought])
    sizes = [len(asked), n, len(put), len(bought)]
    event = np.repeat(np.arange(4, dtype=np.int8), sizes)
    time = np.concatenate([
        at[asked] - quick[0, asked] * np.minimum(from_last[asked], 40.0),
        at,
        at[put] + quick[1, put] * np.minimum(to_next[put], 120.0),
        paid[session[bought]],
    ])  # fmt: skip
    return {
        "user": who[user[rows]].astype(np.int32),
        "session": session[rows],
        "time": (np.maximum(time, 0.0) * 1e3).round().astype(np.int64),  # milliseconds
        "event": event,
        "product": np.where(event == 0, -1, product[of][rows]).astype(np.int32),
        "query": np.where(event == 0, search[of][rows], -1).astype(np.int32),
    }


def _frame(shop: Catalogue, parts: list[dict[str, np.ndarray]], users: int) -> pd.DataFrame:
    """The events of all blocks in order of time."""
    sessions = 0
    for part in parts:  # numbered per block so far
        part["session"] += sessions
        sessions = part["session"].max() + 1
    log = {name: np.concatenate([part.pop(name) for part in parts]) for name in list(parts[0])}
    by_time = np.argsort(log["time"], kind="stable")
    log = {name: values[by_time] for name, values in log.items()}
    return tables.columns(shop, log | {"number": pd.factorize(log["session"])[0] + 1}, tables.ids(shop, users))
