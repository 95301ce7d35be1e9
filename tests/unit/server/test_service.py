import asyncio
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families
from structlog.testing import capture_logs

from server import service
from server.admission import Admission
from server.batcher import Batcher, BatcherOptions
from server.bundle import Bundle
from server.deadline import Deadline
from server.decode_pool import DecodePool
from server.errors import (
    DeadlineExceeded,
    InferenceFailed,
    InvalidInput,
    ModelNotFound,
    Overloaded,
    ShoalError,
    UnsupportedImage,
)
from server.executor import Executor
from server.golden import Golden
from server.images import ImageSpec
from server.metrics import Metrics
from server.service import Service
from server.shadow import Shadows
from server.shelf import VersionState
from server.tensors import Array, InferRequest, InferResponse, Numbers, TensorSpec, Timing
from server.versions import LoadedModel
from tests import virtual_time
from tests.virtual_time import now_s

RUN_S = 0.01
GREY = ImageSpec(2, 2, 1)


@dataclass
class FakeEngine:
    """Answers each row with its mean and its largest value, after a hundredth of a second."""

    inputs: tuple[TensorSpec, ...] = (TensorSpec("image", "UINT8", (-1, 2, 2, 1)),)
    outputs: tuple[TensorSpec, ...] = (TensorSpec("probabilities", "FP32", (-1, 2)),)
    max_batch_rows: int = 4
    providers: tuple[str, ...] = ("cpu",)
    costs: Mapping[int, float] = field(default_factory=lambda: {1: RUN_S, 4: RUN_S})
    fails: bool = False
    runs: int = 0

    def cost_s(self, rows: int) -> float:
        return RUN_S

    async def run(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        self.runs += 1
        await asyncio.sleep(RUN_S)
        if self.fails:
            raise RuntimeError("the model broke")
        rows = next(iter(inputs.values())).astype(np.float32)
        flat = rows.reshape(len(rows), -1)
        return {"probabilities": np.stack([flat.mean(axis=1), flat.max(axis=1)], axis=1)}


def load(name: str, version: int, engine: FakeEngine, image: ImageSpec | None = GREY) -> LoadedModel:
    bundle = Bundle(
        Path(name) / str(version), name, version, None, (), ("low", "high"), image, "image" if image else ""
    )
    batcher = Batcher(engine, BatcherOptions(max_batch_rows=4), clock=now_s)
    return LoadedModel(bundle, "float32", cast(Executor, engine), batcher)


class FakeModels:
    """Serves what it is given; the first is the default."""

    def __init__(self, *models: LoadedModel) -> None:
        self.loaded: Sequence[LoadedModel] = models
        self.shadows: dict[str, LoadedModel] = {}
        self.keys: list[str] = []

    @property
    def ready(self) -> bool:
        return bool(self.loaded)

    @property
    def default_model(self) -> str:
        return self.loaded[0].name if self.loaded else ""

    def choose(self, name: str, version: int | None = None, key: str = "") -> LoadedModel:
        self.keys.append(key)
        for model in self.loaded:
            if model.name == (name or self.default_model) and version in (None, model.version):
                return model
        raise ModelNotFound(f"no {name} {version}")

    def shadow(self, answered: LoadedModel, key: str = "") -> LoadedModel | None:
        return self.shadows.get(answered.name)

    def index(self) -> Sequence[VersionState]:
        return [VersionState(model.name, model.version, "ready") for model in self.loaded]


class Bench:
    """A service over fakes, on virtual time."""

    def __init__(self) -> None:
        self.engine = FakeEngine()
        self.table = FakeEngine(inputs=(TensorSpec("x", "FP32", (-1, 2)),))
        self.pair = FakeEngine(inputs=(TensorSpec("a", "UINT8", (-1, 2)), TensorSpec("b", "UINT8", (-1, 2))))
        self.models = FakeModels(
            load("grey", 3, self.engine), load("table", 1, self.table, None), load("pair", 1, self.pair, None)
        )
        self.metrics = Metrics()
        self.pool = DecodePool(1, max_pixels=10_000, clock=now_s)
        self.shadows = Shadows()
        self.service = Service(
            self.models,
            self.pool,
            admission=Admission(),
            metrics=self.metrics,
            shadows=self.shadows,
            budget_s=0.2,
            clock=now_s,
        )

    def counted(self, outcome: str) -> list[tuple[str, str, str]]:
        families = text_string_to_metric_families(self.metrics.render().decode())
        return [
            (s.labels["protocol"], s.labels["model"], s.labels["version"])
            for family in families
            for s in family.samples
            if s.name == "shoal_requests_total" and s.labels["outcome"] == outcome
        ]


@pytest.fixture
def bench() -> Bench:
    return virtual_time.run(make_bench())


async def make_bench() -> Bench:
    return Bench()


def ask(bench: Bench, request: InferRequest) -> InferResponse:
    return virtual_time.run(bench.service.infer(request))


def rows(*levels: int) -> Array:
    return np.array(levels, np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 1), np.uint8)


def picture(level: int, size: int = 2) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (size, size), level).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    "request_",
    [
        InferRequest(inputs={"image": rows(7, 9)}),
        InferRequest(images=(picture(7), picture(9))),
        InferRequest(numbers=Numbers(np.array([[7] * 4, [9] * 4]))),
        InferRequest(model="grey", version=3, inputs={"image": rows(7, 9)}),
    ],
)
def test_tensors_pictures_and_numbers_become_the_same_rows(bench: Bench, request_: InferRequest) -> None:
    response = ask(bench, request_)
    assert response.outputs["probabilities"].tolist() == [[7, 7], [9, 9]]
    assert (response.model, response.version, response.variant) == ("grey", 3, "float32")
    assert response.labels == ("low", "high")
    assert response.timing.infer_us == round(RUN_S * 1e6)


def test_every_outcome_is_counted_under_the_version_it_met(bench: Bench) -> None:
    ask(bench, InferRequest(inputs={"image": rows(1)}, protocol="http"))
    with pytest.raises(ModelNotFound):
        ask(bench, InferRequest(model="nope", protocol="grpc"))
    with pytest.raises(InvalidInput):
        ask(bench, InferRequest(inputs={}, protocol="http"))
    assert bench.counted("ok") == [("http", "grey", "3")]
    assert bench.counted("ModelNotFound") == [("grpc", "", "")]
    assert bench.counted("InvalidInput") == [("http", "grey", "3")]


@pytest.mark.parametrize(
    ("request_", "kind", "words"),
    [
        (InferRequest(), InvalidInput, "expected the inputs 'image' UINT8[-1, 2, 2, 1] of 'grey', received none"),
        (InferRequest(inputs={"x": rows(1)}), InvalidInput, "received 'x'"),
        (InferRequest(inputs={"image": rows(1).astype(np.float32)}), InvalidInput, "UINT8 values"),
        (InferRequest(inputs={"image": rows(1)[:, :1]}), InvalidInput, "[n, 2, 2, 1]"),
        (InferRequest(inputs={"image": rows()}), InvalidInput, "at least one row"),
        (InferRequest(images=(picture(1)[:-30],)), UnsupportedImage, "picture 1"),
        (InferRequest(images=(picture(0, 101),)), UnsupportedImage, "10,000 pixels"),
        (InferRequest(numbers=Numbers(np.array([1, 2, 3]))), InvalidInput, "received [3]"),
        (InferRequest(model="table", images=(picture(1),)), InvalidInput, "expected tensors for 'table' ('x' FP32"),
        (InferRequest(model="pair", numbers=Numbers(np.array([1, 2]))), InvalidInput, "inputs by name for 'pair'"),
        (
            InferRequest(model="pair", inputs={"a": np.zeros((1, 2), np.uint8), "b": np.zeros((2, 2), np.uint8)}),
            InvalidInput,
            "as many rows in each input, received [1, 2]",
        ),
        (InferRequest(inputs={"image": rows(1)}, deadline=Deadline(-1.0)), DeadlineExceeded, "deadline"),
        (InferRequest(images=(picture(1),), deadline=Deadline(-1.0)), DeadlineExceeded, "deadline"),
    ],
)
def test_what_cannot_be_answered_never_reaches_the_model(
    bench: Bench, request_: InferRequest, kind: type[ShoalError], words: str
) -> None:
    with pytest.raises(kind) as raised:
        ask(bench, request_)
    assert words in str(raised.value)
    assert bench.engine.runs == bench.table.runs == bench.pair.runs == 0
    assert all(model.in_flight == 0 for model in bench.models.loaded)


def test_numbers_for_a_model_that_takes_no_pictures(bench: Bench) -> None:
    response = ask(bench, InferRequest(model="table", numbers=Numbers(np.array([0.5, 1.5]))))
    assert response.outputs["probabilities"].tolist() == [[1.0, 1.5]]


def test_two_inputs_by_name(bench: Bench) -> None:
    pair = {"a": np.array([[1, 3]], np.uint8), "b": np.zeros((1, 2), np.uint8)}
    assert ask(bench, InferRequest(model="pair", inputs=pair)).outputs["probabilities"].tolist() == [[2, 3]]


def test_the_models_failure_is_told_and_the_lease_given_back(bench: Bench) -> None:
    bench.engine.fails = True
    with pytest.raises(InferenceFailed):
        ask(bench, InferRequest(inputs={"image": rows(1)}))
    grey = bench.models.loaded[0]
    assert grey.in_flight == 0
    assert grey.health.errors == 1
    assert bench.counted("InferenceFailed") == [("", "grey", "3")]


def test_the_models_failure_is_logged_and_every_end_is_seen(bench: Bench) -> None:
    ends: list[tuple[str, str, int, str, bool]] = []

    def see(
        request: InferRequest, model: str, version: int, outcome: str, took_s: float, timing: Timing | None
    ) -> None:
        ends.append((request.request_id, model, version, outcome, timing is None))
        assert took_s == pytest.approx(RUN_S)

    bench.service.finished = (see,)
    ask(bench, InferRequest(inputs={"image": rows(1)}, request_id="well"))
    bench.engine.fails = True
    with capture_logs() as logs, pytest.raises(InferenceFailed):
        ask(bench, InferRequest(inputs={"image": rows(1)}, request_id="broken"))
    assert ends == [("well", "grey", 3, "ok", False), ("broken", "grey", 3, "InferenceFailed", True)]
    (entry,) = logs
    assert (entry["event"], entry["request_id"], entry["model"]) == ("inference failed", "broken", "grey")


def test_a_request_without_a_deadline_gets_the_default_budget() -> None:
    async def main() -> None:
        bench = Bench()
        # 200 ms hold 20 runs of a hundredth; with admission's safety factor some 12 batches of 4 rows.
        asked = [
            asyncio.ensure_future(bench.service.infer(InferRequest(inputs={"image": rows(1)}))) for _ in range(200)
        ]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        refused = [answer for answer in answers if isinstance(answer, Overloaded)]
        assert 100 < len(refused) < 190
        assert len(refused) + sum(isinstance(answer, InferResponse) for answer in answers) == 200
        assert now_s() <= 0.2
        patient = InferRequest(inputs={"image": rows(1)}, deadline=Deadline(now_s() + 10))
        assert (await bench.service.infer(patient)).version == 3

    virtual_time.run(main())


def test_a_caller_that_leaves_gives_its_lease_back() -> None:
    async def main() -> None:
        bench = Bench()
        asked = asyncio.ensure_future(bench.service.infer(InferRequest(inputs={"image": rows(1)})))
        await asyncio.sleep(RUN_S / 2)
        assert bench.models.loaded[0].in_flight == 1
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        assert bench.models.loaded[0].in_flight == 0
        assert bench.counted("CancelledError") == [("", "grey", "3")]

    virtual_time.run(main())


def test_a_shadow_computes_what_was_answered_and_nobody_waits_for_it() -> None:
    async def main() -> None:
        bench = Bench()
        engine = FakeEngine()
        bench.models.shadows["grey"] = load("grey", 4, engine)
        response = await bench.service.infer(InferRequest(inputs={"image": rows(5)}))
        assert (response.version, engine.runs) == (3, 0)
        await asyncio.sleep(1)
        (compared,) = bench.shadows.statistics()
        assert (compared.answered, compared.shadow, compared.agreed_rows) == (3, 4, 1)

    virtual_time.run(main())


def test_the_key_of_a_request_reaches_the_policy(bench: Bench) -> None:
    ask(bench, InferRequest(inputs={"image": rows(1)}, key="user-9"))
    assert bench.models.keys == ["user-9"]


def test_descriptions(bench: Bench) -> None:
    description = bench.service.describe("grey", 3)
    assert (description.name, description.version, description.variant) == ("grey", 3, "float32")
    assert description.inputs == bench.engine.inputs
    assert description.costs_s == {1: RUN_S, 4: RUN_S}
    assert description.manifest is None
    with pytest.raises(ModelNotFound):
        bench.service.describe("grey", 4)
    assert [state.name for state in bench.service.index()] == ["grey", "table", "pair"]
    assert [(served.model, served.version) for served in bench.service.served()] == [
        ("grey", 3),
        ("table", 1),
        ("pair", 1),
    ]


def test_a_bundle_without_pictures_has_no_example(bench: Bench) -> None:
    with pytest.raises(ModelNotFound, match="brings no pictures"):
        asyncio.run(bench.service.example())


def test_an_example_is_one_of_the_bundles_pictures(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    golden = Golden((b"first", b"second"), np.zeros((2, 2), np.float32), 0.1)
    monkeypatch.setattr(service, "read_golden", lambda bundle: golden if bundle.name == "grey" else None)
    assert asyncio.run(bench.service.example()) == b"first"
    assert asyncio.run(bench.service.example(number=7)) == b"second"
    with pytest.raises(ModelNotFound):
        asyncio.run(bench.service.example("table"))


def test_health(bench: Bench) -> None:
    async def health() -> Any:
        return bench.service.health()

    healthy = virtual_time.run(health())
    assert (healthy.status, healthy.ready, healthy.model, healthy.version) == ("ok", True, "grey", 3)
    bench.service.draining = True
    draining = virtual_time.run(health())
    assert (draining.status, draining.ready, draining.version) == ("draining", False, 3)
    bench.service.draining = False
    bench.models.loaded = ()
    loading = virtual_time.run(health())
    assert (loading.status, loading.ready, loading.model, loading.version) == ("loading", False, "", None)
