"""The command line: `shelfspace report`, `compare`, `sweep`, `benchmark`, `simulate`, `notebooks`, `parameters`; and of a finished
run `recommend`, `similar`, `explain`, `export`, `drift`, `serve`."""

from __future__ import annotations

import atexit
import gc
import importlib.util
import logging
import os
import re
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

LARGEST = 100_000  # bytes of a file of parameters
INTERRUPTED = 130  # typer's exit code after Ctrl-C

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="Product embeddings from shopping sequences, as one reproducible report.\n\n"
    "Start with `shelfspace report`: it runs on a simulated shop and writes reports/default/report.html.",
)


@app.command(epilog="See `shelfspace parameters` for all that -p can set.")
def report(
    data: Annotated[str, typer.Option(help="'shop' (simulated), or a file, folder or pattern: CSV, Parquet, JSON Lines, Excel.")] = "shop",
    columns: Annotated[str, typer.Option(help="The log's own names: user_id=visitorid,product_id=itemid,…")] = "",
    time_format: Annotated[
        str, typer.Option(metavar="FORM", help="How the log writes times that are not ISO 8601: %d.%m.%Y, '%m/%d/%Y %H:%M', …")
    ] = "",
    out: Annotated[Path, typer.Option(help="Folder to write the run to.")] = Path("reports/default"),
    parameter: Annotated[
        list[str], typer.Option("-p", "--parameter", metavar="KEY=VALUE", help="Set a parameter of the notebooks; may be repeated.")
    ] = [],  # noqa: B006
    file: Annotated[Path | None, typer.Option("-f", "--file", help="YAML file of parameters; -p wins over it.")] = None,
    start: Annotated[str | None, typer.Option("--from", metavar="STAGE", help="Run this stage and all after it again, as 04.")] = None,
    only: Annotated[
        str | None,
        typer.Option(metavar="STAGE", help="Run this stage alone, as 04, a part of it, as 02:word2vec, or report: for schedulers."),
    ] = None,
    engine: Annotated[str, typer.Option(help="Where the relational work runs: duckdb (the default), spark or bigquery.")] = "",
    engine_url: Annotated[
        str,
        typer.Option(
            help="Spark: its master, as spark://host:7077 or yarn; this machine by default. BigQuery: PROJECT or PROJECT/DATASET."
        ),
    ] = "",
    jobs: Annotated[int | None, typer.Option(help="Notebooks that run side by side at most; by default 2, and 1 on a single core.")] = None,
    profile: Annotated[bool, typer.Option("--profile", help="Say at the end where time and memory went, by notebook and by cell.")] = False,
    notebooks: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Run the notebooks of this folder, as `shelfspace notebooks` writes them.")
    ] = None,
) -> None:
    """Run the notebooks on a log and write one HTML report.

    Stages that are up to date are reused, so a second call with another parameter runs only what it touches.

    Examples:

    - `shelfspace report`
    - `shelfspace report --data data/events.csv --out reports/mine -p dim=64 -p decay=0.2`
    - `shelfspace report --data log.parquet --columns user_id=visitor,product_id=sku,timestamp=at`
    - `shelfspace report --data sales.xlsx --time-format "%d.%m.%Y %H:%M"`
    - `shelfspace report --data log.parquet --engine spark --engine-url spark://host:7077`

    An engine does the relational work: visits, sequences, splits and user embeddings, with the same rows as a result. The
    workers of a Spark cluster must share the run folder and TMPDIR with this machine. Training stays here.
    """
    from shelfspace.run import server

    options = {"time_format": time_format, "engine": engine, "engine_url": engine_url}
    given = _given(parameter, file) | {name: value for name, value in options.items() if value}
    if not (only or (out / "report.html").exists()):
        server.start()  # as surely there is something to run

    from shelfspace.files import places
    from shelfspace.run import pipeline

    made = pipeline.run(
        data, out, columns=columns, given=given, start=start, only=only, jobs=jobs, command=command(data, columns, out, given, notebooks),
        folder=notebooks or places.NOTEBOOKS,
    )  # fmt: skip
    if profile:
        from shelfspace.run import profile as profiles

        typer.echo("\n" + profiles.read(out))
    typer.echo(f"\nThe {'report' if made.suffix == '.html' else 'notebook'} is {os.path.relpath(made)}")


@app.command()
def compare(
    run: Annotated[list[Path], typer.Argument(help="Folders of two finished runs or more.", metavar="RUN RUN…")],
    out: Annotated[Path, typer.Option(help="The page to write.")] = Path("reports/compare.html"),
) -> None:
    """Write a page that shows several runs side by side: metrics with intervals, and what differed.

    Where exactly one parameter differs, there is a curve of the metrics against it. The page says so when the runs read
    different logs or have different targets, for then their figures cannot be compared.

    Examples:

    - `shelfspace compare reports/default reports/mine`
    - `shelfspace compare reports/a reports/b reports/c --out reports/abc.html`
    """
    from shelfspace.page import comparison

    typer.echo(f"The comparison is {os.path.relpath(comparison.render(run, out))}")


@app.command(epilog="See `shelfspace parameters` for all that -p can set.")
def sweep(
    parameter: Annotated[
        list[str],
        typer.Option(
            "-p",
            "--parameter",
            metavar="KEY=A,B,…",
            help="The parameter to try several values of; with a single value, one that all runs share.",
        ),
    ],
    data: Annotated[str, typer.Option(help="'shop' (simulated), or a file, folder or pattern: CSV, Parquet, JSON Lines, Excel.")] = "shop",
    columns: Annotated[str, typer.Option(help="The log's own names: user_id=visitorid,product_id=itemid,…")] = "",
    out: Annotated[Path | None, typer.Option(help="Folder to write the runs and the page to; reports/sweep-KEY by default.")] = None,
    file: Annotated[Path | None, typer.Option("-f", "--file", help="YAML file of parameters that all runs share.")] = None,
) -> None:
    """Make one run for each value of a parameter, and a page with curves that compares them.

    Stages that the parameter does not touch are made once, for the first value, and handed on. A sweep that was stopped
    goes on where it was, and a value added later costs only its own run.

    Values are separated by commas; where a value holds a comma itself, by semicolons.

    Examples:

    - `shelfspace sweep -p decay=0,0.05,0.1,0.2`
    - `shelfspace sweep -p dim=25,50,100 -p decay=0.1 --data clicks.csv --out reports/dim`
    - `shelfspace sweep -p "hidden=128;256, 128"`
    """
    from shelfspace.run import sweep

    given = _given(parameter, None)
    lists = {name: re.split(";" if ";" in value else ",", value) for name, value in given.items() if re.search("[,;]", value)}
    if len(lists) != 1:
        raise ValueError(
            f"A sweep takes several values of one parameter, as in -p decay=0,0.1; it got {', '.join(lists) or 'none with several'}."
        )
    ((name, values),) = lists.items()
    shared = (_given([], file) if file else {}) | {key: value for key, value in given.items() if key != name}
    page = sweep.sweep(
        name, [value.strip() for value in values], out or Path(f"reports/sweep-{name}"), data=data, columns=columns, given=shared,
        command=lambda run, own: command(data, columns, run, own),
    )  # fmt: skip
    typer.echo(f"\nThe comparison is {os.path.relpath(page)}")


def _given(pairs: list[str], file: Path | None) -> dict:
    """Parameters from -f and -p; the latter win."""
    given = _from_file(file) if file else {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise ValueError(f"-p takes KEY=VALUE, as in -p decay=0.2; it got {pair!r}.")
        given[name.strip()] = value.strip()
    for name, option in (("data", "--data"), ("columns", "--columns"), ("run_dir", "--out")):
        if name in given:
            raise ValueError(f"{name} is set with {option}, not with -p or -f.")
    return given


def _from_file(path: Path) -> dict:
    import yaml

    class Plain(yaml.SafeLoader):
        """YAML without aliases: a few lines of them can stand for more than any memory holds."""

        def compose_node(self, parent, index):
            if self.check_event(yaml.AliasEvent):
                raise yaml.composer.ComposerError
            return super().compose_node(parent, index)

    try:
        if path.exists() and not path.is_file():
            raise ValueError(f"{path} is no file; -f takes a YAML file of parameters.")
        with open(path, "rb") as file:
            text = file.read(LARGEST + 1)
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}).") from None
    if len(text) > LARGEST:
        raise ValueError(f"{path} is larger than {LARGEST:,} bytes, so it is no file of parameters.")
    try:
        found = yaml.load(text.decode("utf-8"), Plain)
    except RecursionError:
        raise ValueError(f"{path} is nested too deeply; it must hold one `name: value` per line.") from None
    except yaml.composer.ComposerError:
        raise ValueError(f"{path} uses an alias (*name), which a file of parameters may not; write the value out.") from None
    except (yaml.YAMLError, ValueError):  # the latter of bytes that are no text, and of dates that are none
        raise ValueError(f"{path} is not YAML; it must hold one `name: value` per line.") from None
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds {type(found).__name__}; it must hold one `name: value` per line.")
    return {str(name): value for name, value in found.items()}


def command(data: str, columns: str, out: Path, given: Mapping[str, object], notebooks: Path | None = None) -> str:
    """The command that gives the same report again, without what is as it is by default."""
    words = ["shelfspace", "report"] + (["--data", data] if data != "shop" else []) + (["--columns", columns] if columns else [])
    words += ["--out", str(out)] if str(out) != "reports/default" else []
    words += ["--notebooks", str(notebooks)] if notebooks else []
    return shlex.join(words + [word for name, value in given.items() for word in ("-p", f"{name}={value}")])


RUN = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run.")]


@app.command()
def recommend(
    run: RUN,
    data: Annotated[str, typer.Option(help="A log of the customers to serve: file, folder or pattern, as `report` takes it.")],
    out: Annotated[Path, typer.Option(help="File to write: .parquet or .csv.")],
    k: Annotated[int, typer.Option("-k", help="Products for each customer.", min=1, max=1000)] = 20,
    seen: Annotated[
        bool | None, typer.Option("--seen/--new", help="Whether products that a customer saw may be among them; as in the run by default.")
    ] = None,
    columns: Annotated[str, typer.Option(help="The log's own names, where they are not the run's: user_id=visitorid,…")] = "",
) -> None:
    """Write the best products for the customers of a log, whether the run saw them or not.

    A log of any size is answered in blocks; the file is written whole or not at all.

    Examples:

    - `shelfspace recommend reports/default --data today.parquet --out recommendations.parquet`
    - `shelfspace recommend reports/default --data today.csv --columns user_id=visitor --out today.csv -k 5 --new`
    """
    from shelfspace.use import answers, runs

    written = answers.recommend(runs.open(run), data, out, k=k, seen=seen, columns=_pairs(columns))
    typer.echo(f"{out}: {written:,} rows")


@app.command()
def similar(
    run: RUN,
    product: Annotated[str, typer.Argument(metavar="PRODUCT", help="Its id.")],
    k: Annotated[int, typer.Option("-k", help="How many.", min=1, max=1000)] = 10,
) -> None:
    """Print the products that are nearest to one by their embeddings.

    Example: `shelfspace similar reports/default P00017 -k 5`
    """
    from shelfspace.use import runs

    typer.echo(runs.open(run).similar(product, k).to_string(index=False, float_format="{:.3f}".format))


@app.command()
def explain(
    run: RUN,
    product: Annotated[str, typer.Argument(metavar="PRODUCT", help="Whose score is to be told.")],
    saw: Annotated[list[str], typer.Argument(metavar="SAW…", help="What the customer saw, oldest first.")],
) -> None:
    """Print what makes up the score of a product for a customer who saw others.

    Example: `shelfspace explain reports/default P00017 P00002 P00005`
    """
    from shelfspace.use import runs

    typer.echo(runs.open(run).explain(saw, product).to_string(float_format="{:.3f}".format))


@app.command()
def export(
    run: RUN,
    to: Annotated[str, typer.Option(help="word2vec (gensim, Embedding Projector), parquet, faiss or npz.")],
    out: Annotated[Path | None, typer.Option(help="File to write; in RUN/exports by default.")] = None,
    embedding: Annotated[str, typer.Option(help="word2vec or starspace; the one that the run chose by default.")] = "",
) -> None:
    """Write the product embeddings in a form that other tools open.

    Examples:

    - `shelfspace export reports/default --to word2vec --out products.txt`
    - `shelfspace export reports/default --to faiss`
    """
    from shelfspace.use import exports, runs

    for path in exports.export(runs.open(run), to, out, embedding):
        typer.echo(os.path.relpath(path))


@app.command()
def drift(
    run: RUN,
    before: Annotated[list[Path], typer.Argument(metavar="BEFORE…", help="Runs of the days before, the newest first.")],
) -> None:
    """Print what a day kept of the day before, and say whether it may take its place.

    It may not, and the command fails, where its input is unlike those of the days before, or where it is worse beyond chance.

    Example: `shelfspace drift reports/airflow/2024-04-02 reports/airflow/2024-04-01`
    """
    from shelfspace.use import drift as days

    found = days.drift(run, before[0])
    for name, share in found["neighbours_kept"].items():
        typer.echo(f"{share:.1%} of the ten nearest products are the same by {name} ({found['by_chance']:.1%} by chance)")
    if found["user_vectors_kept"] is not None:
        typer.echo(f"{found['user_vectors_kept']:.3f} is the mean cosine of the vectors of {found['customers']:,} customers then and now")
    if "moved" in found:
        typer.echo(f"moved most: {', '.join(f'{p} ({c:.2f})' for p, c in found['moved'].head(10).itertuples(index=False))}")
    days.check(run, before)
    typer.echo("nothing speaks against it")


@app.command()
def serve(
    run: RUN,
    host: Annotated[str, typer.Option(help="Address to listen on; this machine alone by default.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", min=0, max=65535)] = 8000,
) -> None:
    """Answer over HTTP: POST /recommend, GET /similar, /health, /metrics; /docs shows them all.

    RUN may be a link: when it is turned to a newer run, or the run is made anew, that one is loaded beside and then answers. There is no
    password and no encryption; whoever opens it to others puts it behind a proxy that has both.

    Examples:

    - `shelfspace serve reports/default`
    - `curl -d '{"history": ["P00002", "P00005"], "k": 5}' -H 'content-type: application/json' localhost:8000/recommend`
    """
    for name in ("fastapi", "uvicorn", "prometheus_client"):
        if importlib.util.find_spec(name) is None:
            raise ValueError(f"The service needs {name}; install what it takes with: pip install 'shelfspace[serve]'.")
    from shelfspace.use import service

    service.serve(run, host, port)


def _pairs(columns: str) -> dict[str, str]:
    """The names of columns as --columns takes them."""
    pairs = [pair.partition("=") for pair in columns.split(",") if pair.strip()]
    if not all(name.strip() and equals for name, equals, _ in pairs):
        raise ValueError(f"--columns is {columns!r}; it must be pairs of NAME=COLUMN, each name once, with commas between.")
    return {name.strip(): column.strip() for name, _, column in pairs}


@app.command()
def simulate(
    out: Annotated[Path, typer.Option(help="File to write: .csv, .parquet or .jsonl.")],
    users: Annotated[int, typer.Option(help="Number of customers.")] = 30_000,
    products: Annotated[int, typer.Option(help="Number of products.")] = 3_000,
    days: Annotated[int, typer.Option(help="Days that the log covers.")] = 28,
    visits: Annotated[float, typer.Option(help="Median of a customer's visits.")] = 8.6,
    seed: Annotated[int, typer.Option(help="One seed gives the same bytes.")] = 0,
    truth: Annotated[
        Path | None, typer.Option(help="Folder for what is true of the shop: users, products, complements, substitutes.")
    ] = None,
) -> None:
    """Write the log of a simulated electronics-and-home shop.

    Example: `shelfspace simulate --users 5000 --products 800 --out data/shop.csv`
    """
    from shelfspace.shop import write

    events = write.simulate(out, users, products, days, seed, visits, truth)
    typer.echo(f"{out}: {events:,} events of {users:,} users and {products:,} products")


@app.command()
def benchmark(
    split: Annotated[
        Path,
        typer.Argument(
            metavar="SPLIT_DIR", help="Folder with train_sessions.parquet (session, items) and test_prefixes.parquet (prefix, target)."
        ),
    ],
    out: Annotated[Path | None, typer.Option(help="JSON file to write the result to.")] = None,
    models: Annotated[str, typer.Option(help="Only these models, as markov,tied; all by default.")] = "",
    shortest: Annotated[int, typer.Option(help="Prefixes of so many products at least train the networks.")] = 1,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
) -> None:
    """Train and measure every model on a published split of session recommendation.

    Prints HR@20 and MRR@20 in % (of all test rows, of targets that the prefix held, and of new ones among the products that
    it did not hold), seconds and peak memory. Test rows are scored as they stand; settings are chosen on the last training sessions.

    Example: `shelfspace benchmark data/yoochoose1_64 --out yoochoose.json`
    """
    from shelfspace.files import run_files
    from shelfspace.trials import benchmark

    if out and out.is_dir():
        raise ValueError(f"{out} is a folder; --out takes the name of a JSON file.")
    names = [name.strip() for name in models.split(",") if name.strip()]
    result = benchmark.run(split, names, seed=seed, shortest=shortest, say=typer.echo)
    typer.echo("\n" + benchmark.table(result))
    if out:
        run_files.write_json(out, result)


@app.command()
def notebooks(folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to write them to.")]) -> None:
    """Write the notebooks to a folder, to be read, changed, and run from there.

    Each is a script (.py) paired with an .ipynb: JupyterLab opens both, and `jupytext --sync` carries a change of one to the other.
    `shelfspace report` runs the scripts.

    Example: `shelfspace notebooks mine && shelfspace report --notebooks mine`
    """
    from shelfspace.files import places

    typer.echo(
        f"{len(places.copy_notebooks(folder))} files are in {folder}; run them with: shelfspace report --notebooks {shlex.quote(str(folder))}"
    )


@app.command()
def parameters() -> None:
    """List every parameter of the notebooks: name, default, which notebooks use it, what it means and what it may be."""
    from shelfspace.files import stages

    for parameter in stages.parameters():
        if parameter.name not in stages.PLUMBING:
            numbers = ", ".join(name.split("_")[0] for name in parameter.notebooks)
            typer.echo(f"{parameter.name:<18} {parameter.default!r:<34} [{numbers}] {parameter.help} ({parameter.what})")


def _end_at_once() -> None:
    """Spare the interpreter its last act, which is to go through all that libraries hold and takes a second; DuckDB would complain."""
    if "duckdb" in sys.modules:
        gc.unfreeze()
    else:
        gc.freeze()


def main() -> None:
    """Run the command line; errors that the user can mend are one sentence."""
    sys.modules.setdefault("rfc3987_syntax", None)  # jsonschema's grammars take a second, for a format that no notebook has
    logging.getLogger("papermill").setLevel(logging.CRITICAL)  # its word on a kernel that died, which is told in a sentence
    atexit.register(_end_at_once)
    try:
        app(standalone_mode=True)
    except SystemExit as end:
        if end.code != INTERRUPTED:
            raise
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # which else tells at the end of the kernel that was stopped
        _stop("stopped; the next call picks up where this one was.", INTERRUPTED)
    except MemoryError:
        if os.environ.get("SHELFSPACE_DEBUG"):
            raise
        _stop("there is not enough memory; try a smaller log, last_days, or a machine with more.", 1)
    except (ValueError, OSError, RuntimeError) as error:
        if os.environ.get("SHELFSPACE_DEBUG"):
            raise
        from shelfspace.run.execution import StageError

        text = str(error)
        if isinstance(error, OSError) and error.strerror:
            named = error.filename2 or error.filename
            text = f"{error.strerror}: {named}" if named else f"{error.strerror}."
        _stop(text, 1 if isinstance(error, (StageError, OSError)) else 2)


def _stop(text: str, code: int) -> None:
    sys.stdout.flush()
    print(f"\nshelfspace: {text}", file=sys.stderr)
    sys.exit(code)
