import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from protos import classifier_pb2 as pb
from protos import classifier_pb2_grpc as pb_grpc
from tests.wire.bundles import expected_probabilities, picture
from tests.wire.server_process import ServerProcess

pytestmark = pytest.mark.slow  # each starts from a server process
LIMIT_S = 20


def encoded(*images: bytes, **fields: Any) -> pb.ClassifyRequest:
    return pb.ClassifyRequest(encoded=pb.EncodedImages(images=images), **fields)


def pixels(data: bytes, *shape: int, **fields: Any) -> pb.ClassifyRequest:
    return pb.ClassifyRequest(pixels=pb.PixelTensor(shape=shape, data=data), **fields)


def best(answer: pb.ClassifyResponse) -> list[str]:
    return [prediction.classes[0].label for prediction in answer.predictions]


def test_many_pictures_in_one_call(classifier: pb_grpc.ClassifierStub) -> None:
    answer = classifier.Classify(encoded(picture(10), picture(120, form="JPEG"), picture(250), id="a"), timeout=LIMIT_S)
    assert answer.id == "a"
    assert (answer.model, answer.version) == ("grey", 1)
    assert best(answer) == ["dark", "dim", "bright"]
    classes = answer.predictions[2].classes
    assert [entry.index for entry in classes] == [2, 1, 0]
    expected = sorted(expected_probabilities(250), reverse=True)
    assert [entry.probability for entry in classes] == pytest.approx(expected, abs=1e-6)
    assert answer.timing.infer_us > 0


@pytest.mark.parametrize("shape", [(8, 8, 1), (1, 8, 8, 1)])
def test_a_tensor_of_one_picture(classifier: pb_grpc.ClassifierStub, shape: tuple[int, ...]) -> None:
    assert best(classifier.Classify(pixels(bytes([250]) * 64, *shape), timeout=LIMIT_S)) == ["bright"]


def test_a_tensor_of_many_and_top_k(classifier: pb_grpc.ClassifierStub) -> None:
    request = pixels(bytes([10]) * 3072 + bytes([250]) * 3072, 2, 32, 32, 3, model="rgb", version=1, top_k=2)
    answer = classifier.Classify(request, timeout=LIMIT_S)
    assert best(answer) == ["dark", "bright"]
    assert [len(prediction.classes) for prediction in answer.predictions] == [2, 2]


def test_pixels_of_zeros_and_ones_are_never_ambiguous(classifier: pb_grpc.ClassifierStub) -> None:
    assert best(classifier.Classify(pixels(bytes([1]) * 64, 8, 8, 1), timeout=LIMIT_S)) == ["dark"]


BAD = [
    (pb.ClassifyRequest(), grpc.StatusCode.INVALID_ARGUMENT, "neither"),
    (encoded(), grpc.StatusCode.INVALID_ARGUMENT, "at least one image"),
    (encoded(picture(250), b""), grpc.StatusCode.INVALID_ARGUMENT, "encoded.images[1]"),
    (encoded(b"Dear diary"), grpc.StatusCode.INVALID_ARGUMENT, "Dear diary"),
    (encoded(picture(250)[:-30]), grpc.StatusCode.INVALID_ARGUMENT, "decoded"),
    (encoded(picture(0, 4000, 4000)), grpc.StatusCode.INVALID_ARGUMENT, "1,000,000 pixels"),
    (pixels(bytes(63), 8, 8, 1), grpc.StatusCode.INVALID_ARGUMENT, "63 bytes"),
    (pixels(bytes(64), 64, 1, 1), grpc.StatusCode.INVALID_ARGUMENT, "received [64, 1, 1]"),
    (pixels(b"", 0, 8, 8, 1), grpc.StatusCode.INVALID_ARGUMENT, "0 bytes"),
    (pixels(b""), grpc.StatusCode.INVALID_ARGUMENT, "shape"),
    (pixels(b"x", 4294967295, 4294967295, 4294967295), grpc.StatusCode.INVALID_ARGUMENT, "received 1 bytes"),
    (encoded(picture(250), model="nope"), grpc.StatusCode.NOT_FOUND, "'nope'"),
    (encoded(picture(250), version=7), grpc.StatusCode.NOT_FOUND, "7"),
    (encoded(bytes(200_001)), grpc.StatusCode.RESOURCE_EXHAUSTED, "200000"),
]


@pytest.mark.parametrize(("request_", "code", "word"), BAD)
def test_bad_requests(
    classifier: pb_grpc.ClassifierStub, request_: pb.ClassifyRequest, code: grpc.StatusCode, word: str
) -> None:
    with pytest.raises(grpc.RpcError) as raised:
        classifier.Classify(request_, timeout=LIMIT_S)
    assert raised.value.code() == code
    assert word in str(raised.value.details())


def test_the_request_id_comes_back_with_answers_and_errors(classifier: pb_grpc.ClassifierStub) -> None:
    metadata = (("x-request-id", "order-66"),)
    _, call = classifier.Classify.with_call(encoded(picture(250)), timeout=LIMIT_S, metadata=metadata)
    assert ids(call.trailing_metadata()) == ["order-66"]
    with pytest.raises(grpc.RpcError) as raised:
        classifier.Classify(encoded(), timeout=LIMIT_S, metadata=metadata)
    assert ids(raised.value.trailing_metadata()) == ["order-66"]


def ids(metadata: Any) -> list[str]:
    return [value for key, value in metadata if key == "x-request-id"]


def test_get_model(classifier: pb_grpc.ClassifierStub) -> None:
    model = classifier.GetModel(pb.GetModelRequest(model="rgb"), timeout=LIMIT_S)
    assert (model.name, model.version, model.architecture, model.parameters) == ("rgb", 1, "brightness", 6)
    assert list(model.input_shape) == [-1, 32, 32, 3]
    assert list(model.labels) == ["dark", "dim", "bright"]
    assert dict(model.metrics) == {"accuracy": 1.0}
    assert list(model.providers) == ["cpu"]
    with pytest.raises(grpc.RpcError) as raised:
        classifier.GetModel(pb.GetModelRequest(model="nope"), timeout=LIMIT_S)
    assert raised.value.code() == grpc.StatusCode.NOT_FOUND


# ---- streams ----


def test_a_stream_answers_each_request_by_its_id(classifier: pb_grpc.ClassifierStub) -> None:
    levels = {f"r{number}": (10, 120, 250)[number % 3] for number in range(300)}
    answers = list(
        classifier.ClassifyStream((encoded(picture(level), id=key) for key, level in levels.items()), timeout=LIMIT_S)
    )
    assert {answer.id: best(answer)[0] for answer in answers} == {
        key: {10: "dark", 120: "dim", 250: "bright"}[level] for key, level in levels.items()
    }
    assert len(answers) == 300


def test_a_failed_request_does_not_end_its_stream(classifier: pb_grpc.ClassifierStub) -> None:
    requests = [encoded(picture(250), id="good"), encoded(b"Dear diary", id="bad"), encoded(picture(10), id="good too")]
    answers = {answer.id: answer for answer in classifier.ClassifyStream(iter(requests), timeout=LIMIT_S)}
    assert best(answers["good"]) == ["bright"]
    assert best(answers["good too"]) == ["dark"]
    assert answers["bad"].error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert "Dear diary" in answers["bad"].error.message
    assert not answers["bad"].predictions


def test_an_empty_stream_ends(classifier: pb_grpc.ClassifierStub) -> None:
    assert list(classifier.ClassifyStream(iter(()), timeout=LIMIT_S)) == []


def test_a_stream_is_answered_while_it_goes_on(classifier: pb_grpc.ClassifierStub) -> None:
    answered = threading.Event()

    def requests() -> Iterator[pb.ClassifyRequest]:
        yield encoded(picture(250), id="first")
        assert answered.wait(LIMIT_S)
        yield encoded(picture(10), id="second")

    ids = []
    for answer in classifier.ClassifyStream(requests(), timeout=LIMIT_S):
        ids.append(answer.id)
        answered.set()
    assert ids == ["first", "second"]


def test_a_cancelled_stream_leaves_nothing_behind(server: ServerProcess, classifier: pb_grpc.ClassifierStub) -> None:
    endless = (encoded(picture(250), id=str(number)) for number in iter(int, 1))
    call = classifier.ClassifyStream(endless)
    assert best(next(call)) == ["bright"]
    call.cancel()
    assert best(classifier.Classify(encoded(picture(10)), timeout=LIMIT_S)) == ["dark"]
    assert "unexpected" not in server.log
    assert "Traceback" not in server.log


# ---- the standard services ----


def test_the_health_service(server: ServerProcess) -> None:
    with server.channel() as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for name in ("", "shoal.v1.Classifier"):
            answer = stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=LIMIT_S)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.RpcError) as raised:
            stub.Check(health_pb2.HealthCheckRequest(service="nope"), timeout=LIMIT_S)
        assert raised.value.code() == grpc.StatusCode.NOT_FOUND


def test_reflection_lists_the_services(server: ServerProcess) -> None:
    with server.channel() as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        asked = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
        answer = next(stub.ServerReflectionInfo(asked, timeout=LIMIT_S))
    names = {service.name for service in answer.list_services_response.service}
    assert {"shoal.v1.Classifier", "grpc.health.v1.Health"} <= names


def test_good_calls_are_answered_rightly_amid_garbage(classifier: pb_grpc.ClassifierStub) -> None:
    def good(number: int) -> bool:
        level, label = ((10, "dark"), (120, "dim"), (250, "bright"))[number % 3]
        return best(classifier.Classify(encoded(picture(level)), timeout=LIMIT_S)) == [label]

    def bad(number: int) -> grpc.StatusCode | None:
        try:
            classifier.Classify(encoded(bytes([number]) * 3000), timeout=LIMIT_S)
        except grpc.RpcError as error:
            return error.code()
        return None

    with ThreadPoolExecutor(8) as pool:
        codes = [pool.submit(bad, number) for number in range(60)]
        answers = [pool.submit(good, number) for number in range(120)]
        assert all(answer.result() for answer in answers)
        assert {code.result() for code in codes} == {grpc.StatusCode.INVALID_ARGUMENT}
