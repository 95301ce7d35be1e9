"""What tests of the prediction log are made of: as much of a version as it looks at, answers, a clock, a database."""

import itertools
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from server.predictions import database
from server.predictions.answers import Answered, Entry, digests_at_once, lane_of
from server.predictions.blocks import Group, group_answers
from server.predictions.storage import Batch, Gap, Input, Row, Version
from server.predictions.store import PredictionStore
from server.tensors import InferRequest, TensorSpec
from server.versions import LoadedModel

LABELS = ("dark", "dim", "bright")
SHARES = np.array([[0.2, 0.1, 0.7]], np.float32)


class Stub(SimpleNamespace):
    """One that can be weakly referred to."""


def model(name: str = "grey", labels: tuple[str, ...] = LABELS, *, batched: bool = True) -> LoadedModel:
    """As much of a version as the log looks at."""
    variants = (SimpleNamespace(name="int8", accuracy=0.9), SimpleNamespace(name="float32", accuracy=0.0))
    return cast(
        LoadedModel,
        Stub(
            name=name,
            version=7,
            variant="int8",
            labels=labels,
            outputs=(TensorSpec("probabilities", "FP32", (-1 if batched else 1, 3)),),
            bundle=SimpleNamespace(variants=variants),
        ),
    )


@contextmanager
def opened(file: Path) -> Iterator[PredictionStore]:
    """A store on an SQLite file, with its tables made."""
    store = PredictionStore(database.read_url(f"sqlite:///{file}"), window_rows=3)
    store.open()
    yield store
    store.close()


GREY = model()
LANE = lane_of(GREY)


def answered(*images: bytes, one: LoadedModel = GREY, name: str = "id", rows: int = 1, **more: Any) -> Answered:
    """An answer as the observer holds it until it is digested."""
    rows = len(images) or rows
    request = InferRequest(request_id=name, protocol="http", client=more.pop("client", ""))
    fields = {"inputs": {}, "outputs": {"probabilities": np.tile(SHARES, (rows, 1))}} | more
    return Answered(1000.5, request, one, images, latency_s=0.0125, rows=rows, **fields)


def entry(*images: bytes, name: str = "id", client: str = "", output: NDArray[Any] | None = None) -> Entry:
    """An answer as the log takes it in."""
    output = np.tile(SHARES, (len(images), 1)) if output is None else output
    digests = digests_at_once(images, {}, len(images))
    assert digests is not None
    return (1000.5, name, client, "http", 0.0125, len(images), digests, output)


def group(*entries: Entry) -> Group:
    """Answers of one form, as the log takes them in."""
    (made,) = group_answers(entries)
    return made


class FakeStorage:
    """Keeps batches, unless it is told to fail. Passes over ids that it has, as the tables do."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.fails: Exception | None = None
        self.swept: list[int] = []
        self.old_rows = 0
        self.origins: list[str] = []

    @property
    def rows(self) -> list[Any]:
        """Every row."""
        return list({row[0]: row for batch in self.batches for row in batch.rows}.values())

    def number_of(self, origin: str) -> int:
        """See `Storage`."""
        if origin not in self.origins:
            self.origins.append(origin)
        return self.origins.index(origin) + 1

    def write(self, batch: Batch) -> None:
        """See `Storage`."""
        if self.fails is not None:
            raise self.fails
        self.batches.append(batch)

    def sweep(self, before_us: int, limit: int) -> int:
        """See `Storage`."""
        self.swept.append(before_us)
        deleted = min(limit, self.old_rows)
        self.old_rows -= deleted
        return deleted


class FakeWriter:
    """Stands in for the writer's process: does `work` each time that somebody sees to it that it runs."""

    def __init__(self) -> None:
        self.work: Any = lambda: None
        self.closed = False

    def ensure(self) -> None:
        """See `Helper`."""
        self.work()

    def close(self) -> None:
        """See `Helper`."""
        self.closed = True


class Clock:
    """Time that passes when somebody sleeps."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        """Now."""
        return self.now_s

    def sleep(self, seconds: float) -> None:
        """Lets time pass."""
        self.now_s += seconds


# ---- rows of a database ----

DAY_S = 86_400
NOW_S = 1_000 * DAY_S + 3600.0  # 1972-09-27, one o'clock
NUMBERS = itertools.count(1)


def row(at_s: float, name: str, *, client: str | None = None, version: int = 1, label: str = "cat", n: int = 0) -> Row:
    """A row under a new number."""
    facts = (name, n, client, "http", "pets", version, "int8", name, label, 0.5, "[]", 2000)
    return (next(NUMBERS), round(at_s * 1e6), *facts)


VERSIONS = {("pets", number): Version(("cat", "dog"), "int8", 0.9) for number in (1, 2)}


def fill(store: PredictionStore) -> None:
    """Three days, three clients, two versions."""
    rows = [row(NOW_S - 9 * DAY_S, "long-ago", client="<b>")]
    rows += [row(NOW_S - DAY_S, "yesterday", version=2, label="dog", n=number) for number in range(5)]
    rows += [row(NOW_S, f"today-{number}", client="shop") for number in range(300)]
    store.write(Batch(rows, {"x": Input(b"picture", "encoded")}, VERSIONS, Gap(NOW_S - 60, NOW_S - 30, 7, "away")))


def count(file: Path, table: str) -> int:
    """How many rows a table has."""
    with closing(sqlite3.connect(file)) as opened:
        return int(opened.execute(f"SELECT count(*) FROM {table}").fetchone()[0])
