import numpy as np
import pytest

from protos import classifier_pb2 as pb
from server.errors import InvalidInput
from server.tensors import InferResponse, Timing
from server.transports.codecs.classify import decode_request, encode_response


def test_encoded_pictures() -> None:
    request = decode_request(pb.ClassifyRequest(model="pets", version=3, encoded=pb.EncodedImages(images=[b"a", b"b"])))
    assert (request.model, request.version, request.images) == ("pets", 3, (b"a", b"b"))
    assert request.numbers is None
    assert request.protocol == "grpc"


def test_version_0_leaves_the_choice_to_the_policy() -> None:
    assert decode_request(pb.ClassifyRequest(encoded=pb.EncodedImages(images=[b"a"]))).version is None


def test_a_tensor_is_bytes_0_to_255_whatever_it_holds() -> None:
    request = decode_request(pb.ClassifyRequest(pixels=pb.PixelTensor(shape=[1, 2, 1], data=b"\x00\x01")))
    assert request.numbers is not None
    assert request.numbers.scale == "0-255"
    assert request.numbers.values.dtype == np.uint8
    assert request.numbers.values.tolist() == [[[0], [1]]]


@pytest.mark.parametrize(
    "message",
    [
        pb.ClassifyRequest(),
        pb.ClassifyRequest(encoded=pb.EncodedImages()),
        pb.ClassifyRequest(encoded=pb.EncodedImages(images=[b"a", b""])),
        pb.ClassifyRequest(pixels=pb.PixelTensor()),
        pb.ClassifyRequest(pixels=pb.PixelTensor(shape=[2], data=b"123")),
        pb.ClassifyRequest(pixels=pb.PixelTensor(shape=[0, 3], data=b"")),
        pb.ClassifyRequest(pixels=pb.PixelTensor(shape=[2**32 - 1] * 4, data=b"1")),
    ],
)
def test_requests_without_a_payload_that_fits(message: pb.ClassifyRequest) -> None:
    with pytest.raises(InvalidInput):
        decode_request(message)


def response() -> InferResponse:
    probabilities = np.array([[0.1, 0.7, 0.2], [0.4, 0.4, 0.2]], np.float32)
    return InferResponse("pets", 7, "int8", {"p": probabilities}, Timing(1, 2, 3), ("cat", "dog", "frog"))


def test_an_answer() -> None:
    answer = encode_response(response(), pb.ClassifyRequest(id="q", top_k=2))
    assert (answer.id, answer.model, answer.version) == ("q", "pets", 7)
    assert (answer.timing.decode_us, answer.timing.queue_us, answer.timing.infer_us) == (1, 2, 3)
    first, second = answer.predictions
    assert [(c.index, c.label) for c in first.classes] == [(1, "dog"), (2, "frog")]
    assert [c.probability for c in first.classes] == pytest.approx([0.7, 0.2])
    assert [c.index for c in second.classes] == [0, 1]
    assert not answer.HasField("error")


def test_five_classes_at_most_by_default() -> None:
    many = response()
    many.outputs = {"p": np.arange(20, dtype=np.float32)[None]}
    many.labels = ()
    answer = encode_response(many, pb.ClassifyRequest())
    assert [c.label for c in answer.predictions[0].classes] == ["19", "18", "17", "16", "15"]
