"""The Open Inference Protocol's JSON with bytes behind it, where the JSON was read before.

    JSON ──read once (`v2_json`)──▶ BinaryHead ──with the bytes of each request──▶ V2Request

A client that sends tensors as bytes sends the same JSON in front of them each time.
"""

import math
import sys
from typing import Any, Final, NamedTuple, Self

import numpy as np

from server.tensors import DTYPES, Array, InferRequest
from server.transports.codecs.v2 import V2Request

MAX_NDIM: Final = 32  # as many dimensions as NumPy had for decades


class RawTensor(NamedTuple):
    """A tensor whose bytes come as they are in memory.

    Args:
        name: Its name.
        dtype: Its elements'.
        shape: Its dimensions.
        elements: How many.
        n_bytes: How many bytes.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    elements: int
    n_bytes: int

    @classmethod
    def of(cls, name: str, datatype: str, shape: tuple[int, ...], n_bytes: int) -> Self | None:
        """A tensor as it is told, or None where its bytes are not the memory of an array of that shape.

        Args:
            name: Its name.
            datatype: The protocol's name of its type.
            shape: Its dimensions.
            n_bytes: How many bytes are sent.
        """
        dtype = DTYPES.get(datatype)
        # Strings have no fixed size, a BOOL may be any byte, and the wire is little-endian.
        if dtype is None or dtype.kind not in "iuf" or sys.byteorder == "big":
            return None
        elements = math.prod(shape)
        if min(shape, default=1) < 1 or elements * dtype.itemsize != n_bytes or len(shape) > MAX_NDIM:
            return None
        return cls(name, dtype, shape, elements, n_bytes)

    def read(self, body: bytes, start: int) -> Array:
        """Its elements in a body, without a copy where the memory allows it.

        Args:
            body: The whole body.
            start: Where they begin.
        """
        array = np.frombuffer(body, self.dtype, self.elements, start).reshape(self.shape)
        # Behind a JSON header of odd length a tensor begins anywhere; the model reads whole words.
        return array if array.flags.aligned else array.copy()


class BinaryHead:
    """What the JSON says.

    Args:
        request: All of it but the inputs.
        tensors: The inputs, in the order of their bytes.
    """

    __slots__ = ("_request", "_tensors", "n_bytes")

    def __init__(self, request: V2Request, tensors: tuple[RawTensor, ...]) -> None:
        self._request = request
        self._tensors = tensors
        #: Bytes that come behind the JSON.
        self.n_bytes = sum(tensor.n_bytes for tensor in tensors)

    def request_of(self, body: bytes, start: int) -> V2Request:
        """The request that the JSON and a body are together.

        Args:
            body: The whole body, with `n_bytes` bytes behind `start`.
            start: Where the JSON ends.
        """
        told = self._request
        inputs = {}
        for tensor in self._tensors:
            inputs[tensor.name] = tensor.read(body, start)
            start += tensor.n_bytes
        infer = InferRequest(inputs=inputs, priority=told.infer.priority, protocol=told.infer.protocol)
        return V2Request(infer, told.id, told.outputs, told.timeout_s, told.binary, told.final_mark)
