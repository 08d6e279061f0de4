"""The article's pipeline as an Airflow DAG: every day, embeddings, recommendations and a report of the days before.

    log → prepare → train: word2vec ∥ starspace → compare → validate
        → user embeddings: decay ∥ histories → weights → sums → averages → check → export
        → recommend: dense ∥ tied → rank → evaluate → judge → report → publish

Each task is a notebook that papermill runs, or a part of one; the four of the user embeddings between `decay` and `export`
are relational and each writes one table. All go through `shelfspace.run.pipeline`, as `shelfspace report` does: a task that ends
leaves whole files and a record, one that is killed leaves neither, so it can be tried again at any time, and what is up to date
is not made twice. Airflow's own operator for papermill writes its notebook in place and keeps no record, so it is not used.

Day over day: training starts from the vectors of the newest day before (`from_day_before`). `log` stops a day before anything is made of
it, where the log cannot be read or its new days are unlike those before; `check` one whose input is unlike that of the runs before, or
whose embeddings are worse beyond chance, before anything leaves it; `judge` one whose recommendations are. `publish` turns the link
``current`` to the day that passed, so that until then yesterday's stays in use (`shelfspace.use.drift`). Whoever has looked at a stopped
day and finds it good marks the task as a success, and the run goes on.

The window: a run learns from the `window_days` days that end with its data interval, and writes to a folder of that day.

    airflow dags test product_embeddings 2024-04-01         # the simulated shop, whose log ends on that day
    airflow dags test product_embeddings 2024-04-01 --conf '{"data": "data/clicks/*.parquet", "dim": 64}'

Whoever may trigger a run names its log, its folder and its engine. SHELFSPACE_DATA, SHELFSPACE_OUT and SHELFSPACE_ENGINES, in the
environment of the tasks, say which of them are allowed (`shelfspace.run.triggers`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from airflow.exceptions import AirflowFailException
from airflow.sdk import CronDataIntervalTimetable, Param, dag, get_current_context, task, task_group

from shelfspace.files import parameters, places, stages
from shelfspace.run import pipeline, triggers
from shelfspace.use import drift

WINDOW = {"since", "until", "last_days"}  # said by the data interval and window_days
NOTEBOOKS = [p for p in stages.parameters() if p.name not in stages.PLUMBING | WINDOW]
TYPES = {bool: "boolean", int: "integer", float: "number", str: "string", type(None): ["null", "number"]}


def schema(parameter: parameters.Parameter) -> dict:
    """What a parameter may be, in JSON Schema."""
    allowed = parameter.allowed
    found = {"type": TYPES[type(parameter.default)]} | ({"enum": list(allowed.choices)} if allowed.choices else {})
    if not allowed.items:
        found |= {"exclusiveMinimum" if allowed.above else "minimum": allowed.low} if allowed.low is not None else {}
        found |= {"exclusiveMaximum" if allowed.below else "maximum": allowed.high} if allowed.high is not None else {}
    return found


PARAMS = {
    "data": Param("shop", "The log: a file, folder or pattern of CSV, Parquet, JSON Lines or Excel, from the project's root; shop simulates one.", type="string"),
    "columns": Param("", "The log's own names: user_id=visitorid,product_id=itemid,…", type="string"),
    "out": Param("reports/airflow", "Folder of the runs, each in a folder of its day; from the project's root.", type="string"),
    "from_day_before": Param(True, "Start from the vectors of the newest day before, so that they can be compared.", type="boolean"),
    "window_days": Param(7, "Days of events, up to the end of the data interval; 1: the interval alone; 0: all before.", type="number", minimum=0),
} | {
    p.name: Param(p.default, p.help, section=p.notebooks[0], **schema(p))
    for p in NOTEBOOKS
}  # fmt: skip


def asked() -> dict:
    """What the run at hand is asked for, as `pipeline.run` and `pipeline.part` take it."""
    from shelfspace import cli

    context = get_current_context()
    params, end = context["params"], context.get("data_interval_end")
    given = {p.name: params[p.name] for p in NOTEBOOKS if params[p.name] != p.default}
    if end is None:  # started by hand, without a date
        window = {"last_days": params["window_days"]}
    else:
        end = end.astimezone(UTC).replace(tzinfo=None)
        since = end - timedelta(days=params["window_days"])
        window = {"since": since.isoformat() if params["window_days"] else "", "until": end.isoformat()}
    given |= {name: value for name, value in window.items() if value}
    out = places.ROOT / params["out"] / (f"{end:%Y-%m-%d}" if end else context["run_id"])
    if params["from_day_before"] and not params["start"] and (before := drift.earlier(out, 1)):
        given["start"] = str(before[0])
    triggers.check(params["data"], out, params["engine_url"], params["images"], params["start"])
    data = params["data"] if params["data"] == "shop" else str(places.ROOT / params["data"])
    opening = {"data": data, "out": out, "columns": params["columns"], "given": given}
    return opening | {"command": cli.command(**opening)}


@task
def notebook(only: str) -> str:
    """Run a notebook, or a part of it, unless it is up to date."""
    return str(pipeline.run(**asked(), only=only, jobs=1))  # its parts are tasks of their own


@task
def table(step: str) -> None:
    """Make one table of the user embeddings."""
    from shelfspace.logs import engines
    from shelfspace.models import relational

    with pipeline.part("04", **asked()) as (out, _, values, fresh):
        if not fresh:
            relational.materialise(engines.connect(values["engine"], values["engine_url"]), out, step)


@contextmanager
def stopped_for_good() -> Iterator[None]:
    """Fail without another try what is refused: to try again would change nothing."""
    try:
        yield
    except ValueError as error:
        raise AirflowFailException(str(error)) from None


@task
def look_at_log() -> None:
    """Stop a day whose log cannot be read, or is unlike the days before; the simulated shop, and a run without a date, pass."""
    from shelfspace.logs import events

    context = get_current_context()
    given, end = asked(), context.get("data_interval_end")
    if given["data"] == "shop" or end is None:
        return
    names = dict(pair.split("=", 1) for pair in given["columns"].split(",") if pair)
    with stopped_for_good():
        log = events.read(given["data"], names, time_format=context["params"]["time_format"])
        drift.check_log(log.table, end.astimezone(UTC), drift.earlier(given["out"]))


@task
def pass_or_stop() -> None:
    """Stop a day that is unlike the days before, or worse."""
    out = asked()["out"]
    with stopped_for_good():
        drift.check(out, drift.earlier(out))


@task
def publish() -> str:
    """Turn the link to this day."""
    return str(drift.publish(asked()["out"]))


@dag(
    schedule=CronDataIntervalTimetable("0 0 * * *", timezone="UTC"),
    start_date=datetime(2024, 3, 4),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 2, "retry_delay": timedelta(minutes=1)},
    params=PARAMS,
    tags=["shelfspace"],
    doc_md=__doc__,
)
def product_embeddings():
    def run(name: str, only: str):
        return notebook.override(task_id=name)(only)

    @task_group
    def train():
        [run("word2vec", "02:word2vec"), run("starspace", "02:starspace")] >> run("compare", "02")

    @task_group
    def user_embeddings():
        steps = [table.override(task_id=step)(step) for step in ("histories", "weights", "sums", "averages")]
        [steps[0], run("decay", "04:decay")] >> steps[1] >> steps[2] >> steps[3]

    @task_group
    def recommend():
        [run("dense", "05:dense"), run("tied", "05:tied")] >> run("rank", "05")

    def look(name: str):
        return pass_or_stop.override(task_id=name)()

    chain = [look_at_log.override(task_id="log")(), run("prepare", "01"), train(), run("validate", "03"), user_embeddings()]
    chain += [look("check"), run("export", "04"), recommend(), run("evaluate", "06"), look("judge")]
    chain += [run(name.partition("_")[2], name[:2]) for name in sorted(p.stem for p in Path(places.NOTEBOOKS).glob("0[7-9]_*.py"))]
    report = run("report", "report")
    for earlier, later in zip([*chain, report], [*chain[1:], report, publish()]):
        earlier >> later


product_embeddings()
