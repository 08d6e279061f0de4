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

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from shelfspace import engines, runs

START = np.datetime64("2024-03-04T00:00:00", "us")  # a Monday
EVENTS = ("search", "view", "add_to_cart", "purchase")
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
ZIPF, ZIPF_SHIFT = 1.15, 1.0  # pull of a category's r-th product: (r + shift) ** -exponent
SUBSTITUTES, PER_COMPLEMENT = 80, 4  # neighbours kept per product, and per product and complement category
NEAR_TIER, NEAR_BRAND, NEAR_LINE = 0.8, 0.5, 0.6  # near substitutes: width in price tier, and bonuses
CROWD = 0.7  # among a product's neighbours, choice is in proportion to pull to this power
HOURS = (30, 18, 11, 8, 8, 12, 24, 40, 55, 64, 68, 70, 72, 70, 68, 68, 70, 76, 86, 98, 100, 92, 72, 48)
WEEKDAYS = (1.08, 1.04, 1.02, 1.0, 0.9, 0.92, 1.04)  # Monday first
OUTPUT = (
    *("user_id", "session_id", "timestamp", "event", "product_id", "query"),
    *("name", "category", "brand", "price", "description"),
)  # columns of a written log

ENDINGS = (".csv", ".parquet", ".jsonl")
BATCH = 122_880  # events written at a time: what DuckDB hands over at once

BRANDS = {
    "Mobile": "Orvane Telquist Nubrik Halvion Pexaro Zintrel Mobrell Kaldry Ustello",
    "TV and audio": "Lumivexa Sondral Viskarra Brontique Aurelmo Tonwick Gravlin Echorra Pantrel",
    "Computers": "Quillorn Vorthex Minerro Kobrandt Axonby Trellium Nordbyte Corvidane Plexholt",
    "Photo and games": "Optarro Fennwick Glimmra Shuttero Playdrix Joltano Pixelby Ravenmoor Zoomera",
    "Furniture": "Eikholt Ostervale Timbrelle Hallmoss Brackenby Sundvale Oakendry Loftmere Vindhus",
    "Kitchen": "Caffrino Brugetta Moltavia Kettlane Simmerly Tostwick Panarro Vessoro Grindelle",
    "Home care": "Dustral Cleanorra Whirrow Sweeply Puravane Vaculo Brizzley Freshwyn Aspirelle",
}
LINES = (
    "Tarn Kestrel Moraine Cinder Juniper Lark Meridian Pebble Quartz Rill Saffron Thicket Umber Vesper "
    "Willow Alder Basalt Comet Ember Fathom Grove Heron Inlet Larch"
).split()
COLOURS = "black white silver graphite sand navy olive copper sage plum stone cream".split()
RANGES = ("Budget", "Good-value", "Mid-range", "Upper-range", "Premium")


class Category(NamedTuple):
    """One row of the catalogue; lists are written as text with commas."""

    name: str
    department: str
    traffic: float  # pull of the category on all users together
    price: float  # median
    nouns: str
    features: str  # variants, of which a product has one; then, after a semicolon, qualities
    use: str  # ends the description
    complements: str = ""  # categories, the likeliest first
    fits: str = ""  # the products of this category are made for one model line of that earlier category
    packs: bool = False  # products that share a name come in packs, not in colours


CATALOGUE = (
    Category("phones", "Mobile", 10, 390, "smartphone,phone",
             "compact,big-screen,rugged,5G,foldable;dual-SIM,long-life,triple-camera,fast-charging",
             "for calls, photos and apps", "phone cases,screen protectors,chargers"),
    Category("phone cases", "Mobile", 6, 19, "phone case,phone cover",
             "clear,leather,wallet,silicone,bumper;slim,shockproof,magnetic,soft",
             "that protects a phone from drops", fits="phones"),
    Category("screen protectors", "Mobile", 3, 12, "screen protector,glass protector",
             "tempered,privacy,matte,curved;bubble-free,anti-scratch,thin",
             "that keeps a phone display free of scratches", fits="phones", packs=True),
    Category("chargers", "Mobile", 4, 24, "charger,USB-C charger",
             "20-watt,45-watt,65-watt,two-port,wireless;foldable,fast,travel",
             "that charges phones and tablets at the socket", "power banks"),
    Category("power banks", "Mobile", 2.5, 32, "power bank,battery pack",
             "5000-mAh,10000-mAh,20000-mAh,solar;slim,magnetic,pocket",
             "that charges a phone away from the socket"),
    Category("tablets", "Mobile", 4, 310, "tablet,drawing tablet",
             "8-inch,10-inch,12-inch;pen-ready,LTE,lightweight,high-resolution",
             "for reading, drawing and films on the sofa", "tablet covers,chargers"),
    Category("tablet covers", "Mobile", 1.8, 27, "tablet cover,tablet folio",
             "leather,fabric,keyboard,kids;slim,folding,standing",
             "that protects a tablet and holds it upright", fits="tablets"),
    Category("smartwatches", "Mobile", 3.5, 190, "smartwatch,fitness watch",
             "round,square,running,diving;GPS,waterproof,heart-rate,week-long",
             "that counts steps and pulse on the wrist", "watch straps"),
    Category("watch straps", "Mobile", 1.2, 18, "watch strap,watch band",
             "leather,nylon,silicone,steel;woven,sport,quick-release",
             "that holds a smartwatch on the wrist", fits="smartwatches"),
    Category("TVs", "TV and audio", 7, 640, "TV,television",
             "43-inch,50-inch,55-inch,65-inch,75-inch;OLED,4K,slim,high-contrast",
             "for films and sport in the living room", "wall mounts,soundbars,media players"),
    Category("wall mounts", "TV and audio", 2.2, 46, "TV wall mount,TV bracket",
             "fixed,tilting,full-motion,corner;flat,heavy-duty,steel",
             "that hangs a television on the wall", "HDMI cables"),
    Category("soundbars", "TV and audio", 3, 230, "soundbar,TV speaker bar",
             "two-channel,surround,subwoofer;wireless,compact,deep-bass",
             "that gives a television a fuller sound", "HDMI cables"),
    Category("media players", "TV and audio", 2, 68, "streaming box,media player",
             "4K,pocket,recording;wireless,silent,voice-controlled",
             "that streams films to a television", "HDMI cables"),
    Category("HDMI cables", "TV and audio", 1.4, 15, "HDMI cable,video cable",
             "1-metre,2-metre,5-metre,10-metre;braided,flat,angled",
             "that joins a screen and a player", packs=True),
    Category("headphones", "TV and audio", 5.5, 98, "headphones,stereo headphones",
             "over-ear,in-ear,on-ear,open;wireless,noise-cancelling,sport,studio",
             "for music on the way", "headphone cases"),
    Category("headphone cases", "TV and audio", 1, 17, "headphone case,headphone pouch",
             "hard,felt,leather;zipped,pocket,waterproof",
             "that keeps headphones safe in a bag", fits="headphones"),
    Category("speakers", "TV and audio", 3, 110, "Bluetooth speaker,loudspeaker",
             "portable,party,bookshelf,outdoor;waterproof,smart,stereo",
             "that fills a room with music"),
    Category("laptops", "Computers", 8, 820, "laptop,notebook computer",
             "13-inch,14-inch,16-inch,gaming;business,silent,touch-screen,lightweight",
             "for work and study", "laptop bags,mice,docking stations"),
    Category("laptop bags", "Computers", 2.4, 42, "laptop bag,laptop sleeve",
             "shoulder,rolling,leather,canvas;padded,slim,waterproof",
             "that carries a laptop safely"),
    Category("mice", "Computers", 3, 29, "mouse,wireless mouse",
             "vertical,gaming,travel,left-handed;ergonomic,silent,rechargeable",
             "that points and clicks at the desk", "mouse pads"),
    Category("mouse pads", "Computers", 0.9, 13, "mouse pad,desk mat",
             "gel,cork,cloth,hard;large,anti-slip,stitched",
             "on which a mouse glides"),
    Category("keyboards", "Computers", 2.6, 58, "keyboard,mechanical keyboard",
             "full-size,compact,split,gaming;wireless,backlit,quiet",
             "for typing at the desk", "mice"),
    Category("monitors", "Computers", 3.6, 240, "monitor,computer screen",
             "24-inch,27-inch,32-inch,34-inch;curved,4K,height-adjustable",
             "that shows more at the desk", "HDMI cables,keyboards"),
    Category("docking stations", "Computers", 1.3, 105, "docking station,USB-C hub",
             "7-port,12-port,dual-screen;travel,aluminium,powered",
             "that joins a laptop to screens and network", "monitors"),
    Category("printers", "Computers", 2.2, 150, "printer,home printer",
             "laser,inkjet,photo;duplex,wireless,all-in-one",
             "for paper, photos and scans", "ink cartridges"),
    Category("ink cartridges", "Computers", 2.2, 28, "ink cartridge,printer ink",
             "black,cyan,magenta,yellow,tri-colour;high-yield,lasting,refilled",
             "that refills a printer", fits="printers", packs=True),
    Category("cameras", "Photo and games", 2.8, 560, "camera,digital camera",
             "mirrorless,compact,full-frame,underwater;travel,vlogging,stabilised",
             "for photos and films", "lenses,memory cards,tripods"),
    Category("lenses", "Photo and games", 1.2, 380, "camera lens,photo lens",
             "wide-angle,portrait,macro,telephoto;bright,compact,stabilised",
             "that changes what a camera sees", fits="cameras"),
    Category("memory cards", "Photo and games", 1.6, 22, "memory card,SD card",
             "64-GB,128-GB,256-GB,512-GB;high-speed,endurance,micro",
             "that stores photos and films of a camera", packs=True),
    Category("tripods", "Photo and games", 1, 64, "tripod,camera stand",
             "travel,table-top,studio;carbon,fluid-head,light",
             "that holds a camera still"),
    Category("game consoles", "Photo and games", 3.2, 370, "game console,video game console",
             "handheld,home,hybrid;4K,family,retro,disc-free",
             "for games on the sofa", "game controllers,gaming headsets"),
    Category("game controllers", "Photo and games", 1.8, 49, "game controller,gamepad",
             "wireless,wired,racing;rumbling,programmable,compact",
             "for playing on a console", fits="game consoles"),
    Category("gaming headsets", "Photo and games", 1.6, 72, "gaming headset,headset",
             "wireless,wired,one-ear;surround,lightweight,noise-free",
             "for talking while playing"),
    Category("office chairs", "Furniture", 4, 180, "office chair,desk chair",
             "mesh,leather,kneeling,fabric;ergonomic,swivel,high-back",
             "for sitting long at the desk", "desks,floor mats"),
    Category("floor mats", "Furniture", 0.7, 36, "floor mat,chair mat",
             "round,square,wide;clear,hard-floor,recycled",
             "that protects the floor under a chair"),
    Category("desks", "Furniture", 3, 260, "desk,standing desk",
             "oak,walnut,corner,L-shaped;electric,folding,solid",
             "to work at", "desk lamps,office chairs"),
    Category("desk lamps", "Furniture", 1.8, 44, "desk lamp,reading lamp",
             "clamp-on,swing-arm,cordless;LED,dimmable,brass",
             "that lights a desk", "light bulbs"),
    Category("light bulbs", "Furniture", 1.4, 11, "light bulb,LED bulb",
             "4-watt,7-watt,11-watt,spot;warm-white,dimmable,smart",
             "that screws into a lamp", packs=True),
    Category("bookshelves", "Furniture", 2, 130, "bookshelf,shelving unit",
             "oak,pine,metal,ladder;tall,low,corner",
             "for books and boxes"),
    Category("coffee machines", "Kitchen", 5, 290, "coffee machine,coffee maker",
             "fully-automatic,filter,capsule,portafilter;compact,milk-frothing,quiet",
             "for coffee at home", "coffee beans,descalers"),
    Category("coffee beans", "Kitchen", 2.6, 16, "coffee beans,espresso beans",
             "dark-roast,medium-roast,light-roast;organic,decaf,single-origin",
             "to grind for coffee", packs=True),
    Category("descalers", "Kitchen", 0.7, 11, "descaler,descaling liquid",
             "citric,milk-circuit,universal;natural,fast-acting,odourless",
             "that cleans lime from a coffee machine", packs=True),
    Category("kettles", "Kitchen", 2, 46, "kettle,electric kettle",
             "glass,steel,gooseneck,travel;quiet,cordless,fast-boiling",
             "that boils water for tea", "toasters"),
    Category("toasters", "Kitchen", 1.5, 43, "toaster,bread toaster",
             "two-slice,four-slice,long-slot;retro,steel,defrosting",
             "for bread in the morning"),
    Category("air fryers", "Kitchen", 3, 120, "air fryer,hot-air fryer",
             "4-litre,6-litre,9-litre;digital,family,double-basket",
             "that fries with little oil", "baking papers"),
    Category("baking papers", "Kitchen", 0.7, 9, "air-fryer paper,baking paper",
             "round,square,sheet;perforated,unbleached,non-stick",
             "that keeps the basket of an air fryer clean", packs=True),
    Category("vacuum cleaners", "Home care", 4.5, 210, "vacuum cleaner,floor vacuum",
             "bagged,cordless,upright,handheld;quiet,pet-hair,lightweight",
             "for floors and carpets", "vacuum bags,vacuum filters"),
    Category("vacuum bags", "Home care", 1.4, 15, "vacuum bag,dust bag",
             "paper,fleece,cloth;anti-allergy,scented,tear-proof",
             "that collects the dust in a vacuum cleaner", fits="vacuum cleaners", packs=True),
    Category("vacuum filters", "Home care", 0.9, 19, "vacuum filter,dust filter",
             "HEPA,carbon,foam;washable,double,fine-dust",
             "that cleans the air of a vacuum cleaner", fits="vacuum cleaners", packs=True),
    Category("air purifiers", "Home care", 1.8, 170, "air purifier,room air cleaner",
             "bedroom,large-room,desktop;quiet,smart,HEPA",
             "that takes pollen and dust out of the air"),
    Category("irons", "Home care", 1.6, 62, "steam iron,clothes iron",
             "cordless,travel,steam-station;ceramic,auto-off,light",
             "for shirts and trousers", "ironing boards"),
    Category("ironing boards", "Home care", 0.9, 54, "ironing board,ironing table",
             "folding,wall-mounted,table-top;wide,padded,adjustable",
             "on which shirts are ironed"),
)  # fmt: skip


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


class _Catalogue(NamedTuple):
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


def simulate(users: int = 30_000, products: int = 3_000, days: int = 28, seed: int = 0, visits: float = VISITS_MEDIAN) -> Shop:
    """Simulate a shop, all of it in memory.

    Parameters
    ----------
    users : int
        Number of users, at least 1.
    products : int
        Number of products, at least one for each category of `CATALOGUE`.
    days : int
        Length of the log, from `START` on.
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
    catalogue, blocks = _simulate(users, products, days, seed, visits)
    parts = list(blocks)
    traits = {name: np.concatenate([part[1][name] for part in parts]) for name in parts[0][1]}
    return Shop(_frame(catalogue, [part[0] for part in parts], users), **_truth(catalogue, traits))


def simulate_to(
    path: str | Path, users: int = 30_000, products: int = 3_000, days: int = 28, seed: int = 0,
    visits: float = VISITS_MEDIAN, truth: str | Path | None = None,
) -> int:  # fmt: skip
    """Simulate a shop of any size into a file: the same bytes as `write` gives of `simulate`, in bounded memory.

    Users are simulated in blocks; DuckDB puts their events in order of time, on disk where they do not fit.

    Parameters
    ----------
    path, users, products, days, seed, visits
        See `write` and `simulate`.
    truth : str or Path, optional
        Folder to write the ground truth to; see `write_truth`.

    Returns
    -------
    int
        Number of events.
    """
    _check_ending(path)
    catalogue, blocks = _simulate(users, products, days, seed, visits)
    connection = engines.connect()
    con = connection.con
    con.execute("CREATE TABLE log (user INT, session BIGINT, time BIGINT, event TINYINT, product INT, query INT, row BIGINT)")
    traits: list[dict[str, np.ndarray]] = []
    sessions = rows = 0
    for log, of_users in blocks:
        table = pa.table(log | {"session": log["session"] + sessions, "row": np.arange(rows, rows + len(log["time"]))})
        con.register("block", table)
        con.execute("INSERT INTO log BY NAME SELECT * FROM block")
        con.unregister("block")
        sessions, rows = sessions + log["session"].max() + 1, rows + len(table)
        traits.append(of_users)
    # Sessions are numbered by their first event.
    con.execute(
        "CREATE TABLE numbers AS SELECT session, row_number() OVER (ORDER BY least) AS number FROM "
        "(SELECT session, min(time::HUGEINT * 1099511627776 + row) AS least FROM log GROUP BY session)"
    )
    batches = con.sql("SELECT log.*, number FROM log JOIN numbers USING (session) ORDER BY time, row").to_arrow_reader(BATCH)
    frames = (
        {"user": b["user"].to_numpy(), "time": b["time"].to_numpy(), "event": b["event"].to_numpy(), "number": b["number"].to_numpy(),
         "product": b["product"].to_numpy(), "query": b["query"].to_numpy()}
        for b in batches
    )  # fmt: skip
    tables = _truth(catalogue, {name: np.concatenate([t[name] for t in traits]) for name in traits[0]})
    ids = _ids(catalogue, users)
    _write(path, _tables((_columns(catalogue, log, ids) for log in frames), tables["products"]))
    if truth:
        _write_truth(tables, truth)
    return rows


def _simulate(users: int, products: int, days: int, seed: int, visits: float):
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
    catalogue = _catalogue(products, np.random.default_rng(seeds[0]))
    return catalogue, (
        _browse(catalogue, min(block, users - first), first, days, visits, np.random.default_rng(child))
        for first, child in zip(range(0, users, block), seeds[1:], strict=True)
    )


def _catalogue(size: int, rng: np.random.Generator) -> _Catalogue:
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
    return _Catalogue(
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


def _draw(cumulative: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One column per row of cumulative probabilities (rows that end in 1)."""
    return (cumulative <= rng.random(len(cumulative))[:, None]).sum(axis=1)


def _browse(
    shop: _Catalogue, users: int, first: int, days: int, median: float, rng: np.random.Generator
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


def _traits(shop: _Catalogue, users: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
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


def _by_taste(shop: _Catalogue, traits: dict[str, np.ndarray], who: np.ndarray, rng: np.random.Generator) -> np.ndarray:
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
    """When the visits are: which open a session, and seconds since `START`, both (steps, users).

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


def _truth(shop: _Catalogue, traits: dict[str, np.ndarray]) -> dict[str, pd.DataFrame]:
    """The ground truth by name, as in `Shop`: products, users, complements and substitutes, in order of id."""
    by_id, place = _by_id(shop)
    columns = "product_id name category brand price description department line tier pull".split()
    products = shop.frame.assign(tier=shop.tier)[columns].iloc[by_id].reset_index(drop=True)
    favourite = traits["favourite"]
    departments = list(BRANDS)
    of_category = np.array([departments.index(row.department) for row in CATALOGUE])
    categories = np.array([row.name for row in CATALOGUE], dtype=object)[favourite]
    brands = np.array([BRANDS[name].split() for name in departments], dtype=object)[np.arange(len(BRANDS)), traits["brands"]]
    users = pd.DataFrame({
        "user_id": _user_ids(len(favourite)),
        "decay": traits["decay"].round(4),
        "price_tier": traits["tier"].round(4),
        "favourite_category": categories[:, 0],
        "favourite_brand": brands[np.arange(len(brands)), of_category[favourite[:, 0]]],
        "favourite_categories": [",".join(row) for row in categories],
        "favourite_brands": [",".join(row) for row in brands],
    })  # fmt: skip
    ids = products["product_id"].to_numpy()
    moves = {"complements": ("complement_id", shop.complements), "substitutes": ("substitute_id", shop.substitutes)}
    return {"products": products, "users": users} | {name: _moves(ids, place, goal, *chances) for name, (goal, chances) in moves.items()}


def _moves(ids: np.ndarray, place: np.ndarray, goal: str, places: np.ndarray, cumulative: np.ndarray) -> pd.DataFrame:
    """Where moves from each product go, and with what chance: product_id, `goal`, chance; by both ids."""
    chance = np.diff(cumulative, axis=1, prepend=0.0)
    owner, slot = np.nonzero(chance > 0)
    first, second = place[owner], place[places[owner, slot]]
    order = np.lexsort((second, first))
    return pd.DataFrame({"product_id": ids[first[order]], goal: ids[second[order]], "chance": chance[owner, slot][order]})


def _user_ids(users: int) -> list[str]:
    width = max(6, len(str(users - 1)))
    return [f"U{number:0{width}d}" for number in range(users)]


def _by_id(shop: _Catalogue) -> tuple[np.ndarray, np.ndarray]:
    """The products' order by id, and the place of each in it."""
    by_id = np.argsort(shop.frame["product_id"].to_numpy(dtype=str), kind="stable")
    place = np.empty(len(by_id), dtype=np.int32)
    place[by_id] = np.arange(len(by_id), dtype=np.int32)
    return by_id, place


def _frame(shop: _Catalogue, parts: list[dict[str, np.ndarray]], users: int) -> pd.DataFrame:
    """The events of all blocks in order of time."""
    sessions = 0
    for part in parts:  # numbered per block so far
        part["session"] += sessions
        sessions = part["session"].max() + 1
    log = {name: np.concatenate([part.pop(name) for part in parts]) for name in list(parts[0])}
    by_time = np.argsort(log["time"], kind="stable")
    log = {name: values[by_time] for name, values in log.items()}
    return _columns(shop, log | {"number": pd.factorize(log["session"])[0] + 1}, _ids(shop, users))


def _ids(shop: _Catalogue, users: int) -> tuple[pd.Index, pd.Index, np.ndarray]:
    """What `_columns` needs of all users and products: their ids, in order, and the place of each product among these."""
    by_id, place = _by_id(shop)
    return pd.Index(_user_ids(users)), pd.Index(shop.frame["product_id"].iloc[by_id]), place


def _columns(shop: _Catalogue, log: dict[str, np.ndarray], ids: tuple[pd.Index, pd.Index, np.ndarray]) -> pd.DataFrame:
    """Events as columns of `Shop.events`; `number` is that of the session, `ids` are from `_ids`."""
    user_ids, product_ids, place = ids
    return pd.DataFrame({
        "user_id": pd.Categorical.from_codes(log["user"], user_ids),
        "session_id": log["number"],
        "timestamp": START + (log["time"] * 1_000).astype("timedelta64[us]"),
        "event": pd.Categorical.from_codes(log["event"], EVENTS),
        "product_id": pd.Categorical.from_codes(np.where(log["product"] < 0, -1, place[log["product"]]), product_ids),
        "query": pd.Categorical.from_codes(log["query"], shop.texts),
    })  # fmt: skip


def write(shop: Shop, path: str | Path) -> Path:
    """Write the events, joined with the columns of their product, into one file by its ending.

    Columns are `OUTPUT`. The file appears whole or not at all: it is first written under a temporary name.

    Parameters
    ----------
    shop : Shop
    path : str or Path
        Ends in .csv, .parquet or .jsonl. Folders on the way are made.

    Returns
    -------
    Path

    Raises
    ------
    ValueError
        If the ending is another one.
    """
    events = (shop.events.iloc[first : first + BATCH] for first in range(0, len(shop.events), BATCH))
    return _write(path, _tables(events, shop.products))


def _write(path: str | Path, tables: Iterator[pa.Table]) -> Path:
    path = _check_ending(path)
    writers = {".csv": _write_csv, ".parquet": _write_parquet, ".jsonl": _write_jsonl}
    with runs.atomic(path) as temporary:
        writers[path.suffix](temporary, tables)
    return path


def _check_ending(path: str | Path) -> Path:
    path = Path(path)
    if path.suffix not in ENDINGS:
        raise ValueError(f"{path.name} must end in one of {', '.join(ENDINGS)}; the ending chooses the format.")
    return path


def write_truth(shop: Shop, folder: str | Path) -> list[Path]:
    """Write the ground truth: truth_products, truth_users, truth_complements and truth_substitutes, all .parquet."""
    return _write_truth({name: getattr(shop, name) for name in ("products", "users", "complements", "substitutes")}, folder)


def _write_truth(tables: dict[str, pd.DataFrame], folder: str | Path) -> list[Path]:
    paths = []
    for name, frame in tables.items():
        path = Path(folder) / f"truth_{name}.parquet"
        with runs.atomic(path) as temporary:
            pa.parquet.write_table(pa.Table.from_pandas(frame, preserve_index=False), temporary)
        paths.append(path)
    return paths


def _tables(events: Iterable[pd.DataFrame], products: pd.DataFrame) -> Iterator[pa.Table]:
    """Batches of events with their product columns; texts are dictionary-encoded."""
    of_product = {name: pa.array(products[name]) for name in OUTPUT if name not in OUTPUT[:6]}
    for part in events:
        code = part["product_id"].cat.codes.to_numpy(dtype=np.int32)
        index = pa.array(code, mask=code < 0)
        columns = {name: pa.Array.from_pandas(part[name]) for name in part.columns}
        for name, values in of_product.items():
            coded = pa.types.is_string(values.type) or pa.types.is_large_string(values.type)
            columns[name] = pa.DictionaryArray.from_arrays(index, values) if coded else values.take(index)
        yield pa.table({name: columns[name] for name in OUTPUT})


def _plain(table: pa.Table) -> pa.Table:
    """The same table with its texts written out."""
    kinds = [pa.string() if pa.types.is_dictionary(kind) else kind for kind in table.schema.types]
    return table.cast(pa.schema(list(zip(table.column_names, kinds, strict=True))))


def _write_csv(path: Path, tables: Iterator[pa.Table]) -> None:
    first = _plain(next(tables))
    with pa.csv.CSVWriter(path, first.schema) as writer:
        writer.write_table(first)
        for table in tables:
            writer.write_table(_plain(table))


def _write_parquet(path: Path, tables: Iterator[pa.Table]) -> None:
    first = _plain(next(tables))
    with pa.parquet.ParquetWriter(path, first.schema, compression="zstd") as writer:
        writer.write_table(first)
        for table in tables:
            writer.write_table(_plain(table))


def _write_jsonl(path: Path, tables: Iterator[pa.Table]) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for table in tables:
            frame = _plain(table).to_pandas()
            frame["timestamp"] = frame["timestamp"].dt.strftime("%Y-%m-%dT%H:%M:%S.%f")
            frame.to_json(file, orient="records", lines=True, force_ascii=False)
