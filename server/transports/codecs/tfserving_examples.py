"""Examples, as Classify takes them: features by name, of bytes or of numbers, to tensors or pictures.

An image model takes of each example

    image/encoded, image_bytes       the bytes of one encoded picture; under the input's own name too
    image_raw                        one byte for each value, 0 to 255, of the model's own size
    <input>                          numbers in place of bytes: whole ones are 0 to 255, fractions 0 to 1

Any other model takes one feature for each of its inputs, of as many values as one row has.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from server.descriptions import ModelDescription
from server.errors import InvalidInput
from server.images import ImageSpec
from server.tensors import Array, InferRequest, Numbers, TensorSpec
from server.transports.codecs.tfserving import IMAGE_BYTES, image_input
from server.transports.codecs.v2_tensors import decode_values

ENCODED: Final = ("image/encoded", IMAGE_BYTES)
RAW: Final = "image_raw"
_FLOATS: Final = frozenset({"FP16", "FP32", "FP64"})

Feature = Sequence[bytes] | Sequence[int] | Sequence[float]
Example = Mapping[str, Feature]


def decode_examples(examples: Sequence[Example], model: ModelDescription) -> InferRequest:
    """Reads examples.

    Args:
        examples: Each one's features.
        model: The model that is to classify them.

    Raises:
        InvalidInput: They are not what the model takes.
    """
    if not examples:
        raise InvalidInput("expected at least one example, received none")
    image = image_input(model)
    if model.image is not None and image is not None:
        return _decode_pictures(examples, model.image, image.name)
    return InferRequest(inputs={spec.name: _decode_feature(examples, spec, model.name) for spec in model.inputs})


def _decode_pictures(examples: Sequence[Example], image: ImageSpec, own_name: str) -> InferRequest:
    pixels = [_find_picture(number, example, own_name) for number, example in enumerate(examples)]
    if all(isinstance(picture, bytes) for picture in pixels):
        return InferRequest(images=tuple(pixels))
    size = math.prod(image.shape)
    kinds = {getattr(picture, "dtype", None) for picture in pixels}
    if len(kinds) > 1:
        raise InvalidInput("expected all examples in one form, received encoded pictures, bytes or numbers mixed")
    if any(picture.shape != (size,) for picture in pixels):
        received = ", ".join(str(len(picture)) for picture in pixels[:5])
        raise InvalidInput(f"expected {size:,} pixels {list(image.shape)} in each example, received {received}")
    return InferRequest(numbers=Numbers(np.stack(pixels), "0-1" if pixels[0].dtype.kind == "f" else "0-255"))


def _find_picture(number: int, example: Example, own_name: str) -> Any:
    """One example's picture: `bytes` where it is encoded, or an array of numbers, flat."""
    names = [name for name in (*ENCODED, RAW, own_name) if name in example]
    if len(names) != 1:
        expected = ", ".join(dict.fromkeys((*ENCODED, RAW, own_name)))
        received = ", ".join(example)[:200] or "none"
        raise InvalidInput(f"expected one of the features {expected} in example {number}, received {received}")
    values = example[names[0]]
    if values and isinstance(values[0], bytes):
        if len(values) != 1:
            raise InvalidInput(f"expected one picture in '{names[0]}' of example {number}, received {len(values)}")
        return np.frombuffer(values[0], np.uint8) if names[0] == RAW else values[0]
    if names[0] != own_name:
        raise InvalidInput(f"expected bytes in '{names[0]}' of example {number}, received {len(values)} numbers")
    return np.asarray(values, np.float64 if any(isinstance(value, float) for value in values) else np.int64)


def _decode_feature(examples: Sequence[Example], spec: TensorSpec, model: str) -> Array:
    if not spec.batched or -1 in spec.shape[1:]:
        raise InvalidInput(
            f"expected a model whose rows have one size for examples, '{model}' takes '{spec.name}'"
            f" {spec.datatype}{list(spec.shape)}; use Predict"
        )
    values: list[Any] = []
    size = math.prod(spec.shape[1:])
    for number, example in enumerate(examples):
        feature = example.get(spec.name)
        if feature is None or len(feature) != size or not all(_fits(value, spec.datatype) for value in feature):
            received = "none" if feature is None else f"{len(feature):,} ({feature[0]!r:.40}, …)" if feature else "0"
            raise InvalidInput(
                f"expected {size:,} {spec.datatype} values in the feature '{spec.name}' of example {number}, received"
                f" {received}"
            )
        values += feature
    return decode_values(spec.name, spec.datatype, (len(examples), *spec.shape[1:]), values)


def _fits(value: object, datatype: str) -> bool:
    if datatype == "BYTES":
        return isinstance(value, bytes)
    return isinstance(value, (int, float) if datatype in _FLOATS else int)
