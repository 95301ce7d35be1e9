"""How the parameters of a trial become a point that particles fly through, and back.

    {"filters": 48, "learning_rate": 3e-3, "optimizer": "adam"}  ⇄  [0.41, 0.62, 0, 1, 0]

- A number is one coordinate in [0, 1], over its logarithm where its distribution says `log`.
- An integer, or a number with a step, is rounded from a coordinate on which every value owns a stretch of its own;
  with `log` the stretches follow the logarithm, so 4…8 weighs as much as 256…512.
- A category is one coordinate per choice: 1 for the chosen, 0 for the others. One coordinate for all of them would put
  choices in an order that they do not have and place `b` on every way from `a` to `c`. A choice is drawn in proportion
  to the squares of the coordinates, plus a floor that lets no choice die out: moving towards a best point makes its
  choice likelier, as in Strasser et al., "A New Discrete Particle Swarm Optimization Algorithm", GECCO 2016. Taking
  the largest coordinate instead was 0.1 of a rank worse on `benchmarks.pso_functions.TUNING`.
"""

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Final
from zlib import crc32

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
)

Vector = NDArray[np.float64]

_CATEGORY_FLOOR: Final = 0.05  # 0.03 and 0.08 were both worse at 40 evaluations
_STEP_SLACK: Final = 1e-9  # (0.3 − 0.0) / 0.1 is 2.9999999999999996


class Axis(ABC):
    """One parameter's share of the point.

    Args:
        width: Number of coordinates.
    """

    def __init__(self, width: int) -> None:
        self.width: Final = width

    @abstractmethod
    def encode(self, value: Any) -> Vector:
        """The coordinates of a value, `float64[width]` in [0, 1]."""

    @abstractmethod
    def decode(self, coordinates: Vector, rng: np.random.Generator) -> Any:
        """The value at coordinates `float64[width]`."""

    @abstractmethod
    def at_share(self, share: float) -> Any:
        """The value a share in [0, 1) of the way through the distribution: uniform shares give uniform values."""


class ContinuousAxis(Axis):
    """A float without a step.

    Args:
        distribution: Where its values come from.
    """

    def __init__(self, distribution: FloatDistribution) -> None:
        super().__init__(1)
        self._low, self._high, self._log = float(distribution.low), float(distribution.high), distribution.log

    def encode(self, value: Any) -> Vector:
        """See `Axis`."""
        if self._log:
            way, whole = math.log(value) - math.log(self._low), math.log(self._high) - math.log(self._low)
        else:  # halved, because `high − low` of the widest range is infinite
            way, whole = value / 2 - self._low / 2, self._high / 2 - self._low / 2
        share = way / whole if whole else 0.0  # no way at all where the bounds are neighbouring floats
        return np.array([min(1.0, max(0.0, share))])

    def decode(self, coordinates: Vector, rng: np.random.Generator) -> float:
        """See `Axis`."""
        del rng
        return self.at_share(float(coordinates[0]))

    def at_share(self, share: float) -> float:
        """See `Axis`."""
        if self._log:
            value = math.exp((1 - share) * math.log(self._low) + share * math.log(self._high))
        else:
            value = (1 - share) * self._low + share * self._high
        return min(self._high, max(self._low, value))


class SteppedAxis(Axis):
    """An integer, or a float with a step.

    Args:
        distribution: Where its values come from.
    """

    def __init__(self, distribution: IntDistribution | FloatDistribution) -> None:
        super().__init__(1)
        self._whole = isinstance(distribution, IntDistribution)
        self._low, self._high, self._log = distribution.low, distribution.high, distribution.log
        self._step = distribution.step or 1
        self._last = 0 if self._log else math.floor((self._high - self._low) / self._step + _STEP_SLACK)

    def encode(self, value: Any) -> Vector:
        """See `Axis`."""
        if self._log:
            bottom, top = math.log(self._low - 0.5), math.log(self._high + 0.5)
            share = (math.log(value) - bottom) / (top - bottom)
        else:
            share = ((value - self._low) / self._step + 0.5) / (self._last + 1)
        return np.array([min(1.0, max(0.0, share))])

    def decode(self, coordinates: Vector, rng: np.random.Generator) -> int | float:
        """See `Axis`."""
        del rng
        return self.at_share(float(coordinates[0]))

    def at_share(self, share: float) -> int | float:
        """See `Axis`."""
        if self._log:
            bottom, top = math.log(self._low - 0.5), math.log(self._high + 0.5)
            return int(min(self._high, max(self._low, round(math.exp(bottom + share * (top - bottom))))))
        value = self._low + min(self._last, math.floor(share * (self._last + 1))) * self._step
        return int(value) if self._whole else min(float(self._high), float(value))


class CategoryAxis(Axis):
    """A choice.

    Args:
        distribution: Where its values come from.
    """

    def __init__(self, distribution: CategoricalDistribution) -> None:
        super().__init__(len(distribution.choices))
        self._distribution = distribution

    def encode(self, value: Any) -> Vector:
        """See `Axis`."""
        coordinates = np.zeros(self.width)
        coordinates[int(self._distribution.to_internal_repr(value))] = 1.0
        return coordinates

    def decode(self, coordinates: Vector, rng: np.random.Generator) -> Any:
        """See `Axis`."""
        weights = np.clip(coordinates, 0.0, 1.0) ** 2 + _CATEGORY_FLOOR
        drawn = int(np.searchsorted(np.cumsum(weights), rng.random() * weights.sum()))
        return self._distribution.choices[min(self.width - 1, drawn)]

    def at_share(self, share: float) -> Any:
        """See `Axis`."""
        return self._distribution.choices[min(self.width - 1, math.floor(share * self.width))]


class SwarmSpace:
    """The unit cube that a set of parameters is seen as.

    Args:
        distributions: Name to distribution; the order of names is the order of coordinates.
    """

    def __init__(self, distributions: Mapping[str, BaseDistribution]) -> None:
        self.distributions: Final = dict(distributions)
        self.axes: Final = {name: _axis(name, distribution) for name, distribution in distributions.items()}
        ends = np.cumsum([axis.width for axis in self.axes.values()], dtype=int).tolist()
        self._slices = dict(zip(self.axes, map(slice, [0, *ends], ends), strict=False))
        self.size: Final = int(ends[-1]) if ends else 0
        described = {name: distribution_to_json(distribution) for name, distribution in distributions.items()}
        self.fingerprint: Final = crc32(json.dumps(described).encode())

    def encode(self, params: Mapping[str, Any]) -> Vector:
        """The point of a trial, `float64[size]` in [0, 1].

        Args:
            params: A value for every parameter; others are ignored.
        """
        return np.concatenate([axis.encode(params[name]) for name, axis in self.axes.items()])

    def decode(self, point: Vector, rng: np.random.Generator) -> dict[str, Any]:
        """The parameters at a point.

        Args:
            point: `float64[size]` in [0, 1].
            rng: What draws the categories.
        """
        return {name: axis.decode(point[self._slices[name]], rng) for name, axis in self.axes.items()}

    def covers(self, distributions: Mapping[str, BaseDistribution]) -> bool:
        """Whether a trial with these distributions has a point in this space."""
        return all(distributions.get(name) == expected for name, expected in self.distributions.items())


def _axis(name: str, distribution: BaseDistribution) -> Axis:
    if isinstance(distribution, CategoricalDistribution):
        return CategoryAxis(distribution)
    if isinstance(distribution, IntDistribution) or (isinstance(distribution, FloatDistribution) and distribution.step):
        return SteppedAxis(distribution)
    if isinstance(distribution, FloatDistribution):
        return ContinuousAxis(distribution)
    raise TypeError(
        f"expected a float, int or categorical distribution for {name!r}, received {distribution!r}: "
        "use one of optuna.distributions"
    )
