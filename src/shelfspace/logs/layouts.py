"""The layouts of logs: the public ones by their columns, and the names that a shop's own columns may have."""

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from shelfspace.logs import refuse

SYNONYMS = {
    "view": "view views viewed click clicks clicked detail detail_view pageview page_view product_view "
    "productview product_viewed view_item viewitem impression pv",
    "search": "search searches searched query search_query site_search product_search view_search_results",
    "add_to_cart": "add_to_cart addtocart add_cart added_to_cart cart carts cart_add add product_added basket add_to_basket addtobasket",
    "purchase": "purchase purchases purchased buy buys bought transaction transactions order orders ordered "
    "sale checkout_completed order_completed",
}
#: Event names as logs spell them (lower case, words joined by "_") → the four canonical names.
EVENT_NAMES = {name: event for event, names in SYNONYMS.items() for name in names.split()}
#: Known events that say nothing on what a user wants: dropped and counted.
UNUSED_EVENTS = ("remove_from_cart", "removefromcart", "remove", "remove_from_basket", "refund", "return")
#: Usual column names, best first, in lower case without spaces and signs.
NAMES = {
    "user_id": "userid user visitorid visitor customerid customer clientid client shopperid memberid "
    "accountid uid fullvisitorid userpseudoid cookieid sessionid session usersession",
    "product_id": "productid itemid product item sku skuid stockcode productsku aid article articleid asin variantid goodsid iid pid",
    "timestamp": "timestamp eventtime eventtimestamp datetime timeunix unixtime unixtimestamp epoch time ts "
    "createdat occurredat invoicedate orderdate eventdate date day",
    "event": "event eventtype eventname type action behavior behaviour behaviortype behaviourtype",
    "session_id": "sessionid session usersession visitid",
    "name": "name title productname itemname producttitle itemtitle",
    "category": "category categoryname productcategory itemcategory categorycode categoryid",
    "brand": "brand brandname manufacturer vendor",
    "price": "price unitprice itemprice productprice",
    "description": "description productdescription itemdescription",
    "query": "query searchquery searchterm searchtext keywords",
}
REQUIRED = ("user_id", "product_id", "timestamp")
#: What the name of a column may hold that is one of these, in lower case without spaces and signs, best first: offered, never taken.
HINTS = {
    "user_id": "household kunde kunden klant cliente client customer cust shopper buyer member visitor account person user",
    "product_id": "artikel produkt producto produit prodotto article sku ean gtin upc asin product item",
    "timestamp": "timestamp datetime datum zeitpunkt uhrzeit fecha zeit date time day",
}
_RETAIL = dict(user_id="Customer ID", product_id="StockCode", timestamp="InvoiceDate", name="Description", quantity="Quantity")
_SESSION = dict(user_id="Session ID", session_id="Session ID", product_id="Item ID")
_DIGINETICA = _SESSION | dict(timestamp="eventdate", offset="timeframe")
#: The public logs. `columns`: canonical name → column in the file (case, spaces and "_" do not matter);
#: `others`: columns that the log may have besides (None: any); `event`: what every row is; `headerless`: the
#: columns of a file without header; `nested`: the columns of the JSON Lines file. `clean` explains the rest.
LAYOUTS = {
    "Online Retail": dict(columns=_RETAIL | dict(session_id="InvoiceNo", price="UnitPrice"), others=None, event="purchase", invoices=True),
    "Online Retail II": dict(columns=_RETAIL | dict(session_id="Invoice", price="Price"), others=None, event="purchase", invoices=True),
    "Retailrocket": dict(
        columns=dict(user_id="visitorid", product_id="itemid", timestamp="timestamp", event="event"), others=("transactionid",)
    ),
    "Retailrocket (subset)": dict(columns=dict(user_id="user", product_id="item", timestamp="time_unix", event="event")),
    "YOOCHOOSE clicks": dict(
        columns=_SESSION | dict(timestamp="Timestamp", category="Category"),
        headerless=("Session ID", "Timestamp", "Item ID", "Category"),
        no_category="0",
    ),
    "YOOCHOOSE buys": dict(
        columns=_SESSION | dict(timestamp="Timestamp", price="Price", quantity="Quantity"),
        headerless=("Session ID", "Timestamp", "Item ID", "Price", "Quantity"),
        event="purchase",
    ),
    "YOOCHOOSE (prepared)": dict(columns=_SESSION | dict(timestamp="Time"), others=("split",)),
    "Diginetica views": dict(columns=_DIGINETICA, others=("userId",)),
    "Diginetica purchases": dict(columns=_DIGINETICA, others=("userId", "ordernumber"), event="purchase"),
    "OTTO": dict(
        columns=dict(user_id="session", session_id="session", product_id="aid", timestamp="ts", event="type"),
        nested=("session", "events"),
        event_codes={"0": "view", "1": "add_to_cart", "2": "purchase"},
    ),
}
CANONICAL = ("user_id", "product_id", "timestamp", "event", "session_id", "name", "category", "brand", "price", "description", "query")
ENDINGS = {
    ".csv": "CSV",
    ".tsv": "CSV",
    ".dat": "CSV",
    ".csv.gz": "CSV",
    ".tsv.gz": "CSV",
    ".parquet": "Parquet",
    ".jsonl": "JSON Lines",
    ".ndjson": "JSON Lines",
    ".json": "JSON Lines",
    ".jsonl.gz": "JSON Lines",
    ".xlsx": "Excel",
}


def match(path: Path, names: Sequence[str], columns: Mapping[str, str]) -> tuple[str | None, dict[str, int]]:
    """The public log with exactly these columns, if any, and canonical name → position of its column."""
    keys = [_key(name) for name in names]
    present = set(keys) - {"", "index", "unnamed0"}
    layout, wanted = None, {c: words.split() for c, words in NAMES.items()}
    for name, entry in LAYOUTS.items():
        needed, others = {_key(c) for c in entry["columns"].values()}, entry.get("others", ())
        if needed <= present and (others is None or present <= needed | {_key(c) for c in others}):
            layout, wanted = name, {c: [_key(column)] for c, column in entry["columns"].items()}
            break
    mapping = {}
    for canonical in wanted.keys() | columns.keys():
        if canonical in columns:
            column, tip = columns[canonical], ""
            found = [i for i, name in enumerate(names) if name == column] or [
                i for i, name in enumerate(names) if name.strip().lower() == column.strip().lower()
            ]
            if column and not found:
                raise refuse.error(
                    f"{path} has no column {refuse.show(column)}, which --columns names for {canonical}"
                    f"{refuse.closest(column, names)}; its columns are {refuse.listing(names)}"
                )
        else:
            word = next((word for word in wanted[canonical] if word in keys), None)
            found = [i for i, key in enumerate(keys) if key == word]
            tip = f", or choose with --columns {canonical}=COLUMN"
        if len(found) > 1:
            raise refuse.error(
                f"{path} has {len(found)} columns called {refuse.show(names[found[0]])}, one of which "
                f"would be {canonical}; rename all but one{tip}"
            )
        if found and columns.get(canonical) != "":
            mapping[canonical] = found[0]
    if "name" not in mapping and "name" not in columns and "description" in mapping:
        mapping["name"] = mapping.pop("description")
    lacking = [c for c in REQUIRED if c not in mapping]
    if lacking and all(re.fullmatch(r"\d*", key) for key in keys):
        raise refuse.error(f"{path} has no header: its first line is {refuse.listing(names)}; put column names in the first line")
    if lacking:
        guesses = _guesses(names, lacking, {names[place] for place in mapping.values()})
        asked = ",".join(f"{c}={guesses.get(c, 'COLUMN')}" for c in lacking)
        offer = (
            f"did you mean --columns {shlex.quote(asked)}?"
            if guesses
            else f"say which is which with --columns {asked}, or name only files of events"
        )
        raise refuse.error(f"{path} has no column for {' and '.join(lacking)}: its columns are {refuse.listing(names)}; {offer}")
    if mapping["user_id"] == mapping["product_id"]:
        raise refuse.error(f"column {refuse.show(names[mapping['user_id']])} of {path} cannot be both user_id and product_id")
    order = (*CANONICAL, "offset", "quantity")
    return layout, dict(sorted(mapping.items(), key=lambda item: order.index(item[0])))


def _guesses(names: Sequence[str], lacking: Sequence[str], taken: set[str]) -> dict[str, str]:
    """For each canonical column a column that may be it by its name, where there is one; each column once."""
    found = {}
    for canonical in lacking:
        hints = HINTS[canonical].split()
        # What names the thing itself, or is its id, number or code, comes before what is said of it.
        rank = {
            name: (not re.fullmatch(f".*{hint}(id|nr|no|num|number|nummer|code|key)?s?", _key(name)), place, len(name))
            for place, hint in reversed(list(enumerate(hints)))
            for name in names
            if hint in _key(name) and name not in taken and not set(name) & set(",=")
        }
        if rank:
            found[canonical] = min(rank, key=rank.get)
            taken = taken | {found[canonical]}
    return found


def _key(name: str) -> str:
    return re.sub(r"[\W_]", "", str(name).lower())
