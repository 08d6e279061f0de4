"""Print the simulated shop's statistics beside those of real logs, as one markdown table.

    python benchmarks/shop_statistics.py --logs DIR [--users 30000] [--products 3000] [--seed 0]

DIR holds the public logs in the folders `retailrocket`, `yoochoose-100k` and `online-retail`, in the layouts
that `LOGS` reads; a log that is not there is skipped with a sentence. Only statistics are printed.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from shelfspace.shop import simulation

SESSION_GAP = 30 * 60  # seconds of silence that end a session, as in the pipeline


def simulated(users: int, products: int, seed: int) -> pd.DataFrame:
    """The simulated shop as a plain log: user, item, event, seconds."""
    events = simulation.simulate(users, products, seed=seed).events
    clicks = events[events["event"] != "search"]
    seconds = clicks["timestamp"].astype("int64") / 1e6
    codes = {"user": clicks["user_id"].cat.codes, "item": clicks["product_id"].cat.codes}
    return pd.DataFrame({**codes, "event": clicks["event"].astype(str), "seconds": seconds})


def retailrocket(folder: Path) -> pd.DataFrame:
    """Views, cart adds and purchases of users who bought; one time per user, item and event."""
    log = pd.read_parquet(folder / "events.parquet").rename(columns={"time_unix": "seconds"})
    log["event"] = log["event"].replace({"addtocart": "add_to_cart", "transaction": "purchase"})
    return log


def yoochoose(folder: Path) -> pd.DataFrame:
    """Clicks of anonymous sessions, so a session is a user."""
    log = pd.read_parquet(folder / "yoochoose_clicks_100k.parquet")
    log = log.rename(columns={"SessionId": "user", "ItemId": "item", "Time": "seconds"})
    return log.assign(event="view")


def online_retail(folder: Path) -> pd.DataFrame:
    """Invoice lines of both years; an invoice has one time, so there are no gaps within a session."""
    first = pd.read_parquet(folder / "online_retail_2009_2010.parquet")
    second = pd.read_parquet(folder / "online_retail_2010_2011.parquet")
    log = pd.concat([first[first["InvoiceDate"] < "2010-12-01"], second])
    bought = (log["Quantity"] > 0) & (log["UnitPrice"] > 0) & log["CustomerID"].notna()
    goods = log["StockCode"].str.match(r"^\d{5}")
    log = log[bought & goods & ~log["InvoiceNo"].astype(str).str.startswith("C")]
    log = log.drop_duplicates(["InvoiceNo", "StockCode"])
    seconds = log["InvoiceDate"].astype("datetime64[s]").astype("int64")
    columns = {
        "user": log["CustomerID"].astype(int),
        "item": log["StockCode"],
        "event": "purchase",
        "seconds": seconds,
    }
    return pd.DataFrame(columns)


LOGS: dict[str, tuple[str, Callable[[Path], pd.DataFrame]]] = {
    "Retailrocket": ("retailrocket", retailrocket),
    "YOOCHOOSE 100k": ("yoochoose-100k", yoochoose),
    "Online Retail": ("online-retail", online_retail),
}


def statistics(log: pd.DataFrame) -> dict[str, str]:
    """Statistics of a log (columns user, item, event, seconds) as text; "–" where the log cannot tell."""
    log = log.sort_values(["user", "seconds"], kind="stable").reset_index(drop=True)
    same_user = log["user"].eq(log["user"].shift())
    gap = log["seconds"].diff().where(same_user)
    log["session"] = (~same_user | (gap > SESSION_GAP)).cumsum()
    visits = log[~(same_user & log["item"].eq(log["item"].shift()))]  # a product after itself is one visit
    per_user = visits.groupby("user").agg(visits=("item", "size"), products=("item", "nunique"))
    per_session = visits.groupby("session").size()
    within, between = gap[(gap <= SESSION_GAP) & (gap > 0)], gap[gap > SESSION_GAP] / 86_400
    anonymous = len(per_session) < 1.1 * len(per_user)
    long = per_user["products"] >= 5

    again = visits.duplicated(["user", "item"])
    is_last = ~visits.duplicated("user", keep="last") & visits["user"].map(long)
    kinds = log.drop_duplicates(["user", "item", "event"])["event"].value_counts()
    viewed, in_cart, bought = (int(kinds.get(name, 0)) for name in ("view", "add_to_cart", "purchase"))
    buys = log["event"].eq("purchase").groupby(log["session"]).any().mean()

    counts = np.sort(log["item"].value_counts().to_numpy())[::-1]
    share = counts / counts.sum()
    body = slice(len(share) // 100, len(share) // 2)
    slope = np.polyfit(np.log(np.arange(1, len(share) + 1)[body]), np.log(share[body]), 1)[0]

    def spread(values: pd.Series, digits: int, *, mean: bool = False) -> str:
        figures = [values.mean()] * mean + [values.median(), values.quantile(0.9)]
        return " / ".join(f"{figure:.{digits}f}" for figure in figures)

    return {
        "events": f"{len(log):,}",
        "users": "–" if anonymous else f"{len(per_user):,}",
        "products": f"{len(share):,}",
        "sessions per user, mean": "–" if anonymous else f"{len(per_session) / len(per_user):.1f}",
        "visits¹ per user, mean / median / 90 %": spread(per_user["visits"], 1, mean=True),
        "users with ≥ 5 distinct products": f"{long.mean():.0%}",
        "visits per session, mean / median / 90 %": spread(per_session, 1, mean=True),
        "sessions of one visit": f"{per_session.eq(1).mean():.0%}",
        "seconds between events in a session, median / 90 %": spread(within, 0),
        "days between a user's sessions, median / 90 %": "–" if anonymous else spread(between, 1),
        "visits after the first to a product seen before": f"{again[visits.duplicated('user')].mean():.0%}",
        "last visits to a product seen before²": f"{again[is_last].mean():.0%}",
        "products put in a cart per product viewed": f"{in_cart / viewed:.1%}" if in_cart else "–",
        "products bought per product put in a cart": f"{bought / in_cart:.0%}" if in_cart else "–",
        "sessions with a purchase": f"{buys:.1%}" if viewed and bought else "–",
        "events on the top 1 % of products": f"{share[: max(1, len(share) // 100)].sum():.0%}",
        "events on the top 10 % of products": f"{share[: len(share) // 10].sum():.0%}",
        "events on the top 20 products": f"{share[:20].sum():.1%}",
        "slope of log count on log rank³": f"{slope:.2f}",
        "products with fewer than 5 events": f"{(counts < 5).mean():.0%}",
    }


NOTES = """
¹ A product that follows itself is one visit. ² Of users with at least five distinct products, as the
pipeline takes them. ³ Between the top 1 % and the median product. Sessions end at 30 minutes of silence.
Retailrocket is a subset of buyers with one time per user, product and kind of event; YOOCHOOSE has sessions
only; Online Retail has purchases only, many by wholesalers, with one time per invoice (so its gaps are
between invoices)."""


def table(columns: dict[str, dict[str, str]]) -> str:
    """Several logs' statistics side by side in markdown."""
    rows = [["", *columns], ["---"] + ["---:"] * len(columns)]
    rows += [[name, *(column[name] for column in columns.values())] for name in next(iter(columns.values()))]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def main() -> None:
    """Read the logs that are there, simulate the shop, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--logs", type=Path, default=Path("data"), help="folder with the public logs' folders")
    parser.add_argument("--users", type=int, default=30_000)
    parser.add_argument("--products", type=int, default=3_000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    columns = {"Simulated shop": statistics(simulated(given.users, given.products, given.seed))}
    for title, (folder, read) in LOGS.items():
        try:
            columns[title] = statistics(read(given.logs / folder))
        except FileNotFoundError as missing:
            name = Path(str(missing.filename or missing)).name
            print(f"{title} is skipped: --logs has no folder {folder} with {name} in it.\n")
    print(table(columns))
    print(NOTES)


if __name__ == "__main__":
    main()
