from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
from shoal_client import errors
from shoal_client._proto import classifier_pb2 as pb
from shoal_client.images import Payload, Pixels, join_images, read_image
from shoal_client.options import Options
from shoal_client.settings import ClientSettings
from shoal_client.wire_grpc import PUSHBACK, REQUEST_ID, error_of, read_stream_answer, write_request
from shoal_client.wire_http import read_answer, read_failure, write_predict

# ---- pictures ----


def test_bytes_are_files_and_arrays_are_pixels(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"PNG")
    assert read_image(b"PNG") == read_image(bytearray(b"PNG")) == read_image(memoryview(b"PNG")) == b"PNG"
    assert read_image(tmp_path / "a.png") == b"PNG"
    array = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    assert read_image(array) == Pixels((2, 4, 3), bytes(range(24)))
    assert read_image(array[:, :, 0]) == Pixels((2, 4, 1), bytes(range(0, 24, 3)))
    assert read_image(array.transpose(1, 0, 2)) == Pixels((4, 2, 3), array.transpose(1, 0, 2).tobytes())


@pytest.mark.parametrize(
    ("image", "words"),
    [
        ("cat.jpg", r"Path\('cat.jpg'\)"),
        (np.zeros((2, 2, 3), np.float32), "uint8"),
        (np.zeros((5, 2, 2, 3), np.uint8), "classify_batch"),
        (17, "received int"),
        (Path("nowhere.png"), "nowhere.png: No such file"),
    ],
)
def test_what_is_no_picture(image: Any, words: str) -> None:
    with pytest.raises(errors.InvalidInput, match=words):
        read_image(image)


def test_a_batch_is_of_one_kind() -> None:
    small, large = Pixels((1, 1, 1), b"a"), Pixels((1, 2, 1), b"bc")
    assert join_images([small, small]) == Pixels((2, 1, 1, 1), b"aa")
    wrongs: list[list[Payload]] = [[], [b"x", small], [small, large]]
    for wrong in wrongs:
        with pytest.raises(errors.InvalidInput):
            join_images(wrong)


@pytest.mark.parametrize("wrong", [{"top_k": 0}, {"version": 0}])
def test_wrong_options(wrong: dict[str, Any]) -> None:
    with pytest.raises(errors.InvalidInput, match="at least 1"):
        Options(**wrong)


def test_a_token_is_not_shown() -> None:
    assert "secret" not in repr(ClientSettings(token="secret"))
    with pytest.raises(ValueError, match="above 0"):
        ClientSettings(timeout_s=0)


# ---- gRPC ----


def test_grpc_requests() -> None:
    message = write_request([b"a", b"b"], Options("m", 3, 2), "9")
    assert (message.id, message.model, message.version, message.top_k) == ("9", "m", 3, 2)
    assert list(message.encoded.images) == [b"a", b"b"]
    pixels = write_request(Pixels((1, 1, 3), b"rgb"), Options())
    assert (list(pixels.pixels.shape), pixels.pixels.data) == ([1, 1, 3], b"rgb")


CODE = grpc.StatusCode


@pytest.mark.parametrize(
    ("code", "details", "metadata", "expected"),
    [
        (CODE.INVALID_ARGUMENT, "", {}, errors.InvalidInput),
        (CODE.NOT_FOUND, "", {}, errors.ModelNotFound),
        (CODE.UNAUTHENTICATED, "", {}, errors.Unauthenticated),
        (CODE.PERMISSION_DENIED, "", {}, errors.PermissionDenied),
        (CODE.DEADLINE_EXCEEDED, "", {}, errors.DeadlineExceeded),
        (CODE.RESOURCE_EXHAUSTED, "full", {PUSHBACK: "250"}, errors.Overloaded),
        (CODE.RESOURCE_EXHAUSTED, "message larger than max", {}, errors.PayloadTooLarge),
        (CODE.UNAVAILABLE, "stopping", {REQUEST_ID: "r"}, errors.Unavailable),
        (CODE.UNAVAILABLE, "failed to connect to all addresses", {}, errors.Unavailable),
        (CODE.UNAVAILABLE, "Socket closed", {}, errors.ConnectionLost),
        (CODE.INTERNAL, "", {}, errors.ServerFailed),
    ],
)
def test_grpc_errors(
    code: grpc.StatusCode, details: str, metadata: dict[str, str], expected: type[errors.ShoalError]
) -> None:
    error = error_of(code, details, metadata)
    assert type(error) is expected
    assert error.request_id == metadata.get(REQUEST_ID, "")
    if isinstance(error, errors.Overloaded):
        assert error.retry_after_s == 0.25


def test_a_streams_error_is_read() -> None:
    refused = read_stream_answer(pb.ClassifyResponse(id="1", error=pb.Error(code=8, message="full")))
    assert isinstance(refused, errors.Overloaded)
    bad = read_stream_answer(pb.ClassifyResponse(id="1", error=pb.Error(code=3, message="no picture")))
    assert isinstance(bad, errors.InvalidInput)
    stopping = read_stream_answer(pb.ClassifyResponse(id="1", error=pb.Error(code=14, message="stopping")))
    assert isinstance(stopping, errors.Unavailable)


# ---- HTTP ----


def answer(status: int, document: object, **headers: str) -> httpx.Response:
    request = httpx.Request("POST", "http://127.0.0.1/predict")
    sent = {key.replace("_", "-"): value for key, value in headers.items()}
    return httpx.Response(status, json=document, headers=sent, request=request)


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (400, errors.InvalidInput),
        (401, errors.Unauthenticated),
        (403, errors.PermissionDenied),
        (404, errors.ModelNotFound),
        (413, errors.PayloadTooLarge),
        (415, errors.UnsupportedImage),
        (429, errors.Overloaded),
        (503, errors.Unavailable),
        (504, errors.DeadlineExceeded),
        (500, errors.ServerFailed),
        (302, errors.ServerFailed),
    ],
)
def test_http_errors(status: int, expected: type[errors.ShoalError]) -> None:
    document = {"type": "urn:shoal:model-not-found", "detail": "the reason", "request_id": "r1"}
    with pytest.raises(errors.ShoalError, match="the reason") as raised:
        read_answer(answer(status, document, Retry_After="3"))
    assert type(raised.value) is expected
    assert raised.value.request_id == "r1"
    if isinstance(raised.value, errors.Refused):
        assert raised.value.retry_after_s == 3


@pytest.mark.parametrize("document", [{}, [], {"top": [[{"class": 1}]]}, {"top": 3}])
def test_an_answer_of_some_other_server(document: object) -> None:
    with pytest.raises(errors.ServerFailed, match="expected an answer of Shoal"):
        read_answer(answer(200, document))


def test_a_404_of_some_other_server() -> None:
    with pytest.raises(errors.ServerFailed, match="expected Shoal's HTTP interface"):
        read_answer(answer(404, {"detail": "nope"}))


def test_an_answer_is_read_whole() -> None:
    top = [[{"class": 7, "label": "seven", "probability": 0.5}, {"class": 1, "label": "one", "probability": 0.25}]]
    document = {"top": top, "model": "m", "version": 2, "request_id": "r"}
    got = read_answer(answer(200, document, Server_Timing="decode;dur=0.1, queue;dur=0.02, infer;dur=3, total;dur=4"))
    assert (got.best.index, got.best.label, got.best.probability) == (7, "seven", 0.5)
    assert (got.model, got.version, got.request_id) == ("m", 2, "r")
    assert (got.timing.decode_us, got.timing.queue_us, got.timing.infer_us) == (100, 20, 3000)


def test_http_requests() -> None:
    one = write_predict([b"a"], Options("a/b", 3, 2))
    assert (one.path, one.params, one.content) == ("predict/a%2Fb", {"version": "3", "top_k": "2"}, b"a")
    assert len(write_predict([b"a", b"b"], Options()).files) == 2
    pixels = write_predict(Pixels((1, 2, 1), b"\x01\x02"), Options())
    assert pixels.content == b'{"data":[[[1],[2]]],"scale":"0-255"}'
    assert one.arguments(0.25)["headers"]["X-Latency-Budget-Ms"] == "250.000"
    assert float(one.arguments(1e-9)["headers"]["X-Latency-Budget-Ms"]) > 0
    assert "X-Latency-Budget-Ms" not in one.arguments(None)["headers"]


def test_only_what_was_never_sent_may_be_repeated() -> None:
    assert isinstance(read_failure(httpx.ConnectError("refused")), errors.Unavailable)
    assert isinstance(read_failure(httpx.ReadError("reset")), errors.ConnectionLost)
    assert isinstance(read_failure(httpx.ReadTimeout("slow")), errors.DeadlineExceeded)
