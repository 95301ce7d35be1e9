"""One image a request in every form that servers take, and how its right answer is known.

golden picture ─┬─ jpeg, png   the encoded file          POST /predict, /inference, or a BYTES tensor
                ├─ json        nested integers           the same, or "data" of the Open Inference Protocol
                ├─ binary      the pixels' bytes         binary tensors, or msgpack
                └─ grpc        the pixels' bytes         ModelInfer; stream: ModelStreamInfer
"""

import base64
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray
from PIL import Image

from benchmarks.h2load import NotReadyError
from benchmarks.http_load import Question, connect, post
from benchmarks.pictures import Pictures
from protos import inference_pb2

OK: Final = 200
HTTP_COLUMNS: Final = ("jpeg", "png", "json", "binary")
GRPC_COLUMNS: Final = ("grpc", "stream")
PAYLOAD_OF: Final = {"jpeg": "picture", "png": "picture", "json": "json", "binary": "binary", "grpc": "binary"}
STREAMED: Final = 16  # messages that a stream has under way
_RAW: Final = "application/octet-stream"
_NOT_READY: Final = frozenset({0, 404, 502, 503})  # while a model is loaded
_SHAPE: Final = re.compile(rb'"shape":\s*\[[^\]]*\]')


@dataclass(frozen=True)
class Target:
    """A server to ask.

    Args:
        http: Base URL.
        grpc: `host:port`.
        pid: Its process.
        protocol: "shoal"; "plain": POST /inference; "msgpack": the same for tensors; "v2": the Open Inference Protocol.
        model: The model's name there.
    """

    http: str
    grpc: str
    pid: int
    protocol: str
    model: str


def encoded(pictures: Pictures, kind: str) -> list[bytes]:
    """The pictures as files of one format.

    Args:
        pictures: Of a bundle.
        kind: "jpeg" or "png".
    """
    return [_encode(file, kind.upper()) for file in pictures.files]


async def questions(target: Target, pictures: Pictures, column: str) -> list[Question]:
    """Each picture as a request, with what marks its right answer, which the idle server gives.

    Args:
        target: Whom to ask.
        pictures: What.
        column: One of `HTTP_COLUMNS`.

    Raises:
        NotReadyError: The server does not know the model yet.
        RuntimeError: It was not answered.
    """
    spell, asked, connection = _SPELLED[target.protocol], [], await connect(target.http)
    files = encoded(pictures, column) if column in {"jpeg", "png"} else list(pictures.files)
    for file, pixels in zip(files, _pixels(pictures), strict=True):
        question = spell(target, column, file, pixels)
        status, body = await connection.ask_nowait(question.request)
        if status != OK:
            loading = status in _NOT_READY or b"not ready" in body  # MLServer's 400
            kind = NotReadyError if loading else RuntimeError
            raise kind(f"an idle server answered {status}: {body[:300].decode(errors='replace')}")
        asked.append(Question(question.request, _right(body)))
    connection.close()
    return asked


def infer_request(target: Target, pictures: Pictures, rows: int = 1) -> bytes:
    """A serialized ModelInferRequest with so many rows of pixels."""
    pixels = np.concatenate(_pixels(pictures)[:1] * rows)
    tensor = inference_pb2.ModelInferRequest.InferInputTensor(name="image", datatype="UINT8", shape=pixels.shape)
    request = inference_pb2.ModelInferRequest(model_name=target.model, inputs=[tensor])
    request.raw_input_contents.append(pixels.tobytes())
    return request.SerializeToString()


def _encode(file: bytes, kind: str) -> bytes:
    with Image.open(io.BytesIO(file)) as image:
        if image.format == kind:
            return file
        written = io.BytesIO()
        image.save(written, kind, **({"quality": 95} if kind == "JPEG" else {}))
        return written.getvalue()


def _pixels(pictures: Pictures) -> list[NDArray[np.uint8]]:
    generator = np.random.default_rng(0)
    return [generator.integers(0, 256, (1, *pictures.shape), np.uint8) for _ in pictures.files]


def _right(body: bytes) -> bytes:
    """The part of an answer that any batch gives alike: the class, or the shape of the tensor."""
    if b'"predictions"' in body:
        return b'"predictions":' + orjson.dumps(orjson.loads(body)["predictions"])
    if b"probability" in body:
        return body[: body.index(b"probability")]
    found = _SHAPE.search(body)
    if found is None:
        raise RuntimeError(f"expected a class or a tensor's shape in the answer, received {body[:300]!r}")
    return found[0]


def _ours(target: Target, column: str, file: bytes, pixels: NDArray[np.uint8]) -> Question:
    url = f"{target.http}/predict/{target.model}"
    if column == "binary":
        return _v2(target, column, file, pixels)
    if column == "json":
        return post(url, orjson.dumps({"data": pixels.tolist()}), "application/json")
    return post(url, file, _RAW)


def _plain(target: Target, column: str, file: bytes, pixels: NDArray[np.uint8]) -> Question:
    url = f"{target.http}/inference"
    if column == "json":
        return post(url, orjson.dumps({"data": pixels.tolist()}), _RAW)
    return post(url, pixels.tobytes() if column == "binary" else file, _RAW)


def _msgpack(target: Target, column: str, file: bytes, pixels: NDArray[np.uint8]) -> Question:
    if column != "binary":
        return _plain(target, column, file, pixels)
    raw = pixels.tobytes()
    shape = pixels.shape[1:]
    # {"shape": [h, w, c], "data": bytes} by hand: three small numbers and one length need no library.
    body = b"\x82\xa5shape\x93" + b"".join(b"\xcd" + side.to_bytes(2, "big") for side in shape)
    return post(f"{target.http}/inference", body + b"\xa4data\xc6" + len(raw).to_bytes(4, "big") + raw, _RAW)


def _v2(target: Target, column: str, file: bytes, pixels: NDArray[np.uint8]) -> Question:
    url = f"{target.http}/v2/models/{target.model}/infer"
    if column == "json":
        tensor = {"name": "image", "shape": pixels.shape, "datatype": "UINT8", "data": pixels.tolist()}
        return post(url, orjson.dumps({"inputs": [tensor]}), "application/json")
    raw = pixels.tobytes() if column == "binary" else len(file).to_bytes(4, "little") + file
    shape, datatype = (pixels.shape, "UINT8") if column == "binary" else ((1, 1), "BYTES")
    tensor = {"name": "image", "shape": shape, "datatype": datatype, "parameters": {"binary_data_size": len(raw)}}
    head = orjson.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}})
    return post(url, head + raw, _RAW, headers=(f"Inference-Header-Content-Length: {len(head)}",))


def _v2_json(target: Target, column: str, file: bytes, pixels: NDArray[np.uint8]) -> Question:
    if column == "json":
        return _v2(target, column, file, pixels)
    parameters = {"content_type": "base64"}
    data = [base64.b64encode(file).decode()]
    tensor = {"name": "image", "shape": [1, 1], "datatype": "BYTES", "parameters": parameters, "data": data}
    return post(f"{target.http}/v2/models/{target.model}/infer", orjson.dumps({"inputs": [tensor]}), "application/json")


Spell = Callable[[Target, str, bytes, Any], Question]
_SPELLED: Final[dict[str, Spell]] = {
    "shoal": _ours,
    "plain": _plain,
    "msgpack": _msgpack,
    "v2": _v2,
    "v2-json": _v2_json,
}


def messages(target: Target, pictures: Pictures, column: str) -> Sequence[bytes]:
    """What one call of a gRPC column sends."""
    return [infer_request(target, pictures)] * (STREAMED if column == "stream" else 1)
