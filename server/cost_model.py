"""What a batch costs: measured once per batch size at load, then followed while serving.

    warm-up ──measure(rows, s)──▶ curve ─┐
    real runs ─observe(rows, s)─▶ slowdown ┴─▶ cost_s(rows) ──▶ batch size, predicted wait, metrics

The curve's shape belongs to the model and the device; what changes from minute to minute is how much of the device the
process gets. So real runs move one factor, the slowdown, and not the single points.
"""

import itertools
import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

# A tenth of each sample: after a step change nine tenths are learnt in about 22 batches, a quarter of a second of
# 10 ms batches.
WEIGHT: Final = 0.1
# One sample counts as four times the estimate at most: a pause of 100 batches' length moves it by 30 %, not tenfold.
CLIP: Final = 4.0


class Smoothed:
    """A mean of the latest samples that single outliers cannot throw.

    The first samples weigh equally, later ones exponentially less with age.

    Args:
        value: What it is before the first sample; 0 where nothing is known.
    """

    __slots__ = ("_samples", "value")

    def __init__(self, value: float = 0.0) -> None:
        self.value = value
        self._samples = 0

    def add(self, sample: float) -> None:
        """Takes one sample in."""
        self._samples += 1
        if self.value <= 0.0:
            self.value = sample
            return
        weight = max(WEIGHT, 1 / (self._samples + 1))
        self.value += weight * (min(sample, CLIP * self.value) - self.value)


class CostModel:
    """Seconds that a batch of so many rows takes, by measurement.

    Without a warm-up the first real run stands for all sizes, in proportion to rows, and further runs scale it.
    """

    def __init__(self) -> None:
        self._points: dict[int, float] = {}
        self._slowdown = Smoothed(1.0)
        self._cache: dict[int, float] = {}

    def measure(self, rows: int, seconds: float) -> None:
        """Sets a point of the curve.

        Args:
            rows: Rows in the batch, at least 1.
            seconds: The best of a few undisturbed runs.
        """
        self._points[rows] = seconds
        self._points = dict(sorted(self._points.items()))
        self._cache.clear()

    def observe(self, rows: int, seconds: float) -> None:
        """Takes in one real run.

        Args:
            rows: Rows in the batch, at least 1.
            seconds: How long it took.
        """
        expected_s = self._curve_s(rows)
        if expected_s > 0.0:
            self._slowdown.add(seconds / expected_s)
        elif seconds > 0.0:
            self.measure(rows, seconds)

    def cost_s(self, rows: int) -> float:
        """The expected seconds of a batch of `rows`; 0 while nothing has been measured."""
        return self._curve_s(rows) * self._slowdown.value

    @property
    def costs(self) -> Mapping[int, float]:
        """Measured batch sizes and what they cost now, in seconds."""
        return MappingProxyType({rows: seconds * self._slowdown.value for rows, seconds in self._points.items()})

    def _curve_s(self, rows: int) -> float:
        cached = self._cache.get(rows)
        if cached is None:
            cached = self._cache[rows] = _interpolate(self._points, rows)
        return cached


def _interpolate(points: Mapping[int, float], rows: int) -> float:
    """Piecewise linear between points (sorted by rows), in proportion to rows outside them."""
    if not points or rows <= 0:
        return 0.0
    if rows in points:
        return points[rows]
    smallest, largest = next(iter(points)), next(reversed(list(points)))
    if not smallest < rows < largest:
        nearest = smallest if rows < smallest else largest
        return points[nearest] * rows / nearest
    return next(
        points[low] + (points[high] - points[low]) * (rows - low) / (high - low)
        for low, high in itertools.pairwise(points)
        if low < rows < high
    )


def buckets(max_rows: int) -> tuple[int, ...]:
    """Batch sizes worth measuring: the powers of two up to `max_rows`, and `max_rows` itself."""
    powers = [1 << exponent for exponent in range(math.floor(math.log2(max_rows)) + 1)]
    return tuple(sorted({*powers, max_rows}))
