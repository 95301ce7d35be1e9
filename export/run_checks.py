"""Does a run folder contradict itself? Asked before anything is written from it.

model.keras on holdout.npz ──accuracy, of all and of each class by its label──▶ what metrics.json says?
scaling inside the graph ──▶ what run.json says?
"""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from export.errors import ExportError
from export.graph import pixel_chain
from export.run_folder import Rows, Run
from export.verify import class_accuracy

REFERENCE_TOLERANCE: Final = 0.01  # of accuracy: the same weights in another precision or batch stay well inside
CLASS_TOLERANCE: Final = 0.02  # of one class's accuracy, and never less than two of its rows
SUM_TOLERANCE: Final = 1e-3


def check_reference(run: Run, reference: NDArray[np.float32], holdout: Rows) -> float:
    """Compares Keras's answers with what training measured.

    Args:
        run: The run.
        reference: `float32[n, classes]` of its model on the hold-out rows.
        holdout: The rows and labels.

    Returns:
        The accuracy on these rows.

    Raises:
        ExportError: The answers are no probabilities, or the files are not of one run.
    """
    sums = reference.astype(np.float64).sum(1)
    if not np.all(np.abs(sums - 1.0) < SUM_TOLERANCE):
        raise ExportError(
            f"{run.model_path}: expected probabilities that sum to 1, received sums {sums.min():.4g}..{sums.max():.4g};"
            " end the model with a softmax"
        )
    accuracy = float((reference.argmax(1) == holdout.labels).mean())
    measured = run.metrics.get("test", {})
    whole = run.facts.get("data", {}).get("rows", {}).get("test") == len(holdout)
    _check_labels(run, measured.get("classes", []))
    if whole and "accuracy" in measured:
        allowed = max(REFERENCE_TOLERANCE, 1 / len(holdout))
        if abs(accuracy - float(measured["accuracy"])) > allowed:
            raise ExportError(
                f"{run.folder}: expected the accuracy of metrics.json, {float(measured['accuracy']):.4f}, received"
                f" {accuracy:.4f} from model.keras on holdout.npz: the files are not of one run; train again"
            )
        _check_classes(run, reference, holdout, measured.get("classes", []))
    return accuracy


def check_scaling(run: Run, model: ModelProto) -> None:
    """Compares the scaling inside the graph with what `run.json` says.

    Args:
        run: The run.
        model: The float32 graph.

    Raises:
        ExportError: They differ.
    """
    chain, said = pixel_chain(model), run.facts.get("preprocessing", {})
    if chain is None or not chain.casts or "scale" not in said:
        return
    expected = (float(said["scale"]), float(said.get("offset", 0.0)))
    if not np.allclose((chain.scale, chain.offset), expected, rtol=1e-5, atol=1e-7):
        raise ExportError(
            f"{run.model_path}: expected pixels × {expected[0]:.6g} + {expected[1]:.6g} as run.json says, received"
            f" × {chain.scale:.6g} + {chain.offset:.6g}; train again"
        )


def _check_labels(run: Run, classes: list[dict[str, Any]]) -> None:
    # A swapped list of labels changes no number of a class, so no accuracy shows it: the order itself must agree.
    measured = tuple(str(one.get("label")) for one in classes)
    if classes and measured != run.labels:
        differing = next(pair for pair in zip((*measured, ""), (*run.labels, ""), strict=False) if pair[0] != pair[1])
        raise ExportError(
            f"{run.folder}: expected the labels of run.json in the order of metrics.json, '{differing[0]}', received"
            f" '{differing[1]}' in its place; train again"
        )


def _check_classes(run: Run, reference: NDArray[np.float32], holdout: Rows, classes: list[dict[str, Any]]) -> None:
    found = class_accuracy(reference, holdout.labels)
    rows = np.bincount(holdout.labels, minlength=len(found))
    for one, received, count in zip(classes, found, rows, strict=False):
        if received is None or "recall" not in one:
            continue
        allowed = max(CLASS_TOLERANCE, 2 / count)
        if abs(float(one["recall"]) - received) > allowed:
            raise ExportError(
                f"{run.folder}: expected the accuracy of class '{one.get('label')}' in metrics.json,"
                f" {float(one['recall']):.4f}, received {received:.4f} from model.keras on holdout.npz: the files are"
                " not of one run; train again"
            )
