"""What both forms of TensorFlow Serving's protocol have in common: signatures, names of inputs, and classifications.

message ─▶ tfserving_messages ─┐                                              ┌─▶ tfserving_messages ─▶ message
                               ├─▶ TfRequest   InferResponse ─▶ classify rows ─┤
JSON ────▶ tfserving_json ─────┘                                              └─▶ tfserving_json ─────▶ JSON

A model is told as up to three signatures. An image model takes its pictures under its input's own name or as
`image_bytes`, in whichever signature: encoded ones as strings, pixels as numbers.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from server.descriptions import ModelDescription
from server.errors import InvalidInput
from server.tensors import Array, InferRequest, InferResponse, TensorSpec
from server.transports.codecs.ranking import label_of, probabilities_of

DEFAULT_SIGNATURE: Final = "serving_default"
IMAGES_SIGNATURE: Final = "predict_images"
CLASSIFY_SIGNATURE: Final = "classify"
IMAGE_BYTES: Final = "image_bytes"

Scores = list[tuple[str, float]]


@dataclass(slots=True)
class TfRequest:
    """A request of the protocol.

    Args:
        infer: What the service answers, of one version.
        signature: The name of the signature that it uses.
        rows: Whether its answer is to be told row by row: JSON only.
    """

    infer: InferRequest
    signature: str = DEFAULT_SIGNATURE
    rows: bool = False


def choose_signature(name: str, allowed: Collection[str]) -> str:
    """The signature that a request asks for.

    Args:
        name: Its name; empty for the default one.
        allowed: The names of those that the method can use.

    Raises:
        InvalidInput: The model has none of that name, or not for this method.
    """
    if not name:
        return DEFAULT_SIGNATURE
    if name not in allowed:
        raise InvalidInput(f"expected one of the signatures {', '.join(allowed)} here, received {name!r:.60}")
    return name


def predict_signatures(model: ModelDescription) -> tuple[str, ...]:
    """The signatures that Predict can use.

    Args:
        model: Whose.
    """
    return (DEFAULT_SIGNATURE, IMAGES_SIGNATURE) if model.image is not None else (DEFAULT_SIGNATURE,)


def classify_signatures() -> tuple[str, ...]:
    """The signatures that Classify can use."""
    return DEFAULT_SIGNATURE, CLASSIFY_SIGNATURE


def image_input(model: ModelDescription) -> TensorSpec | None:
    """The input that takes pictures, or None.

    Args:
        model: Whose.
    """
    if model.image is None:
        return None
    shape = (-1, *model.image.shape)
    return next(spec for spec in model.inputs if (spec.datatype, spec.shape) == ("UINT8", shape))


def find_input(name: str, model: ModelDescription) -> TensorSpec:
    """The input that a request calls by this name.

    Args:
        name: An input's own, or `image_bytes` for the one that takes pictures.
        model: Whose.

    Raises:
        InvalidInput: The model has none of that name.
    """
    image = image_input(model)
    if name == IMAGE_BYTES and image is not None:
        return image
    for spec in model.inputs:
        if spec.name == name:
            return spec
    known = ", ".join(f"'{spec.name}' {spec.datatype}{list(spec.shape)}" for spec in model.inputs)
    also = f" (encoded pictures as '{IMAGE_BYTES}' too)" if image is not None else ""
    raise InvalidInput(f"expected the inputs {known}{also} of '{model.name}', received {name!r:.60}")


def rename_inputs(inputs: Mapping[str, Array], model: ModelDescription) -> dict[str, Array]:
    """Inputs by their own names.

    Args:
        inputs: By the names that the request calls them.
        model: Whose.

    Raises:
        InvalidInput: The model has none of a name, or one is there under two names.
    """
    renamed = {find_input(name, model).name: array for name, array in inputs.items()}
    if len(renamed) != len(inputs):
        raise InvalidInput(f"expected each input once, received {', '.join(inputs)}, which are the same")
    return renamed


def read_scores(response: InferResponse) -> list[Scores]:
    """Each row's classes with their probabilities, in the order of the model's classes.

    Args:
        response: What the service answered.

    Raises:
        InvalidInput: The model is no classifier.
    """
    labels = response.labels
    # NumPy's own numbers: JSON tells a float32 in fewer digits than Python's double of it.
    return [[(label_of(labels, index), score) for index, score in enumerate(row)] for row in probabilities_of(response)]
