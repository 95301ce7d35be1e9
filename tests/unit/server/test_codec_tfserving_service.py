"""What TensorFlow Serving's protocol needs of the service: a version chosen first, labels, states."""

from typing import Any

import pytest

from server.deadline import Deadline
from server.descriptions import ModelDescription
from server.errors import InvalidInput, ModelNotFound, ModelNotReady
from server.shelf import VersionState
from server.tensors import InferRequest
from server.transports.codecs.tfserving import TfRequest
from server.transports.codecs.tfserving_messages import Address
from server.transports.tfserving import TfServing
from tests import virtual_time
from tests.unit.server.test_service import Bench, rows


async def make_bench() -> Bench:
    return Bench()


@pytest.fixture
def bench() -> Bench:
    return virtual_time.run(make_bench())


@pytest.fixture
def door(bench: Bench) -> TfServing:
    return TfServing(bench.service, bench.metrics)


def wanted(model: ModelDescription) -> TfRequest:
    return TfRequest(InferRequest(inputs={model.inputs[0].name: rows(7)}))


def test_the_version_that_was_read_for_answers(bench: Bench, door: TfServing) -> None:
    request = door.read(lambda: Address(""), wanted, "tfserving_http")
    assert (request.infer.model, request.infer.version, request.infer.protocol) == ("grey", 3, "tfserving_http")
    response = virtual_time.run(door.infer(request, "id", Deadline(1e9)))
    assert response.outputs["probabilities"].tolist() == [[7, 7]]
    assert (request.infer.request_id, request.infer.deadline) == ("id", Deadline(1e9))
    assert bench.counted("ok") == [("tfserving_http", "grey", "3")]


def test_what_cannot_be_read_is_counted(bench: Bench, door: TfServing) -> None:
    def refuse(_: ModelDescription) -> TfRequest:
        raise InvalidInput("no")

    with pytest.raises(InvalidInput):
        door.read(lambda: Address("grey"), refuse, "tfserving_grpc")
    with pytest.raises(ModelNotFound):
        door.read(lambda: Address("nope"), wanted, "tfserving_grpc")
    assert bench.counted("InvalidInput") == bench.counted("ModelNotFound") == [("tfserving_grpc", "", "")]


def states_of(*found: VersionState) -> Any:
    return lambda: list(found)


def test_labels(bench: Bench, door: TfServing, monkeypatch: pytest.MonkeyPatch) -> None:
    states = states_of(
        VersionState("grey", 3, "ready"), VersionState("grey", 4, "loading"), VersionState("table", 9, "ready")
    )
    monkeypatch.setattr(bench.models, "index", states)
    assert door.model(Address("grey", None, "latest")).version == 3
    with pytest.raises(ModelNotFound):
        door.model(Address("nope", None, "latest"))
    for ask in (door.model, door.states, door.ready):
        with pytest.raises(InvalidInput, match="the label 'latest', received the label 'stable'"):
            ask(Address("grey", None, "stable"))


def test_states_of_all_versions_or_of_one(bench: Bench, door: TfServing, monkeypatch: pytest.MonkeyPatch) -> None:
    found = VersionState("grey", 2, "failed", "damaged"), VersionState("grey", 3, "ready")
    monkeypatch.setattr(bench.models, "index", states_of(*found, VersionState("other", 1, "loading")))
    assert door.states(Address("grey")) == [*found]
    assert door.states(Address("grey", 2)) == [found[0]]
    assert door.names() == ["grey"]
    for nowhere in (Address("nope"), Address("grey", 4), Address("")):
        with pytest.raises(ModelNotFound, match="GET /v1/models lists them"):
            door.states(nowhere)


def test_readiness(bench: Bench, door: TfServing, monkeypatch: pytest.MonkeyPatch) -> None:
    assert door.ready(Address("grey"))
    assert door.ready(Address("grey", 3))
    assert not door.ready(Address("grey", 4))

    def choose(*_: object) -> object:
        raise ModelNotReady("later")

    monkeypatch.setattr(bench.models, "choose", choose)
    assert not door.ready(Address("grey"))
    monkeypatch.undo()
    bench.service.draining = True
    assert not door.ready(Address("grey"))
