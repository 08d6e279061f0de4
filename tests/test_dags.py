"""The Airflow DAG: its shape, and a run of it on a small shop that was killed on its way."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest
from conftest import AIRFLOW, SMALL

from shelfspace.files import places, run_files, stages
from shelfspace.run import pipeline

pytestmark = pytest.mark.skipif(not AIRFLOW, reason="Airflow is not installed (make extras), so its DAG is not tested.")

SHAPE = {
    "log": [],
    "prepare": ["log"],
    "train.word2vec": ["prepare"],
    "train.starspace": ["prepare"],
    "train.compare": ["train.starspace", "train.word2vec"],
    "validate": ["train.compare"],
    "user_embeddings.decay": ["validate"],
    "user_embeddings.histories": ["validate"],
    "user_embeddings.weights": ["user_embeddings.decay", "user_embeddings.histories"],
    "user_embeddings.sums": ["user_embeddings.weights"],
    "user_embeddings.averages": ["user_embeddings.sums"],
    "check": ["user_embeddings.averages"],
    "export": ["check"],
    "recommend.dense": ["export"],
    "recommend.tied": ["export"],
    "recommend.rank": ["recommend.dense", "recommend.tied"],
    "evaluate": ["recommend.rank"],
    "judge": ["evaluate"],
}
LOOK = """
import json, sys
from airflow.dag_processing.dagbag import DagBag
bag = DagBag(dag_folder=sys.argv[1])
dag = bag.dags["product_embeddings"]
print("found " + json.dumps({
    "errors": bag.import_errors, "shape": {task.task_id: sorted(task.upstream_task_ids) for task in dag.tasks},
    "retries": [task.retries for task in dag.tasks], "schedule": dag.timetable.expression,
    "params": {name: dag.params.get_param(name).description for name in dag.params},
}))
"""


ASK = """
sys.path.insert(0, sys.argv[1])
import product_embeddings as dag
for asked in json.loads(sys.argv[2]):
    params = {name: param.value for name, param in dag.PARAMS.items()} | asked["params"]
    dag.get_current_context = lambda: {"params": params, "run_id": asked["run_id"]}
    try:
        print("asked " + json.dumps(dag.asked(), default=str))
    except ValueError as error:
        print("asked " + json.dumps(str(error)))
"""
TRIGGERS = (
    ({"data": "/etc/passwd"}, "a"), ({"out": "/tmp/x"}, "a"), ({"out": "reports"}, "../../src"), ({"engine": "spark", "engine_url": "spark://x:1"}, "a"),
    ({"images": "/etc"}, "a"), ({"data": "data/log.csv"}, "a"),
)  # fmt: skip


@pytest.fixture(scope="module")
def told(tmp_path_factory) -> str:
    """What a process that loads Airflow but once says of the DAG, and of what some triggers ask for."""
    environment = {name: text for name, text in os.environ.items() if not name.startswith("SHELFSPACE_")}
    environment["AIRFLOW_HOME"] = str(tmp_path_factory.mktemp("airflow"))
    asked = json.dumps([{"params": params, "run_id": run_id} for params, run_id in TRIGGERS])
    words = [sys.executable, "-c", LOOK + ASK, places.ROOT / "dags", asked]
    return subprocess.run(words, env=environment, capture_output=True, text=True, check=True).stdout


def test_the_dag_has_the_articles_shape_and_says_what_can_be_set(told):
    found = json.loads(re.search("^found (.*)$", told, re.M)[1])
    assert found["errors"] == {} and min(found["retries"]) >= 1 and found["schedule"] == "0 0 * * *"
    tail = [stage.name.partition("_")[2] for stage in stages.stages()[6:]] + ["report", "publish"]
    assert found["shape"] == SHAPE | dict(zip(tail, [[name] for name in ["judge", *tail]]))
    for parameter in stages.parameters():
        if parameter.name not in {"run_dir", "since", "until", "last_days"}:
            assert found["params"][parameter.name], parameter.name
    assert found["params"]["out"] and found["params"]["window_days"]


def test_a_trigger_names_only_what_the_settings_allow(told):
    *refused, allowed = [json.loads(line) for line in re.findall("^asked (.*)$", told, re.M)]
    settings = ["SHELFSPACE_DATA", "SHELFSPACE_OUT", "SHELFSPACE_OUT", "SHELFSPACE_ENGINES", "SHELFSPACE_DATA"]
    assert [setting in sentence for setting, sentence in zip(settings, refused, strict=True)] == [True] * 5
    assert allowed["data"] == str(places.ROOT / "data" / "log.csv") and allowed["out"] == str(places.ROOT / "reports" / "airflow" / "a")


def test_a_killed_dag_run_goes_on_where_it_stopped_and_ends(second_run):
    assert "\nended 0\n" in second_run.said
    killed = (second_run.folder.parent / "killed").stat().st_mtime
    records = second_run.folder / ".stages"
    assert (records / "01_prepare.json").stat().st_mtime < killed < (records / "03_validate_embeddings.json").stat().st_mtime
    trained = [path.stat().st_mtime < killed for path in (records / "made" / "product_embeddings").glob("*.json")]
    assert len(trained) == 2 and any(trained)
    for table in ("histories", "weights", "sums"):
        assert (second_run.folder / "user_tables" / f"{table}.parquet").stat().st_mtime > killed


def test_the_window_ends_with_the_data_interval(second_run):
    parameters = run_files.read_json(second_run.folder / "params.json")["parameters"]
    assert (parameters["since"], parameters["until"]) == ("2024-03-04T00:00:00", "2024-04-01T00:00:00")


def test_what_the_tasks_made_the_report_command_finds_up_to_date(second_run):
    given = SMALL | {"since": "2024-03-04T00:00:00", "until": "2024-04-01T00:00:00"}
    said: list[str] = []
    command = run_files.read_json(second_run.folder / "params.json")["command"]
    pipeline.run(out=second_run.folder, given=given, command=command, say=said.append)
    assert "".join(said).count("reused") == len(stages.stages()) + 1


def test_a_spoiled_day_is_stopped_before_anything_is_made_of_it(second_run):
    runs, (day, spoiled) = second_run.folder.parent, re.findall(r"^(.*?)^ended ([^\n]+)$", second_run.said, re.M | re.S)
    assert day[1] == "0" and spoiled[1] != "0"
    assert re.search(
        r"AirflowFailException: What the log holds is unlike the days before\. 2024-04-01: It has \d+ events, where", spoiled[0]
    )
    assert (runs / "current").readlink().name == "2024-04-01" and not (runs / "2024-04-02").exists()
