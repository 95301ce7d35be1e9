"""Is a variant still the model that Keras trained, and how fast is it?

    hold-out rows ──Keras──▶ reference ─┐
          │                             ├──compare──▶ Comparison ──gate──▶ reasons against it, none if it may be written
          └──────ONNX Runtime──▶ answers┘

Speed is CPU time with one ONNX Runtime thread, in rounds that alternate between the variants: another process on the
same cores, or a clock that changes, hits both alike and leaves the ratio alone.
"""

import os
import statistics
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from export.graph import INPUT, OUTPUT
from export.settings import FLOAT16, FLOAT32, INT8, INT8_AMX, Gates

VERIFY_ROWS: Final = 64
SPEED_ROWS: Final = 16
ROUND_S: Final = 0.02
BUDGET_S: Final = 4.0
MIN_ROUNDS, MAX_ROUNDS = 3, 25


@dataclass(frozen=True, slots=True)
class Comparison:
    """A variant's answers on the hold-out rows against Keras's.

    Args:
        rows: How many rows.
        accuracy: Share of rows whose top-1 class is the label's.
        accuracy_drop: Keras's accuracy less this one; negative when the variant is better.
        max_class_drop: The largest such drop within one class, in its own share, and 0 where only one row changed.
        agreement: Share of rows with Keras's top-1 class.
        max_difference: Largest absolute difference of any probability.
        mean_difference: Mean absolute difference of all probabilities.
        class_accuracy: The share of each class's rows that is right; None for a class without rows.
    """

    rows: int
    accuracy: float
    accuracy_drop: float
    max_class_drop: float
    agreement: float
    max_difference: float
    mean_difference: float
    class_accuracy: tuple[float | None, ...] = ()


def compare(answers: NDArray[np.float32], reference: NDArray[np.float32], labels: NDArray[np.int64]) -> Comparison:
    """Compares a variant with Keras.

    Args:
        answers: `float32[n, classes]` of the variant.
        reference: `float32[n, classes]` of Keras.
        labels: `int64[n]`.
    """
    right, right_before = answers.argmax(1) == labels, reference.argmax(1) == labels
    difference = np.abs(answers.astype(np.float64) - reference)
    return Comparison(
        rows=len(labels),
        accuracy=float(right.mean()),
        accuracy_drop=float(right_before.mean() - right.mean()),
        max_class_drop=_max_class_drop(right, right_before, labels),
        agreement=float((answers.argmax(1) == reference.argmax(1)).mean()),
        max_difference=float(difference.max()),
        mean_difference=float(difference.mean()),
        class_accuracy=class_accuracy(answers, labels),
    )


def class_accuracy(answers: NDArray[np.float32], labels: NDArray[np.int64]) -> tuple[float | None, ...]:
    """The share of each class's rows whose top-1 class is the label's.

    Args:
        answers: `float32[n, classes]`.
        labels: `int64[n]`.

    Returns:
        A share for each class, None for a class without rows.
    """
    classes = answers.shape[1]
    rows = np.bincount(labels, minlength=classes)
    right = np.bincount(labels[answers.argmax(1) == labels], minlength=classes)
    return tuple(float(r / n) if n else None for r, n in zip(right, rows, strict=True))


def _max_class_drop(right: NDArray[np.bool_], right_before: NDArray[np.bool_], labels: NDArray[np.int64]) -> float:
    lost = np.bincount(labels, right_before.astype(float) - right)
    return float(np.max(np.where(lost > 1, lost / np.maximum(np.bincount(labels), 1), 0.0)))


def gate(variant: str, comparison: Comparison, speedup: float, gates: Gates, *, size_ratio: float = 1.0) -> list[str]:
    """Lists what speaks against writing a variant.

    Args:
        variant: Its name.
        comparison: Against Keras.
        speedup: Its images/s as a multiple of float32's.
        gates: The limits.
        size_ratio: Its file's size as a multiple of float32's.

    Returns:
        One sentence for each gate that it missed.
    """
    return [*answer_misses(variant, comparison, gates), *_cost_misses(variant, speedup, size_ratio, gates)]


def answer_misses(variant: str, comparison: Comparison, gates: Gates) -> list[str]:
    """Lists what its answers say against a variant, whatever it costs.

    Args:
        variant: Its name.
        comparison: Against Keras.
        gates: The limits.
    """
    one_row = 1.0 / comparison.rows
    reasons = [
        _missed("agreement with Keras", comparison.agreement, min(gates.min_agreement, 1.0 - one_row), least=True),
        _missed("accuracy drop", comparison.accuracy_drop, max(gates.max_accuracy_drop, one_row)),
        _missed("accuracy drop of one class", comparison.max_class_drop, gates.max_class_drop),
    ]
    largest = {FLOAT32: gates.max_difference, FLOAT16: gates.max_float16_difference}
    if variant in largest:
        reasons.append(_missed("difference of a probability", comparison.max_difference, largest[variant]))
    return [reason for reason in reasons if reason]


def gain_misses(gain: float, gates: Gates) -> list[str]:
    """Lists what its speed says against int8-amx, which is written only where it is worth a file of its own.

    Args:
        gain: Its images/s as a multiple of int8's.
        gates: The limits.
    """
    reason = _missed("speed as a multiple of int8's", gain, gates.min_amx_gain, least=True)
    return [reason] if reason else []


def _cost_misses(variant: str, speedup: float, size_ratio: float, gates: Gates) -> list[str]:
    if variant == FLOAT32:
        return []
    reasons = [_missed("size as a multiple of float32's", size_ratio, gates.max_size_ratio)]
    if variant in (INT8, INT8_AMX) and gates.min_speedup:
        reasons.append(_missed("speed as a multiple of float32's", speedup, gates.min_speedup, least=True))
    return [reason for reason in reasons if reason]


def _missed(what: str, value: float, limit: float, *, least: bool = False) -> str:
    # Written so that NaN misses every gate. The rounding keeps 1/360 from missing a limit of 1/360.
    kept = value >= limit - 1e-12 if least else value <= limit + 1e-12
    return "" if kept else f"{what}: expected at {'least' if least else 'most'} {limit:.6g}, received {value:.6g}"


def open_session(model: bytes | str, *, threads: int = 1) -> Any:
    """Opens an ONNX Runtime session on the CPU.

    Args:
        model: A serialised graph or a file's path.
        threads: Intra-op threads.
    """
    import onnxruntime as ort  # noqa: PLC0415 - heavy

    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def answer(session: Any, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Runs every row.

    Args:
        session: Of a variant.
        pixels: `uint8[n, h, w, c]`.

    Returns:
        `float32[n, classes]`.
    """
    parts = [pixels[at : at + VERIFY_ROWS] for at in range(0, len(pixels), VERIFY_ROWS)]
    # A session may run in several threads, and each batch's answers are the same in any of them.
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        return np.concatenate(list(pool.map(lambda part: session.run([OUTPUT], {INPUT: part})[0], parts)))


def images_per_s(sessions: Mapping[str, Any], pixels: NDArray[np.uint8]) -> dict[str, float]:
    """Measures one-thread sessions in alternating rounds of 16 rows a call.

    Args:
        sessions: By variant, each opened with one thread.
        pixels: `uint8[n, h, w, c]`; the first rows are used.

    Returns:
        Images per CPU second: the median over the rounds.
    """
    rows = pixels[:SPEED_ROWS]
    feeds = {INPUT: rows}
    calls = {name: _calls_per_round(session, feeds) for name, session in sessions.items()}
    seconds: dict[str, list[float]] = {name: [] for name in sessions}
    started = time.perf_counter()
    for count in range(MAX_ROUNDS):
        if count >= MIN_ROUNDS and time.perf_counter() - started > BUDGET_S:
            break
        for name, session in sessions.items():
            seconds[name].append(_cpu_s(session, feeds, calls[name]) / len(rows))
    return {name: 1.0 / statistics.median(measured) for name, measured in seconds.items()}


def _calls_per_round(session: Any, feeds: dict[str, NDArray[np.uint8]]) -> int:
    _cpu_s(session, feeds, 2)
    return max(1, int(ROUND_S / max(_cpu_s(session, feeds, 1), 1e-6)))


def _cpu_s(session: Any, feeds: dict[str, NDArray[np.uint8]], calls: int) -> float:
    # Of all threads: with one, ONNX Runtime computes in the caller's, but OpenVINO has its own.
    before = time.process_time()
    for _ in range(calls):
        session.run([OUTPUT], feeds)
    return (time.process_time() - before) / calls
