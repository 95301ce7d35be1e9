"""Calibration rows that look like others are noticed, whichever channel it is."""

import numpy as np
import pytest
from numpy.typing import NDArray

from export.drift import measure_drift


def rows(seed: int, count: int = 200) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).binomial(255, 0.4, (count, 8, 8, 3)).astype(np.uint8)


def test_two_samples_of_the_same_pictures_hardly_drift() -> None:
    drift = measure_drift(rows(1), rows(2))
    assert drift.psi < 0.01
    assert drift.mean_difference < 0.5
    assert drift.deviation_ratio == pytest.approx(1, abs=0.02)


def test_one_channel_that_differs_is_enough() -> None:
    darker = rows(1)
    darker[..., 2] //= 2
    drift = measure_drift(darker, rows(2))
    assert drift.psi > 1
    assert drift.mean_difference == pytest.approx(51, abs=1)
    assert drift.deviation_ratio == pytest.approx(0.5, abs=0.03)


def test_the_index_is_that_of_the_definition() -> None:
    half, all_dark = np.array([0, 0, 255, 255], np.uint8), np.array([0, 0, 0, 255], np.uint8)
    drift = measure_drift(half.reshape(4, 1, 1, 1), all_dark.reshape(4, 1, 1, 1))
    expected = (0.5 - 0.75) * np.log(0.5 / 0.75) + (0.5 - 0.25) * np.log(0.5 / 0.25)
    assert drift.psi == pytest.approx(expected)
