"""What the event loop keeps of an answer until the observer's thread fetches it: as little as there can be.

    answer ──small input: digested at once──▶ Entry, plain values that the garbage collector need not follow
           └─large input, or one to be kept──▶ Answered, which holds what came until a thread has digested it

A digest of a small picture takes a microsecond while its bytes are still in the processor's cache. Holding the bytes of
some thousand pictures for a thread instead costs several: every request then meets memory that nobody has touched.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple
from weakref import ref

from server.tensors import Array, InferRequest

if TYPE_CHECKING:
    from server.versions import LoadedModel  # the writer imports this module, and has no use for ONNX Runtime

DIGEST_BYTES: Final = 32
# What is digested at once, for one request: some 10 µs of the event loop's time.
SMALL_BYTES: Final = 16_384
_CLASSES_NDIM: Final = 2

# When (seconds since the epoch), request id, client ("" where unknown), protocol, latency (seconds), rows, the rows'
# digests one behind the other, and the version's first output. A plain tuple of plain values: the garbage collector
# stops following it, and making it takes a fifth of the time of a named one.
Entry = tuple[float, str, str, str, float, int, bytes, Array | None]


class Answered(NamedTuple):
    """One request that was answered.

    Args:
        at_s: When, in seconds since the epoch.
        request: What was asked.
        model: The version that answered.
        images: Its encoded pictures; empty where it brought tensors or numbers.
        inputs: What the graph was given, by name; empty where there are pictures, or the answer came from the cache.
        outputs: Every output of the version, by name.
        latency_s: From the decoded request to its answer.
        rows: How many.
    """

    at_s: float
    request: InferRequest
    model: "LoadedModel"
    images: Sequence[bytes | memoryview]
    inputs: Mapping[str, Array]
    outputs: Mapping[str, Array]
    latency_s: float
    rows: int


@dataclass(frozen=True, slots=True, eq=False)
class Lane:
    """What the answers of one loaded version have in common. It does not keep the version alive.

    Args:
        source: The version.
        model: Its model's name.
        version: Its number.
        variant: The graph in use.
        labels: Its class names.
        accuracy: Of the graph on the hold-out rows, 0..1; None where unknown.
        output: The name of its first output.
        batched: Whether that has a row for each of the request's.
    """

    source: "ref[LoadedModel]"
    model: str
    version: int
    variant: str
    labels: tuple[str, ...]
    accuracy: float | None
    output: str
    batched: bool

    def count_rows(self, outputs: Mapping[str, Array]) -> int:
        """How many rows an answer without pictures has."""
        return outputs[self.output].shape[0] if self.batched else 1


def lane_of(model: "LoadedModel") -> Lane:
    """A version's lane.

    Args:
        model: The version.
    """
    first = model.outputs[0]
    return Lane(
        ref(model),
        model.name,
        model.version,
        model.variant,
        model.labels,
        expected_accuracy(model),
        first.name,
        first.batched,
    )


def expected_accuracy(model: "LoadedModel") -> float | None:
    """Accuracy of the graph in use on the hold-out rows, 0..1; None where nobody measured it.

    Args:
        model: A loaded version.
    """
    accuracies = [variant.accuracy for variant in model.bundle.variants if variant.name == model.variant]
    return accuracies[0] if accuracies and accuracies[0] > 0 else None


def probabilities_in(output: Array | None, rows: int) -> Array | None:
    """A classifier's probabilities, `float[rows, classes]`; None where the output is nothing of the kind.

    Args:
        output: The version's first one.
        rows: How many the request had.
    """
    if output is None or output.dtype.kind != "f" or output.ndim != _CLASSES_NDIM or len(output) != rows:
        return None
    return output if output.size else None


def digest_of(content: bytes | memoryview) -> bytes:
    """The SHA-256 of a picture's bytes.

    Args:
        content: The bytes.
    """
    return hashlib.sha256(content).digest()


def digests_at_once(images: Sequence[bytes | memoryview], inputs: Mapping[str, Array], rows: int) -> bytes | None:
    """The digests of a request's rows, one behind the other; None where that takes long, or is not told by `inputs`.

    Args:
        images: Its encoded pictures.
        inputs: What the graph was given, where there are none.
        rows: How many.
    """
    if len(images) == 1:  # as nearly always, so without another call
        return hashlib.sha256(images[0]).digest() if len(images[0]) <= SMALL_BYTES else None
    if images:
        return b"".join(map(digest_of, images)) if sum(map(len, images)) <= SMALL_BYTES else None
    if len(inputs) != 1:
        return None
    (array,) = inputs.values()
    if array.nbytes > SMALL_BYTES or array.dtype.hasobject or array.ndim == 0 or len(array) != rows:
        return None
    return b"".join([digest_of(row.tobytes()) for row in array])
