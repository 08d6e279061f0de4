"""What can be known of a simulated shop: every product's chance to be next, from the numbers that the simulator draws by.

Nobody can rank the next products better than by their true chances, so this is the ceiling for every model. The chances are
those of `shelfspace.shop.simulation`, given all that happened before the target:

- each earlier visit of the customer, a look again at once among them, and what lies in the cart;
- the customer's true traits (decay, price tier, favourite categories and brands), which a model can only guess from the
  history, and the shop's true substitutes and complements;
- the time of the target's visit, by which earlier visits have faded. A model does not know when its answer is wanted.

What the simulator draws anew at each visit is not given: whether it is by taste or follows an earlier visit, which one, and to
what; nor whether the next row is one more visit or what is paid for at the session's end. These are summed over. So the ceiling
is an upper bound, and perhaps out of reach, as more is known here than any history tells. It bounds the columns "all" and
"discovery" (whose candidates are the new products, in the same order), not the targets seen before alone: a list that
puts seen products first does better on these, at the cost of the others.

Left out, as it hardly moves an order, is how many visits a customer makes in all, and that a target which customers look at again,
and so stay at, was the likelier one: with the default shop that concerns one in fifty.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numba as nb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import scipy.sparse as sp

from shelfspace.measure.ranking import Model
from shelfspace.sequences.arrays import Examples
from shelfspace.shop import catalogue, simulation, tables

FILES = ("events", *(f"truth_{name}" for name in ("products", "users", "complements", "substitutes")))
FITS = np.linspace(-25.0, 0.0, 251)  # grid of a product's fit to a customer's taste, from the best fit down
NODES = np.arange(-12.0, 31.0, 0.5)  # where the integral of `_offered` is evaluated, as logarithms
AVERAGED = 500  # customers whose tastes make a mean one
OFFERED = simulation.OFFERED  # a constant of the compiled code
DAY, PER_USER = 86_400e3, 2**42  # milliseconds of a day, and more of them than any log lasts


def is_known(run: str | Path, data: Mapping) -> bool:
    """Whether a run has a ceiling: not on a log of one's own, or where only some events can be targets; see `of_run`."""
    return not data["target_event"] and (Path(run) / "shop" / "truth_substitutes.parquet").exists()


def of_run(run: str | Path, product_ids: np.ndarray, data: Mapping) -> Model:
    """The ceiling of a run that has one (`is_known`).

    Parameters
    ----------
    run : str or Path
        RUN, with ``shop/`` where the shop was simulated.
    product_ids : ndarray of str, shape (n_products,)
        The product table, sorted.
    data : mapping
        ``RUN/data.json``: protocol, target_event, min_products.
    """
    return model(Path(run) / "shop", product_ids, data["min_products"], data["protocol"] == "last-product")


def model(folder: str | Path, product_ids: np.ndarray, min_products: int = 0, last: bool = True, traits: bool = True) -> Model:
    """The true chances as a model: from examples of the simulated shop to the logarithm of each product's chance.

    Parameters
    ----------
    folder : str or Path
        ``RUN/shop``: ``events.parquet`` and the truth, as `shelfspace.shop.write` and `shelfspace.shop.write.write_truth` give it.
    product_ids : ndarray of str, shape (n_products,)
        The product table, sorted.
    min_products : int
        Customers with fewer distinct products, the target's among them, are not in the examples: so whose history holds
        fewer goes on to a new one. Only where `last`.
    last : bool
        Whether a target is its customer's last visit (protocol "last-product"), or may be any (protocol "time").
        Either way targets must be of any event.
    traits : bool
        Whether the customers' true traits are known. Without, each has the mean taste of `AVERAGED` of them and the median decay: what is
        left is the shop's true substitutes and complements, and how it is browsed.

    Returns
    -------
    Model
        Scores are -inf where a product cannot be next; exp(score) sums to 1 over the products of the table, as far as these
        are all that the shop has.

    Raises
    ------
    ValueError
        If a file is missing.
    """
    folder = Path(folder)
    missing = [f"{name}.parquet" for name in FILES if not (folder / f"{name}.parquet").is_file()]
    if missing:
        raise ValueError(f"{folder} lacks {', '.join(missing)}; run 01_prepare again.")
    products, users, complements, substitutes = (pd.read_parquet(folder / f"{name}.parquet") for name in FILES[1:])
    ids, user_ids = (frame.iloc[:, 0].to_numpy().astype(str) for frame in (products, users))
    log, taste, decay = _Log.read(folder / "events.parquet", user_ids, ids), _taste(products, users), users["decay"].to_numpy()
    if not traits:
        mean = taste(np.linspace(0, len(users) - 1, min(AVERAGED, len(users))).astype(int)).mean(axis=0)
        taste, decay = (lambda user: np.broadcast_to(mean, (len(user), len(mean)))), np.full(len(users), np.median(decay))
    complements, substitutes = (_table(moves, ids) for moves in (complements, substitutes))
    goes_with = np.diff(complements.indptr) > 0
    of_shop = np.searchsorted(ids, product_ids)

    def moves(row: np.ndarray, visit: np.ndarray, weight: np.ndarray, n: int) -> np.ndarray:
        """Where moves from the visits lead, each with its weight; shape (n, products of the shop)."""
        product, taken = log.product[visit], log.taken[visit]
        again = np.where(taken, simulation.AGAIN_TAKEN, simulation.AGAIN)
        complement = np.where(taken, simulation.COMPLEMENT_TAKEN, simulation.COMPLEMENT) * goes_with[product]

        def by(share: np.ndarray) -> sp.csr_matrix:
            return sp.csr_matrix((weight * share, (row, product)), shape=(n, len(ids)))

        return (by(again) + by(complement) @ complements + by(1.0 - again - complement) @ substitutes).toarray()

    def scores(examples: Examples) -> np.ndarray:
        n, user = len(examples), np.searchsorted(user_ids, examples.user_ids)
        at, before = (_milliseconds(examples.times[place]) for place in (examples.end, examples.end - 1))
        first, end = (np.searchsorted(log.visit, user * PER_USER + time) for time in (0, at))
        newest = end - 1
        gap = at - log.visit[newest] % PER_USER
        # All visits of each customer so far, one customer after the other, and how much they pull.
        offsets = np.concatenate([[0], np.cumsum(end - first)])
        row = np.repeat(np.arange(n), end - first)
        visit = np.arange(offsets[-1]) + (first - offsets[:-1])[row]
        pull = np.exp(-decay[user][row] * (log.visit[newest][row] - log.visit[visit]) / DAY)
        total = np.add.reduceat(pull, offsets[:-1])
        by_taste = simulation.TASTE / (simulation.TASTE + total * np.exp(-decay[user] * gap / DAY))
        chance = by_taste[:, None] * taste(user) + moves(row, visit, (pull / total[row]) * (1.0 - by_taste)[row], n)

        # A session is over after a long pause, or once it was paid. Before that, the same product again is the same visit.
        paid = log.paid[np.searchsorted(log.paid, log.visit[newest])]
        paying = before == at  # all that is paid for together has one time
        over = ~paying & ((gap > 1e3 * simulation.CLICK_MAX + 1) | (paid < user * PER_USER + at))
        chance[~over, log.product[newest[~over]]] = 0.0
        # What lies in the cart may be paid for next, in the order in which it was put there.
        bought = np.where(paying, of_shop[examples.items[examples.end - 1]], log.product[newest])
        here = (log.session[visit] == log.session[newest][row]) & log.taken[visit]
        latest = np.full(n, -1)
        same = here & paying[row] & (log.product[visit] == bought[row])
        np.maximum.at(latest, row[same], visit[same])
        cart = here & ~over[row] & (visit > latest[row]) & (log.product[visit] != bought[row])
        row, visit = row[cart], visit[cart]
        place = np.arange(len(row)) - np.searchsorted(row, row)
        # One that is its customer's last ends the session for sure, and nothing else is paid for after it, whichever it is.
        pays = np.ones(len(row)) if last else simulation.NEW_SESSION * simulation.BUY * (1.0 - simulation.BUY) ** place
        pause = gap / 1e3
        pays *= np.where(paying[row], 1.0, _log_normal(pause[row] - simulation.PAY_LEAST, simulation.PAY_MEDIAN, simulation.PAY_SIGMA))
        goes_on = (1.0 - simulation.NEW_SESSION) * _log_normal(pause, simulation.CLICK_MEDIAN, simulation.CLICK_SIGMA)
        chance *= np.where(over, 1.0, np.where(paying, 1e-12, goes_on))[:, None]
        np.add.at(chance, (row, log.product[visit]), pays)

        chance = chance[:, of_shop]
        if last and min_products:
            positions, starts = examples.flat()
            seen = sp.csr_matrix((np.ones(len(positions)), examples.items[positions], starts), shape=chance.shape)
            seen.sum_duplicates()
            distinct = np.diff(seen.indptr)
            few = np.repeat(distinct < min_products, distinct)
            chance[np.repeat(np.arange(n), distinct)[few], seen.indices[few]] = 0.0
        with np.errstate(divide="ignore"):
            return np.log(chance / chance.sum(axis=1, keepdims=True))

    return scores


@dataclass(frozen=True)
class _Log:
    """The visits of the log in order of customer and time, as the simulator made them: each has one view.

    Attributes
    ----------
    visit, paid : ndarray of int64
        Customer x `PER_USER` + milliseconds since `shelfspace.shop.tables.START`, of each visit and of each purchase; the latter end
        with one after all others.
    product : ndarray of int64, session : ndarray of int64, taken : ndarray of bool, shapes of `visit`
        Place in the shop's products, number of the session, and whether it put its product into the cart.
    """

    visit: np.ndarray
    paid: np.ndarray
    product: np.ndarray
    session: np.ndarray
    taken: np.ndarray

    @classmethod
    def read(cls, path: Path, user_ids: np.ndarray, ids: np.ndarray) -> _Log:
        columns = ["user_id", "session_id", "timestamp", "event", "product_id"]
        table = pq.read_table(path, columns=columns, read_dictionary=["user_id", "event", "product_id"])
        user, product = (_places(table[name], among) for name, among in (("user_id", user_ids), ("product_id", ids)))
        event = _places(table["event"], np.array(tables.EVENTS))
        time = (table["timestamp"].to_numpy() - tables.START).astype("timedelta64[ms]").astype(np.int64)
        key = user * PER_USER + time
        view, put, bought = (np.flatnonzero(event == tables.EVENTS.index(name)) for name in ("view", "add_to_cart", "purchase"))
        view = view[np.argsort(key[view], kind="stable")]
        taken = np.zeros(len(view), dtype=bool)
        taken[np.searchsorted(key[view], key[put], side="right") - 1] = True  # the cart comes after its own visit, before the next
        paid = np.append(np.sort(key[bought]), np.iinfo(np.int64).max)
        return cls(key[view], paid, product[view], table["session_id"].to_numpy()[view], taken)


def _places(column: pa.ChunkedArray, values: np.ndarray) -> np.ndarray:
    """Where each row's value stands in `values`; int64, -1 where there is none."""
    column = column.unify_dictionaries().combine_chunks()
    order = pd.Index(values).get_indexer(column.dictionary.to_numpy(zero_copy_only=False))
    return np.append(order, -1)[column.indices.fill_null(len(order)).to_numpy()]


def _milliseconds(days: np.ndarray) -> np.ndarray:
    """Days since 1970 as milliseconds since `shelfspace.shop.tables.START`; int64."""
    return np.rint(days * DAY).astype(np.int64) - tables.START.astype("datetime64[ms]").astype(np.int64)


def _log_normal(x: np.ndarray, median: float, sigma: float) -> np.ndarray:
    """Density of a log-normal, up to a factor that is the same for all; 0 where x is not above 0."""
    above = np.maximum(x, 1e-9)
    return np.where(x > 0, np.exp(-0.5 * (np.log(above / median) / sigma) ** 2) / (above * sigma), 0.0)


def _table(moves: pd.DataFrame, ids: np.ndarray) -> sp.csr_matrix:
    """Chances of moves between the products; csr_matrix, shape (n_products, n_products)."""
    first, second = (np.searchsorted(ids, moves.iloc[:, column].to_numpy().astype(str)) for column in (0, 1))
    return sp.csr_matrix((moves["chance"].to_numpy(), (first, second)), shape=(len(ids), len(ids)))


def _taste(products: pd.DataFrame, users: pd.DataFrame) -> Callable[[np.ndarray], np.ndarray]:
    """Chances of a visit by taste: from users, as rows of `users`, to an array of shape (n, n_products).

    As `shelfspace.shop.simulation` draws: `OFFERED` products by pull from a favourite category, or from the whole shop, of which one is
    chosen in proportion to w = exp(fit).
    """
    names, departments = [row.name for row in catalogue.CATALOGUE], list(catalogue.BRANDS)
    category = pd.Index(names).get_indexer(products["category"])
    department = pd.Index(departments).get_indexer(products["department"])
    brands = pd.Index([brand for text in catalogue.BRANDS.values() for brand in text.split()])
    brand, tier, pull = brands.get_indexer(products["brand"]), products["tier"].to_numpy(), products["pull"].to_numpy()
    members = np.argsort(category, kind="stable")
    bounds = np.searchsorted(category[members], np.arange(len(names) + 1))
    favourites, liked = (
        index.get_indexer(users[name].str.split(",").explode()).reshape(len(users), -1)
        for index, name in ((pd.Index(names), "favourite_categories"), (brands, "favourite_brands"))
    )
    shares, tiers = np.diff(simulation.FAVOURITES, prepend=0.0) * (1.0 - simulation.STRAY), users["price_tier"].to_numpy()
    decays = np.exp(-np.exp(NODES[:, None] + FITS))  # exp(-s w)
    widths = np.exp(NODES) * (NODES[1] - NODES[0])  # ds

    def chances(user: np.ndarray) -> np.ndarray:
        found = np.zeros((len(user), len(tier)))
        fit = -((tier - tiers[user, None]) ** 2) / (2 * simulation.TIER_FIT**2)
        fit += simulation.BRAND_FIT * (brand == liked[user][:, department])
        _add_offered(fit, pull, np.zeros((len(user), 1), np.int64), np.array([simulation.STRAY]), members, np.array([0, len(members)]),
                     decays, widths, found)  # fmt: skip
        _add_offered(fit, pull, favourites[user], shares, members, bounds, decays, widths, found)
        return found

    return chances


@nb.njit(nogil=True, cache=True)
def _add_offered(fit, pull, groups, shares, members, bounds, decays, widths, found):
    """Add the chance of each product to be chosen of those on offer, for each user from several groups of products.

    Of m products drawn, one with weight w is chosen with the chance w / (w + Z), where Z is the sum of the m - 1 others'
    weights. As 1 / (w + Z) is the integral of exp(-s (w + Z)) over s > 0, a product that is drawn with chance q is chosen with

        m q w * integral of exp(-s w) phi(s)^(m - 1) ds,        phi(s) = sum_j q_j exp(-s w_j)

    `FITS` is a grid for ln w, between whose points all is linear; weights are relative to the group's largest.
    """
    nodes, size = decays.shape
    step = FITS[1] - FITS[0]
    mass, chosen = np.empty(size), np.empty(size)
    for row in range(len(fit)):
        for place in range(groups.shape[1]):
            group = groups[row, place]
            inside = members[bounds[group] : bounds[group + 1]]
            best, total = -np.inf, 0.0
            for item in inside:
                best = max(best, fit[row, item])
                total += pull[item]
            mass[:], chosen[:] = 0.0, 0.0
            for item in inside:
                at = max(0.0, (fit[row, item] - best - FITS[0]) / step)
                low = min(int(at), size - 2)
                mass[low] += (low + 1 - at) * pull[item] / total
                mass[low + 1] += (at - low) * pull[item] / total
            for node in range(nodes):
                phi = 0.0
                for i in range(size):
                    phi += mass[i] * decays[node, i]
                phi = phi ** (OFFERED - 1) * widths[node]
                for i in range(size):
                    chosen[i] += phi * decays[node, i]
            for i in range(size):
                chosen[i] *= OFFERED * np.exp(FITS[i])
            for item in inside:
                at = max(0.0, (fit[row, item] - best - FITS[0]) / step)
                low = min(int(at), size - 2)
                chance = (low + 1 - at) * chosen[low] + (at - low) * chosen[low + 1]
                found[row, item] += shares[place] * chance * pull[item] / total
