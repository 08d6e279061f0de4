"""The service: the run's own answers over HTTP, one sentence for what will not do, and newer runs taken in while it answers."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import sys
import threading
import time
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="The service is an extra; `make extras` installs it.")
pytest.importorskip("uvicorn")

import pandas as pd
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_installed import readme

from shelfspace import cli
from shelfspace.use import runs, service


@pytest.fixture(scope="module")
def client(small_run):
    with TestClient(service.app(service.Service(small_run.folder))) as client:
        yield client


@pytest.fixture(scope="module")
def run(small_run) -> runs.Run:
    return runs.open(small_run.folder)


def test_a_customer_of_the_run_gets_the_runs_own_recommendations(client, run):
    sequences = pd.read_parquet(run.folder / "sequences.parquet")
    wanted = pd.read_parquet(run.folder / "recommendations.parquet")
    last = sequences[sequences.role == "target"].groupby("user_id").position.max()
    rows = sequences[sequences.position < sequences.user_id.map(last).fillna(len(sequences))]
    for user, history in list(rows.groupby("user_id"))[:25]:
        events = [
            {"product_id": p, "timestamp": f"{t.isoformat()}Z", "event": e}
            for p, t, e in zip(history.product_id, history.timestamp, history.event)
        ]
        found = client.post("/recommend", json={"history": events, "user_id": user}).json()
        own = wanted[wanted.user_id == user]
        assert found["by"] == run.model and [each["rank"] for each in found["products"]] == own["rank"].tolist()
        assert [each["score"] for each in found["products"]] == pytest.approx(own.score.tolist(), abs=1e-5)
        assert len({each["product_id"] for each in found["products"]} & set(own.product_id)) >= len(own) - 1  # but for a tie at the end


def test_options_of_a_request(client, run):
    saw = run.product_ids[:3].tolist()
    few = client.post("/recommend", json={"history": saw, "k": 4}).json()
    assert [each["rank"] for each in few["products"]] == [1, 2, 3, 4]
    new = client.post("/recommend", json={"history": saw, "k": 100, "seen": False}).json()
    assert not set(saw) & {each["product_id"] for each in new["products"]}
    seconds = [{"product_id": name, "timestamp": 1_700_000_000 + at} for at, name in enumerate(saw)]
    assert client.post("/recommend", json={"history": seconds}).json()["by"] == run.model


def test_what_the_run_does_not_know_is_answered_all_the_same(client, run):
    most = client.post("/recommend", json={"history": ["?"], "k": 3}).json()
    assert most["by"] == "popularity" and most["products"][0]["score"] is None
    assert client.post("/recommend", json={"history": [], "k": 3}).json() == most
    assert client.get("/similar", params={"product_id": "?", "k": 3}).json() == most
    assert client.post("/recommend", json={"history": ["?", run.product_ids[0]]}).json()["by"] == run.model
    assert client.post("/recommend", json={"history": [run.product_ids[0]], "user_id": "nobody"}).json()["by"] == run.model


def test_similar_health_metrics_and_the_description(client, run):
    product = run.product_ids[run.known][0]
    found = client.get("/similar", params={"product_id": product, "k": 4}).json()
    assert [each["product_id"] for each in found["products"]] == run.similar(product, 4).product_id.tolist() and found["by"] == "embedding"
    health = client.get("/health").json()
    assert health == {"status": "ok", "run": run.folder.name, "model": run.model, "products": len(run.product_ids)}
    said = client.get("/metrics").text
    assert 'shelfspace_requests_total{path="/similar",status="200"}' in said and "process_resident_memory_bytes" in said
    described = client.get("/openapi.json").json()
    assert set(described["paths"]) == {"/recommend", "/similar", "/health", "/metrics"}
    assert client.get("/docs").status_code == 200


EVENT = {"product_id": "P00001", "timestamp": "2024-01-01"}


@pytest.mark.parametrize(
    "body, status, sentence",
    [
        ("{", 422, "The body is no JSON: "),
        ("[" * 100_000, 400, "There was an error parsing the body"),
        ("{}", 422, "history: Field required."),
        ("[]", 422, "The request: Input should be a valid dictionary"),
        ('{"history": [1]}', 422, "history.0: Input should be a valid string."),
        ('{"history": [""]}', 422, "history.0: String should have at least 1 character."),
        ('{"history": ["a"], "k": 0}', 422, "k: Input should be greater than or equal to 1."),
        ('{"history": ["a"], "k": 101}', 422, "k: Input should be less than or equal to 100."),
        ('{"history": ["a"], "k": "5"}', 422, "k: Input should be a valid integer."),
        ('{"history": ["a"], "seen": "yes"}', 422, "seen: Input should be a valid boolean."),
        ('{"history": ["a"], "sen": true}', 422, "sen: Extra inputs are not permitted."),
        ('{"history": ["\\ud800"]}', 422, "history.0: "),
        (json.dumps({"history": ["a"] * 1001}), 422, "history: List should have at most 1000 items"),
        (json.dumps({"history": [EVENT, "a"]}), 422, "all events of a history need a timestamp, or none of them."),
        (json.dumps({"history": [EVENT | {"event": "look"}]}), 422, "history.0.event: Input should be 'view', 'add_to_cart' or 'purchase'."),
        (json.dumps({"history": [EVENT | {"timestamp": "31.05.2024"}]}), 422, "history.0.timestamp: Input should be a valid datetime"),
        (json.dumps({"history": [EVENT | {"timestamp": 5}]}), 422, "history.0.timestamp: it must lie between 1995 and 2100."),
        (json.dumps({"history": [EVENT | {"timestamp": float("nan")}]}), 422, "history.0.timestamp: "),
        (json.dumps({"history": [EVENT | {"timestamp": float("inf")}]}), 422, "history.0.timestamp: "),
        (json.dumps({"history": [EVENT | {"timestamp": "0001-01-01T00:00:00+14:00"}]}), 422, "history.0.timestamp: "),
        (json.dumps({"history": ["a" * 999] * 1001}), 413, "The request has more than 1,000,000 bytes."),
    ],
)  # fmt: skip
def test_what_will_not_do_is_one_sentence(client, body, status, sentence):
    found = client.post("/recommend", content=body, headers={"content-type": "application/json"})
    assert found.status_code == status and sentence in found.json()["detail"] and "\n" not in found.json()["detail"]


def test_a_body_that_does_not_say_its_length_is_bounded_too(client):
    found = client.post("/recommend", content=(b" " * 100_000 for _ in range(20)), headers={"content-type": "application/json"})
    assert found.status_code == 413


def test_other_ways_to_ask_wrongly(client):
    assert client.get("/recommend").status_code == 405 and client.get("/nowhere").status_code == 404
    assert client.get("/similar").json()["detail"] == "product_id: Field required."
    assert client.get("/similar", params={"product_id": "a", "k": "many"}).status_code == 422
    assert client.post("/recommend", content=b"\xff\xfe", headers={"content-type": "application/json"}).status_code in (400, 422)
    assert client.post("/recommend", content=b"a=b", headers={"content-type": "text/plain"}).status_code == 422


leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(["P00001", "view", "2024-01-01", 1e300, -1, 10**30]),
)
keys = st.sampled_from(["history", "k", "seen", "user_id", "product_id", "timestamp", "event", "x"])
anything = st.recursive(leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=5), max_leaves=12)
near = st.fixed_dictionaries(
    {"history": st.lists(st.one_of(st.text(max_size=5), st.sampled_from(["P00001"]), st.fixed_dictionaries({"product_id": st.just("P00002"), "timestamp": leaves})), max_size=5)},
    optional={"k": leaves, "seen": leaves, "user_id": leaves},
)  # fmt: skip
texts = st.one_of(near.map(json.dumps), anything.map(json.dumps), st.text(max_size=60))


@settings(max_examples=1000, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(texts)
def test_no_request_breaks_it(client, body):
    found = client.post("/recommend", content=body.encode("utf-8", "surrogatepass"), headers={"content-type": "application/json"})
    assert found.status_code in (200, 400, 422), found.text
    assert (found.status_code == 200) == ("products" in found.json())


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(st.sampled_from(["product_id", "k", "x"]), st.text(st.characters(exclude_categories=["Cs"]), max_size=300), max_size=3)
)
def test_no_question_breaks_it(client, asked):
    assert client.get("/similar", params=asked).status_code in (200, 422)


def copied(run: Path, folder: Path) -> Path:
    """A run of another name, whose record is newer than that of any copy before."""
    shutil.copytree(run, folder, ignore=shutil.ignore_patterns("notebooks", "shop"))
    return folder


def test_a_link_that_is_turned_brings_the_newer_run_and_loses_no_request(small_run, tmp_path):
    for name in ("monday", "tuesday"):
        copied(small_run.folder, tmp_path / name)
    (tmp_path / "current").symlink_to("monday")
    serving = service.Service(tmp_path / "current", watch=0.05)
    by, wrong, over = set(), [], threading.Event()
    with TestClient(service.app(serving)) as client:

        def ask():
            while not over.is_set():
                found = client.post("/recommend", json={"history": ["P00001", "P00002"], "k": 5})
                wrong.extend([] if found.status_code == 200 and len(found.json()["products"]) == 5 else [found.text])
                by.add(found.json().get("run"))

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        (tmp_path / "next").symlink_to("tuesday")
        os.replace(tmp_path / "next", tmp_path / "current")
        until = time.monotonic() + 60
        while client.get("/health").json()["run"] != "tuesday" and time.monotonic() < until:
            time.sleep(0.05)
        time.sleep(0.3)
        over.set()
        for thread in threads:
            thread.join()
        assert by == {"monday", "tuesday"} and not wrong
        assert 'shelfspace_swaps_total{result="taken"} 1.0' in client.get("/metrics").text


def test_a_newer_run_that_cannot_be_loaded_leaves_the_old_one(small_run, tmp_path):
    copied(small_run.folder, tmp_path / "monday")
    copied(small_run.folder, tmp_path / "broken")
    (tmp_path / "broken" / "recommender_ranked.txt").write_text("no trees")
    (tmp_path / "broken" / "decay.json").write_text("{")
    (tmp_path / "current").symlink_to("monday")
    with TestClient(service.app(service.Service(tmp_path / "current", watch=0.05))) as client:
        (tmp_path / "next").symlink_to("broken")
        os.replace(tmp_path / "next", tmp_path / "current")
        until = time.monotonic() + 30
        while 'result="refused"} 1.0' not in client.get("/metrics").text and time.monotonic() < until:
            time.sleep(0.05)
        assert 'result="refused"} 1.0' in client.get("/metrics").text
        assert client.get("/health").json()["run"] == "monday"
        assert client.post("/recommend", json={"history": ["P00001"]}).status_code == 200


def test_too_many_that_wait_are_told_to_come_back(small_run, monkeypatch):
    monkeypatch.setattr(service, "WAITING", 0)
    with TestClient(service.app(service.Service(small_run.folder))) as client:
        found = client.post("/recommend", json={"history": ["P00001"]})
        assert found.status_code == 503 and found.headers["retry-after"] == "1"


def test_the_commands_and_the_python_of_the_readme(small_run, tmp_path, monkeypatch):
    lines = readme("From a report to answers")[5:]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports" / "default").symlink_to(small_run.folder)
    pd.read_parquet(small_run.folder / "shop" / "events.parquet").head(300).to_parquet("today.parquet")
    commands = [line.partition(" #")[0].strip() for line in lines if line.startswith("shelfspace ")]
    assert [command.split()[1] for command in commands] == ["recommend", "similar", "explain", "export"]
    for command in commands:
        out = " --out e.txt" if " export " in command else ""  # the run is not to be changed
        monkeypatch.setattr(sys, "argv", shlex.split(command + out))
        with pytest.raises(SystemExit) as end:
            cli.main()
        assert end.value.code == 0
    code = "\n".join(line for line in lines if re.match(r"import|run", line))
    assert code.count("run.") == 5
    new = pd.DataFrame({"product_id": ["n"], "category": ["phones"], "price": [9.5]})
    exec(code, {"new_products": new})
