"""Descriptions of models, as the service gives them to TensorFlow Serving's codecs."""

import numpy as np

from server.descriptions import ModelDescription
from server.images import ImageSpec
from server.tensors import Array, InferResponse, TensorSpec


def describe(
    *inputs: TensorSpec,
    outputs: tuple[TensorSpec, ...] = (TensorSpec("y", "FP32", (-1, 2)),),
    image: ImageSpec | None = None,
) -> ModelDescription:
    return ModelDescription(
        name="m",
        version=3,
        variant="float32",
        providers=("cpu",),
        labels=("low", "high"),
        image=image,
        inputs=inputs,
        outputs=outputs,
        costs_s={1: 0.01},
        max_batch_rows=4,
        manifest=None,
    )


PICTURES = describe(TensorSpec("image", "UINT8", (-1, 2, 2, 1)), image=ImageSpec(2, 2, 1))
TABLE = describe(TensorSpec("x", "FP32", (-1, 2)))
TEXTS = describe(TensorSpec("x", "BYTES", (-1,)))
PAIR = describe(
    TensorSpec("a", "INT8", (-1, 2)),
    TensorSpec("b", "BOOL", (-1,)),
    outputs=(TensorSpec("y", "FP32", (-1, 2)), TensorSpec("z", "BYTES", (-1,))),
)


def answer(**outputs: Array) -> InferResponse:
    return InferResponse("m", 3, "float32", outputs, labels=("low", "high"))


def texts(*values: bytes) -> Array:
    array = np.empty(len(values), np.object_)
    array[:] = values
    return array
