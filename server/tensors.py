"""What flows between transports, service and batcher: tensors by name, and the table of their types.

codec ──InferRequest──▶ service ──rows──▶ batcher ──rows──▶ service ──InferResponse──▶ codec
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from server.deadline import Deadline
from server.errors import InvalidInput

Array = NDArray[Any]

# Open Inference Protocol name → NumPy type. BYTES elements are Python `bytes` in an object array.
DTYPES: Final[Mapping[str, np.dtype[Any]]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype(np.uint8),
    "UINT16": np.dtype(np.uint16),
    "UINT32": np.dtype(np.uint32),
    "UINT64": np.dtype(np.uint64),
    "INT8": np.dtype(np.int8),
    "INT16": np.dtype(np.int16),
    "INT32": np.dtype(np.int32),
    "INT64": np.dtype(np.int64),
    "FP16": np.dtype(np.float16),
    "FP32": np.dtype(np.float32),
    "FP64": np.dtype(np.float64),
    "BYTES": np.dtype(np.object_),
}

# ONNX Runtime's spelling of the same types, as `session.get_inputs()[i].type` gives it.
ORT_TYPES: Final[Mapping[str, str]] = {
    "tensor(bool)": "BOOL",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(float16)": "FP16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(string)": "BYTES",
}


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output of a model.

    Args:
        name: Its name in the graph.
        datatype: The Open Inference Protocol's name of its type, a key of `DTYPES`.
        shape: Its dimensions, -1 where any size will do. Where the first one is -1 it counts rows, and rows of
            different requests may share a batch.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]

    @property
    def dtype(self) -> np.dtype[Any]:
        """The NumPy type of its elements."""
        return DTYPES[self.datatype]

    @property
    def batched(self) -> bool:
        """Whether the first dimension counts rows."""
        return bool(self.shape) and self.shape[0] == -1

    def validate(self, array: Array) -> None:
        """Checks that an array can be this tensor.

        Args:
            array: The candidate, rows first where the tensor is batched.

        Raises:
            InvalidInput: Its type or shape differs; the message names both.
        """
        shape = array.shape
        if (
            array.dtype is DTYPES[self.datatype]
            and shape[1:] == self.shape[1:]
            and shape
            and self.shape[:1] in ((-1,), shape[:1])
        ):
            return  # what nearly all arrays are
        if array.dtype != self.dtype:
            raise InvalidInput(f"expected {self.datatype} values for '{self.name}', received {array.dtype}")
        if len(array.shape) != len(self.shape) or any(
            want not in (-1, got) for want, got in zip(self.shape, array.shape, strict=True)
        ):
            raise InvalidInput(
                f"expected shape {_spell(self.shape)} for '{self.name}', received {_spell(array.shape)};"
                " see /model-info for what the model takes"
            )


class Timing(NamedTuple):
    """Where one request's time went, in microseconds.

    Args:
        decode_us: Turning encoded pictures into rows.
        queue_us: Waiting for a batch to start.
        infer_us: Running the batch the rows were in.
    """

    decode_us: int = 0
    queue_us: int = 0
    infer_us: int = 0


AT_ONCE: Final = Timing()


@dataclass(frozen=True, slots=True)
class Numbers:
    """Pixels as the plain interfaces send them: bare numbers, to be fitted to the model's image input.

    Args:
        values: The numbers, in the shape they came in.
        scale: The range they are in, or "" where the caller did not say and the values must tell.
    """

    values: Array
    scale: Literal["", "0-1", "0-255"] = ""


@dataclass(slots=True)
class InferRequest:
    """A request as every transport hands it to the service.

    One of `inputs`, `images` and `numbers` holds the payload.

    Args:
        model: The model's name; empty for the server's default.
        version: The version asked for, or None for the one that the traffic policy chooses.
        inputs: Tensors by input name, rows first. A model's image input takes encoded pictures too: `bytes[n]`.
        images: Encoded pictures, to be decoded for the model's image input; one row each.
        numbers: Pixels as bare numbers, to be fitted to the model's image input.
        outputs: The outputs wanted; empty for all.
        request_id: Names the request in logs and in its answer.
        deadline: When the answer stops being worth anything; None for the server's default budget.
        priority: Lower runs earlier; the default is 0.
        key: What an A/B policy keeps together (a user's or a session's name); empty draws at random.
        protocol: The wire format it came by, for metrics.
        client: Who asks, where that is known; for the prediction log.
    """

    model: str = ""
    version: int | None = None
    inputs: Mapping[str, Array] = field(default_factory=dict)
    outputs: tuple[str, ...] = ()
    images: tuple[bytes | memoryview, ...] = ()
    numbers: Numbers | None = None
    request_id: str = ""
    deadline: Deadline | None = None
    priority: int = 0
    key: str = ""
    protocol: str = ""
    client: str = ""


@dataclass(slots=True)
class InferResponse:
    """The service's answer.

    Args:
        model: The model that answered.
        version: The one version that all rows were computed by.
        variant: Which of the version's graphs ran ("float32", "int8", ...).
        outputs: Tensors by output name, one row for each of the request's.
        timing: Where the time went.
        labels: The version's class names, in the order of its classes; empty where it has none.
    """

    model: str
    version: int
    variant: str
    outputs: Mapping[str, Array]
    timing: Timing = AT_ONCE
    labels: tuple[str, ...] = ()


def bytes_held(array: Array) -> int:
    """What an array keeps in memory: its elements, and of strings what they point to."""
    return array.nbytes + (sum(map(len, array.ravel())) if array.dtype.hasobject else 0)


def _spell(shape: tuple[int, ...]) -> str:
    return "[" + ", ".join("n" if size == -1 else str(size) for size in shape) + "]"
