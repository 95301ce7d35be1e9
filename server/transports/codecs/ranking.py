"""A classifier's probabilities as people ask for them: the best class, the best k, and their names."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from server.errors import InvalidInput
from server.tensors import Array, InferResponse

CLASSES_NDIM: Final = 2


def probabilities_of(response: InferResponse) -> Array:
    """The model's first output, one row of class probabilities for each picture.

    Args:
        response: What the service answered.

    Returns:
        `float[n, classes]`.

    Raises:
        InvalidInput: The model is no classifier, so the plain interfaces cannot tell its answer.
    """
    name, output = next(iter(response.outputs.items()))
    if output.ndim != CLASSES_NDIM or output.dtype.kind != "f" or output.shape[1] == 0:
        raise InvalidInput(
            f"expected a classifier with probabilities [n, classes], but '{response.model}' answers '{name}' as"
            f" {output.dtype} {list(output.shape)}; the plain interface serves classifiers only"
        )
    return np.ascontiguousarray(output)


def best_classes(probabilities: Array, top_k: int) -> NDArray[np.intp]:
    """The `top_k` most probable classes of each row, best first; equal ones in the order of their numbers.

    Args:
        probabilities: `float[n, classes]`.
        top_k: How many; more than there are means all.

    Returns:
        `intp[n, min(top_k, classes)]`.
    """
    if top_k == 1:
        return np.expand_dims(np.argmax(probabilities, axis=1), 1)
    ranked: NDArray[np.intp] = np.argsort(-probabilities, axis=1, kind="stable")
    return ranked[:, :top_k]


def label_of(labels: tuple[str, ...], index: int) -> str:
    """The name of a class, or its number where the model has no names.

    Args:
        labels: The model's class names, or nothing.
        index: The class.
    """
    return labels[index] if index < len(labels) else str(index)
