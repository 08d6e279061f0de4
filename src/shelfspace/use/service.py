"""A run answering over HTTP, for trying it out: recommendations and similar products, its health and its figures.

Requests that wait at the same time are scored together. When the folder's run is made anew, or a link is turned to another run, that
one is loaded beside the one that answers and takes its place between two requests; one that cannot be loaded is logged, and the old
one stays.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from concurrent.futures import Future
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import Annotated, Literal

import numpy as np
import uvicorn
from fastapi import FastAPI, HTTPException, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.process_collector import ProcessCollector
from pydantic import BaseModel, ConfigDict, Field, StrictBool, field_validator, model_validator

from shelfspace.logs.clean import FIRST, LAST
from shelfspace.measure.ranking import top_k
from shelfspace.sequences.arrays import EVENT_LEVELS, Examples
from shelfspace.use import histories, runs
from shelfspace.use.runs import Run
from shelfspace.vectors.threads import one_blas_thread

BODY = 1_000_000  # bytes of a request
VISITS, K, LONG = 1_000, 100, 200  # events of a history, products of an answer, characters of an id
TOGETHER = 16  # requests that are scored at once
WATCH = 2.0  # seconds between two looks at the folder
WAITING = 1_000  # requests that may wait; one more is told to come back
log = logging.getLogger("uvicorn.error")

Id = Annotated[str, Field(min_length=1, max_length=LONG)]


class Seen(BaseModel):
    """An event of a customer."""

    model_config = ConfigDict(extra="forbid")
    product_id: Id
    timestamp: datetime | None = Field(None, description="ISO 8601, UTC unless a zone is given; or seconds since 1970.")
    event: Literal[EVENT_LEVELS] = "view"

    @field_validator("timestamp")
    @classmethod
    def _within(cls, at: datetime | None) -> datetime | None:
        if at is None:
            return None
        at = at if at.tzinfo else at.replace(tzinfo=UTC)
        if not FIRST <= at.timestamp() < LAST:
            raise ValueError("it must lie between 1995 and 2100")
        return at


class Ask(BaseModel):
    """Who asks, and for how much."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"history": ["P00002", "P00005"], "k": 5}]})
    history: Annotated[list[Id | Seen], Field(max_length=VISITS)] = Field(
        description="What the customer saw, oldest first: product ids, or events; all of them with a time, or none."
    )
    k: int = Field(20, ge=1, le=K, strict=True, description="Products to recommend.")
    seen: StrictBool | None = Field(None, description="Whether products of the history may be among them; as in the run by default.")
    user_id: Id | None = Field(None, description="If the run knows the customer, what it counted of them is left out of their scores.")

    @model_validator(mode="after")
    def _all_or_none(self) -> Ask:
        times = [isinstance(each, Seen) and each.timestamp is not None for each in self.history]
        if any(times) and not all(times):
            raise ValueError("all events of a history need a timestamp, or none of them")
        return self


class Product(BaseModel):
    """A product of an answer, the best first."""

    rank: int
    product_id: str
    score: float | None = Field(description="Of the recommender, or the cosine of `similar`; none where popularity ranks.")


class Answer(BaseModel):
    """What a request is given."""

    run: str = Field(description="The run that answered, by the name of its folder.")
    by: str = Field(description="ranked, tied or dense; embedding, of `similar`; popularity where no product asked with is known.")
    products: list[Product]


@dataclass(frozen=True)
class Job:
    """A request that waits for its scores."""

    examples: Examples
    k: int
    seen: bool
    run: Run
    done: Future


class Service:
    """The run that answers, the requests that wait, and the threads that score and watch.

    Parameters
    ----------
    folder : path
        A run, or a link to one.
    watch : float
        Seconds between two looks at it.

    Raises
    ------
    ValueError
        If it is no finished run.
    """

    def __init__(self, folder: str | Path, watch: float = WATCH):
        self.folder, self.watch = Path(folder), watch
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = Counter("shelfspace_requests", "Answers given.", ["path", "status"], registry=self.registry)
        edges = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)
        self.seconds = Histogram("shelfspace_request_seconds", "Time to answer.", ["path"], buckets=edges, registry=self.registry)
        self.swaps = Counter("shelfspace_swaps", "Newer runs looked at, by what became of them.", ["result"], registry=self.registry)
        self.loaded = Gauge("shelfspace_run_loaded_timestamp_seconds", "When the run that answers was loaded.", registry=self.registry)
        self.state = state(self.folder)
        self.run = self._load()
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._stop = Event()
        self._threads = [Thread(target=each, daemon=True) for each in (self._score, self._look)]

    def start(self) -> None:
        """Begin to score and to watch."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Let the threads end; what waits is answered before."""
        self._stop.set()
        self._jobs.put(None)
        for thread in self._threads:
            thread.join(timeout=5)

    def _load(self) -> Run:
        """The run of the folder, with all that an answer takes."""
        run = runs.open(self.folder)
        first = histories.of_events(np.zeros(1, np.int32), np.array([FIRST * 1_000_000]), np.zeros(1, np.int8))
        list(run.answers(run.own.of(first), np.array([histories.ME]), 1))
        self.loaded.set_to_current_time()
        return run

    def _look(self) -> None:
        """Take a newer run in, as soon as there is one that can be loaded."""
        while not self._stop.wait(self.watch):
            now = state(self.folder)
            if now == self.state or now == (self.state[0], None, None):
                continue
            self.state = now
            try:
                run = self._load()
            except Exception as error:  # whatever is wrong with it, the old one answers on
                self.swaps.labels("refused").inc()
                log.error("%s cannot be loaded (%s); %s stays in use", self.folder, error or type(error).__name__, self.run.folder.name)
                continue
            self.run = run
            self.swaps.labels("taken").inc()
            log.info("%s answers now", run.folder)

    async def recommend(self, ask: Ask) -> Answer:
        """The best products for a history."""
        run = self.run
        examples = _examples(run, ask)
        if examples is None:
            return _answer(run, "popularity", run.product_ids[run.popular[: ask.k]])
        if self._jobs.qsize() >= WAITING:
            raise HTTPException(503, f"{WAITING:,} requests wait already; ask again later.", {"Retry-After": "1"})
        seen = run.settings.get("seen", True) if ask.seen is None else ask.seen
        job = Job(examples, ask.k, seen, run, Future())
        self._jobs.put(job)
        places, scores = await asyncio.wrap_future(job.done)
        return _answer(run, run.model, run.product_ids[places], scores)

    def _score(self) -> None:
        """Score what waits, several requests at once; a request of before a swap by the run that it met."""
        more = True
        with one_blas_thread():  # the matrices are small, and threads that wait for each other keep others from working
            while more:
                jobs = [self._jobs.get()]
                try:
                    while len(jobs) < TOGETHER:
                        jobs.append(self._jobs.get_nowait())
                except Empty:
                    pass
                more = None not in jobs
                jobs = [job for job in jobs if job is not None and job.done.set_running_or_notify_cancel()]
                for run in {id(job.run): job.run for job in jobs}.values():
                    self._answer([job for job in jobs if job.run is run], run)

    def _answer(self, jobs: list[Job], run: Run) -> None:
        try:
            scores = np.asarray(run.scores(histories.together([job.examples for job in jobs])))
            for job, row in zip(jobs, scores):
                if not job.seen:
                    row = row.copy()
                    row[job.examples.items[job.examples.start[0] : job.examples.end[0]]] = -np.inf
                (places,), (best,) = top_k(row[None], job.k)
                there = np.isfinite(best)
                job.done.set_result((places[there], best[there]))
        except Exception as error:
            for job in jobs:
                if not job.done.done():
                    job.done.set_exception(error)

    def similar(self, product: str, k: int) -> Answer:
        """The products nearest to one; the most visited ones where the run has no embedding of it."""
        run = self.run
        try:
            found = run.similar(product, k)
        except ValueError:
            return _answer(run, "popularity", run.product_ids[run.popular[:k]])
        return _answer(run, "embedding", found.product_id, found.similarity)


def state(folder: Path) -> tuple:
    """What changes when a folder holds another finished run: where it leads, and the record that a run writes last, if there is one."""
    place = str(folder.resolve())
    try:
        record = os.stat(Path(place) / ".stages" / "report.json")
        return place, record.st_ino, record.st_mtime_ns
    except OSError:  # no record: the run is being made anew, or was made without a report
        return place, None, None


def _examples(run: Run, ask: Ask) -> Examples | None:
    """The history of a request as the models take it; None where the run knows no product of it."""
    events = [
        each if isinstance(each, Seen) else Seen.model_construct(product_id=each, timestamp=None, event="view") for each in ask.history
    ]
    if not events:
        return None
    names = np.array([each.product_id for each in events])
    places = np.searchsorted(run.product_ids, names).clip(max=len(run.product_ids) - 1)
    known = run.product_ids[places] == names
    if not known.any():
        return None
    if events[0].timestamp is None:  # a minute apart, the newest now
        micros = (int(time.time()) - 60 * np.arange(len(events))[::-1]) * 1_000_000
    else:
        micros = np.array([round(each.timestamp.timestamp() * 1_000_000) for each in events])
    levels = np.array([EVENT_LEVELS.index(each.event) for each in events], np.int8)
    gap = run.settings.get("session_gap", 30.0)
    found = histories.of_events(places[known], micros[known], levels[known], gap, ask.user_id or histories.ME)
    return run.own.of(found) if ask.user_id else found


def _answer(run: Run, by: str, products, scores=None) -> Answer:
    scores = [None] * len(products) if scores is None else [float(score) for score in scores]
    named = [Product(rank=rank, product_id=str(name), score=score) for rank, (name, score) in enumerate(zip(products, scores), 1)]
    return Answer(run=run.folder.name, by=by, products=named)


def app(service: Service) -> FastAPI:
    """The paths over a service; `Service.start` is called as it begins, and `Service.stop` at its end."""

    @asynccontextmanager
    async def lifespan(_):
        service.start()
        yield
        await asyncio.to_thread(service.stop)

    made = FastAPI(title="Shelfspace", summary="A finished run, answering.", lifespan=lifespan)
    made.add_middleware(Guard, service=service)
    refusals = {422: {"model": Refusal, "description": "The request does not fit; the sentence says what would."}}

    @made.exception_handler(RequestValidationError)
    async def refuse(request: Request, error: RequestValidationError):
        return JSONResponse({"detail": _sentence(error)}, 422)

    @made.post("/recommend", responses=refusals | {413: {"model": Refusal, "description": f"More than {BODY:,} bytes."}})
    async def recommend(ask: Ask) -> Answer:
        """The best products for what a customer saw; the most visited ones where no product of it is known."""
        return await service.recommend(ask)

    @made.get("/similar", responses=refusals)
    async def similar(
        product_id: Annotated[str, Query(min_length=1, max_length=LONG)], k: Annotated[int, Query(ge=1, le=K)] = 10
    ) -> Answer:
        """The products nearest to one by their embeddings; the most visited ones where it is not known."""
        return service.similar(product_id, k)

    @made.get("/health")
    async def health() -> dict:
        """Which run answers."""
        run = service.run
        return {"status": "ok", "run": run.folder.name, "model": run.model, "products": len(run.product_ids)}

    @made.get("/metrics", response_class=PlainTextResponse)
    async def metrics():
        """Figures for Prometheus: answers by path and status, their times, swaps, memory."""
        return PlainTextResponse(generate_latest(service.registry), media_type=CONTENT_TYPE_LATEST)

    return made


class Refusal(BaseModel):
    """Why a request was not answered."""

    detail: str


def _sentence(error: RequestValidationError) -> str:
    """What does not fit, and where, without what was sent: that may be anything."""
    found = max(error.errors(), key=lambda each: len(each["loc"]))  # of an event, what its own form says
    if found["type"] == "json_invalid":
        return f"The body is no JSON: {_plain(found['ctx']['error'])}."
    place = [_plain(str(part)) for part in found["loc"][1:] if part not in ("Seen", "constrained-str")]
    return f"{'.'.join(place) or 'The request'}: {_plain(found['msg'].removeprefix('Value error, '))}."


def _plain(text: str) -> str:
    """The first `LONG` characters, of ASCII alone."""
    return text.encode("ascii", "replace").decode()[:LONG].rstrip(".")


class Guard:
    """Refuses bodies that are too long before they are read to the end, and counts what is answered."""

    def __init__(self, app, service: Service):
        self.app, self.service = app, service
        self.paths = ("/recommend", "/similar", "/health", "/metrics")

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        started, told, size = time.perf_counter(), [], 0

        async def bounded():
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > BODY:
                raise HTTPException(413, f"The request has more than {BODY:,} bytes.")
            return message

        async def noted(message):
            if message["type"] == "http.response.start":
                told.append(message["status"])
            await send(message)

        path = scope["path"] if scope["path"] in self.paths else "other"
        length = dict(scope["headers"]).get(b"content-length", b"0")
        try:
            if length.isdigit() and int(length[:20]) > BODY:
                await JSONResponse({"detail": f"The request has more than {BODY:,} bytes."}, 413)(scope, receive, noted)
            else:
                await self.app(scope, bounded, noted)
        finally:
            self.service.requests.labels(path, told[0] if told else 500).inc()
            self.service.seconds.labels(path).observe(time.perf_counter() - started)


def serve(folder: str | Path, host: str = "127.0.0.1", port: int = 8000) -> None:
    """Answer until stopped.

    Parameters
    ----------
    folder : path
        A finished run, or a link to one.
    host : str
        Address to listen on.
    port : int

    Raises
    ------
    ValueError
        If the folder is no finished run.
    """
    uvicorn.run(app(Service(folder)), host=host, port=port, access_log=False, log_level="info")
