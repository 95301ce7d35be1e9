"""What the Open Inference Protocol needs of the service: pictures as tensors, chosen outputs, totals, control."""

from typing import Any

import numpy as np
import pytest

from server.admission import Admission
from server.deadline import Deadline
from server.errors import InferenceFailed, InvalidInput, ModelNotFound, ModelNotReady, ShoalError, Unavailable
from server.metrics import RequestTotals
from server.service import Service
from server.tensors import Array, InferRequest
from server.transports.codecs.v2 import V2Request, WantedOutput
from server.transports.codecs.v2_describe import describe_config, describe_model, describe_statistics
from server.transports.v2 import V2
from tests import virtual_time
from tests.unit.server.test_service import RUN_S, Bench, ask, picture, rows


async def make_bench() -> Bench:
    return Bench()


@pytest.fixture
def bench() -> Bench:
    return virtual_time.run(make_bench())


@pytest.fixture
def v2(bench: Bench) -> V2:
    return V2(bench.service, bench.metrics, "1.2")


def encoded(*files: bytes) -> Array:
    array = np.empty(len(files), np.object_)
    array[:] = files
    return array


# ---- pictures and outputs ----


@pytest.mark.parametrize("shape", [(2,), (2, 1)])
def test_bytes_for_an_image_input_are_pictures(bench: Bench, shape: tuple[int, ...]) -> None:
    response = ask(bench, InferRequest(inputs={"image": encoded(picture(7), picture(9)).reshape(shape)}))
    assert response.outputs["probabilities"].tolist() == [[7, 7], [9, 9]]


@pytest.mark.parametrize(
    "inputs",
    [
        {"image": encoded()},
        {"image": encoded(picture(7), picture(9)).reshape(1, 2)},
        {"image": encoded(picture(7)), "more": encoded(b"")},
    ],
)
def test_bytes_that_are_no_list_of_pictures(bench: Bench, inputs: dict[str, Array]) -> None:
    with pytest.raises(InvalidInput, match=r"encoded pictures BYTES\[n\] alone"):
        ask(bench, InferRequest(inputs=inputs))


def test_bytes_for_a_model_without_pictures_are_the_wrong_type(bench: Bench) -> None:
    with pytest.raises(InvalidInput, match="expected FP32 values"):
        ask(bench, InferRequest(model="table", inputs={"x": encoded(b"a")}))


def test_only_the_outputs_that_were_asked_for(bench: Bench) -> None:
    request = InferRequest(inputs={"image": rows(7)}, outputs=("probabilities",))
    assert list(ask(bench, request).outputs) == ["probabilities"]
    with pytest.raises(InvalidInput, match=r"expected outputs of 'grey' .*'probabilities'.*received 'x'"):
        ask(bench, InferRequest(inputs={"image": rows(7)}, outputs=("x",)))
    assert bench.engine.runs == 1, "what cannot be answered must not cost a run"


# ---- totals ----


def test_totals_add_up_over_protocols(bench: Bench) -> None:
    ask(bench, InferRequest(inputs={"image": rows(1)}, protocol="http"))
    ask(bench, InferRequest(images=(picture(7),), protocol="v2_grpc"))
    bench.engine.fails = True
    with pytest.raises(InferenceFailed):
        ask(bench, InferRequest(inputs={"image": rows(1)}, protocol="v2_grpc"))
    ((served, totals),) = bench.service.statistics("grey")
    assert (served.model, served.version, served.numbers.batches) == ("grey", 3, 3)
    assert (totals.answered, totals.failed) == (2, 1)
    assert totals.infer_s == pytest.approx(2 * RUN_S)
    assert totals.answered_s == pytest.approx(2 * RUN_S)
    assert totals.failed_s == pytest.approx(RUN_S)
    assert totals.last_at_s > 1.7e9


def test_totals_of_all_of_one_or_of_none(bench: Bench) -> None:
    assert [served.model for served, _ in bench.service.statistics()] == ["grey", "table", "pair"]
    assert [totals for _, totals in bench.service.statistics("pair", 1)] == [RequestTotals()]
    for name, version in (("nope", None), ("pair", 2)):
        with pytest.raises(ModelNotFound):
            bench.service.statistics(name, version)


# ---- control ----


class FakeControl:
    def __init__(self) -> None:
        self.calls: list[str] = []

    async def load(self, name: str) -> None:
        self.calls.append(f"load {name}")

    async def unload(self, name: str) -> None:
        self.calls.append(f"unload {name}")


def controlled(bench: Bench, control: FakeControl) -> V2:
    service = Service(
        bench.models,
        bench.pool,
        admission=Admission(),
        metrics=bench.metrics,
        shadows=bench.shadows,
        budget_s=1,
        control=control,
    )
    return V2(service, bench.metrics)


def test_models_come_and_go_by_request(bench: Bench) -> None:
    control = FakeControl()
    v2 = controlled(bench, control)
    virtual_time.run(v2.load("pets", {}))
    virtual_time.run(v2.unload("pets"))
    assert control.calls == ["load pets", "unload pets"]
    for refused in (v2.load("", {}), v2.unload(""), v2.load("pets", {"config": "{}"})):
        with pytest.raises(InvalidInput):
            virtual_time.run(refused)
    assert len(control.calls) == 2


def test_a_server_that_follows_its_folder_says_so(v2: V2) -> None:
    for refused in (v2.load("pets", {}), v2.unload("pets")):
        with pytest.raises(Unavailable, match="--model-control explicit and --workers 1"):
            virtual_time.run(refused)


# ---- the protocol's operations ----


def infer(v2: V2, request: V2Request, deadline: Deadline | None = None) -> Any:
    return virtual_time.run(v2.infer(request, "id", deadline))


def test_a_request_brings_its_wishes_to_the_service(v2: V2) -> None:
    infer_request = InferRequest(inputs={"image": rows(7)})
    request = V2Request(infer_request, outputs=(WantedOutput("probabilities"),))
    assert infer(v2, request).outputs["probabilities"].tolist() == [[7, 7]]
    assert (infer_request.request_id, infer_request.outputs) == ("id", ("probabilities",))
    assert infer_request.deadline is None


def test_the_earlier_of_two_deadlines_holds(v2: V2, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.transports.v2.time.monotonic", lambda: 100.0)
    for timeout_s, transport_s, expected_s in ((5.0, None, 105.0), (5.0, 103.0, 103.0), (2.0, 103.0, 102.0)):
        request = V2Request(InferRequest(inputs={"image": rows(7)}), timeout_s=timeout_s)
        infer(v2, request, None if transport_s is None else Deadline(transport_s))
        assert request.infer.deadline == Deadline(expected_s)


def test_what_cannot_be_read_is_counted(bench: Bench, v2: V2) -> None:
    def refuse() -> V2Request:
        raise InvalidInput("no")

    with pytest.raises(InvalidInput):
        v2.read(refuse, "v2_grpc")
    assert bench.counted("InvalidInput") == [("v2_grpc", "", "")]


def test_readiness(bench: Bench, v2: V2, monkeypatch: pytest.MonkeyPatch) -> None:
    async def ready() -> bool:
        return v2.ready

    assert virtual_time.run(ready())
    assert v2.model_ready("grey", "3")
    with pytest.raises(ModelNotFound):
        v2.model_ready("grey", "4")

    def choose(*_: object) -> object:
        raise ModelNotReady("later")

    monkeypatch.setattr(bench.models, "choose", choose)
    assert not v2.model_ready("grey", "")
    monkeypatch.undo()
    bench.service.draining = True
    assert not virtual_time.run(ready())
    assert not v2.model_ready("grey", "")


def test_what_is_told_of_models(bench: Bench, v2: V2) -> None:
    assert v2.server()["version"] == "1.2"
    assert v2.model("grey", "") == {
        "name": "grey",
        "versions": ["3"],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": "image", "datatype": "UINT8", "shape": [-1, 2, 2, 1]}],
        "outputs": [{"name": "probabilities", "datatype": "FP32", "shape": [-1, 2]}],
    }
    assert v2.model("grey", "3")["versions"] == ["3"]
    config = v2.config("grey", "")
    assert (config["max_batch_size"], config["input"][0]["dims"]) == (4, [2, 2, 1])
    assert config["instance_group"][0]["kind"] == "KIND_CPU"
    assert v2.known_model("") == ""
    with pytest.raises(ShoalError):
        v2.known_model("nope")
    assert describe_model(bench.service.describe("pair"), [1, 2])["versions"] == ["1", "2"]
    assert "format" not in describe_config(bench.service.describe("pair"), [1])["input"][0]
    assert [entry["name"] for entry in v2.index(only_ready=True)] == ["grey", "table", "pair"]


def test_statistics_tell_batches_by_their_size(bench: Bench, v2: V2) -> None:
    for levels in ((1,), (1, 2), (3, 4)):
        ask(bench, InferRequest(inputs={"image": rows(*levels)}))
    (stats,) = v2.statistics("grey", "")["model_stats"]
    assert (stats["inference_count"], stats["execution_count"]) == (5, 3)
    assert stats["inference_stats"]["success"] == {"count": 3, "ns": pytest.approx(3 * RUN_S * 1e9, abs=10)}
    assert [(batch["batch_size"], batch["compute_infer"]) for batch in stats["batch_stats"]] == [
        (1, {"count": 1, "ns": RUN_S * 1e9}),
        (2, {"count": 2, "ns": 2 * RUN_S * 1e9}),
    ]
    assert describe_statistics([]) == {"model_stats": []}
