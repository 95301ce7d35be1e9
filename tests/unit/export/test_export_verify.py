"""Measures and gates on small arrays."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from export.settings import Gates
from export.verify import Comparison, compare, gate

GOOD = Comparison(
    rows=1_000,
    accuracy=0.9,
    accuracy_drop=0.001,
    max_class_drop=0.01,
    agreement=0.99,
    max_difference=1e-6,
    mean_difference=1e-7,
)


def one_hot(classes: list[int]) -> np.ndarray:
    return np.eye(3, dtype=np.float32)[classes]


def but(**changes: float) -> Comparison:
    return Comparison(**{name: changes.get(name, getattr(GOOD, name)) for name in Comparison.__slots__})


def test_compare_counts_rows() -> None:
    labels = np.array([0, 0, 0, 1, 2, 2])
    reference, answers = one_hot([0, 0, 0, 1, 2, 1]), one_hot([1, 1, 0, 1, 2, 2])
    comparison = compare(answers, reference, labels)
    assert comparison.rows == 6
    assert comparison.accuracy == pytest.approx(4 / 6)
    assert comparison.accuracy_drop == pytest.approx(1 / 6)
    assert comparison.agreement == pytest.approx(3 / 6)
    assert comparison.max_class_drop == pytest.approx(2 / 3)  # of class 0
    assert comparison.max_difference == 1.0
    assert comparison.mean_difference == pytest.approx(6 / 18)


def test_one_row_of_a_class_is_no_drop_of_the_class() -> None:
    assert compare(one_hot([1, 1]), one_hot([0, 1]), np.array([0, 1])).max_class_drop == 0.0


def test_a_good_variant_has_nothing_against_it() -> None:
    assert gate("float32", GOOD, 1.0, Gates()) == []
    assert gate("int8", GOOD, 2.5, Gates(min_speedup=2.5)) == []


@pytest.mark.parametrize(
    ("variant", "changes", "reason"),
    [
        ("int8", {"agreement": 0.98}, "agreement with Keras: expected at least 0.985, received 0.98"),
        ("int8", {"accuracy_drop": 0.004}, "accuracy drop: expected at most 0.003, received 0.004"),
        ("int8", {"max_class_drop": 0.06}, "accuracy drop of one class: expected at most 0.05, received 0.06"),
        ("float32", {"max_difference": 2e-4}, "difference of a probability: expected at most 0.0001, received 0.0002"),
        (
            "float32",
            {"max_difference": float("nan")},
            "difference of a probability: expected at most 0.0001, received nan",
        ),
    ],
)
def test_each_gate_stops_what_misses_it(variant: str, changes: dict[str, float], reason: str) -> None:
    assert gate(variant, but(**changes), 3.0, Gates()) == [reason]


def test_the_speed_gate_is_for_other_variants_than_float32() -> None:
    slow = gate("int8", GOOD, 1.9, Gates(min_speedup=2.0))
    assert slow == ["speed as a multiple of float32's: expected at least 2, received 1.9"]
    assert gate("float32", GOOD, 1.0, Gates(min_speedup=2.0)) == []


@given(st.integers(1, 400))
def test_one_row_is_always_allowed(rows: int) -> None:
    labels = np.zeros(rows, np.int64)
    answers = one_hot([1] + [0] * (rows - 1))
    strict = Gates(min_agreement=1.0, max_accuracy_drop=0.0, max_class_drop=0.0)
    assert gate("int8", compare(answers, one_hot([0] * rows), labels), 1.0, strict) == []
    if rows > 1:
        two = one_hot([1, 1] + [0] * (rows - 2))
        assert len(gate("int8", compare(two, one_hot([0] * rows), labels), 1.0, strict)) == 3
