"""The plain gRPC interface: `shoal.v1` messages to requests and back."""

import numpy as np

from protos import classifier_pb2 as pb
from server.errors import InvalidInput
from server.tensors import InferRequest, InferResponse, Numbers
from server.transports.codecs.ranking import best_classes, label_of, probabilities_of

DEFAULT_TOP_K = 5


def decode_request(message: pb.ClassifyRequest) -> InferRequest:
    """Reads a request.

    Args:
        message: The request as it came.

    Raises:
        InvalidInput: It holds no picture, or pixels that do not fill their shape.
    """
    payload = message.WhichOneof("input")
    if payload is None:
        raise InvalidInput("expected `encoded` images or a `pixels` tensor, received a request with neither")
    request = InferRequest(model=message.model, version=message.version or None, protocol="grpc")
    if payload == "encoded":
        request.images = tuple(message.encoded.images)
        _check_images(request.images)
    else:
        request.numbers = _decode_pixels(message.pixels)
    return request


def encode_response(response: InferResponse, message: pb.ClassifyRequest) -> pb.ClassifyResponse:
    """Writes the answer.

    Args:
        response: What the service answered.
        message: The request, for its id and `top_k`.

    Raises:
        InvalidInput: The model is no classifier.
    """
    probabilities = probabilities_of(response)
    classes = best_classes(probabilities, message.top_k or DEFAULT_TOP_K)
    scores = np.take_along_axis(probabilities, classes, axis=1)
    answer = pb.ClassifyResponse(id=message.id, model=response.model, version=response.version)
    # Filled in place: a message that is made apart and then put into another is copied; for 32 pictures 68 µs, so 31.
    predictions = answer.predictions
    for row, row_scores in zip(classes.tolist(), scores.tolist(), strict=True):
        add = predictions.add().classes.add
        for index, score in zip(row, row_scores, strict=True):
            add(index=index, label=label_of(response.labels, index), probability=score)
    told, timing = answer.timing, response.timing
    told.queue_us, told.decode_us, told.infer_us = timing.queue_us, timing.decode_us, timing.infer_us
    told.SetInParent()  # it is there even where all of it is 0
    return answer


def _check_images(images: tuple[bytes | memoryview, ...]) -> None:
    if not images:
        raise InvalidInput("expected at least one image in `encoded.images`, received none")
    for position, image in enumerate(images):
        if not image:
            raise InvalidInput(f"expected a picture in `encoded.images[{position}]`, received no bytes")


def _decode_pixels(pixels: pb.PixelTensor) -> Numbers:
    shape = tuple(pixels.shape)
    expected = int(np.prod(shape, dtype=object)) if shape else 0
    if expected == 0 or expected != len(pixels.data):
        raise InvalidInput(
            f"expected one byte for each value of `pixels.shape` {list(shape)}, that is {expected:,},"
            f" received {len(pixels.data):,} bytes"
        )
    return Numbers(np.frombuffer(pixels.data, np.uint8).reshape(shape), "0-255")
