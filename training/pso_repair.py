"""Moves a point to where its constraints are expected to be kept, by what finished trials tell of them.

    finished trials ─points, constraint values─▶ ridge regression g(x) ≈ a + s · x ─▶ x − s (s · s)⁻¹ g(x)

That is the shortest way out of a linear constraint: Chootinan & Chen, "Constraint handling in genetic algorithms using
a gradient-based repair method", Computers & Operations Research 33, 2006. It changes what the constraint depends on and
leaves the rest. Without it a swarm that knows no allowed place closes in on the least bad one: of the CIFAR-10 network
at half of its default's cost 75 candidates in a row were refused.
"""

import math
from collections.abc import Mapping
from typing import Final

import numpy as np

from training.pso_space import Vector

_FEWEST: Final = 4  # trials, below which a regression would be a guess
_MOST: Final = 400  # the newest, which are nearest to where the swarm is
_RIDGE: Final = 0.1
_BEYOND: Final = 1.2  # of the way: the regression is not exact, and at the limit itself half would be refused
_LOWEST: Final = -0.99
_HIGHEST: Final = 1e9
_WALLS: Final = 8  # turns of the way at walls


class Repair:
    """What is known of the constraints of one space."""

    def __init__(self) -> None:
        self._known: dict[str, dict[int, tuple[Vector, float]]] = {}

    def learn(self, number: int, point: Vector, constraints: Mapping[str, float]) -> None:
        """Takes in a finished trial.

        Args:
            number: The trial's.
            point: `float64[size]` in [0, 1].
            constraints: Name → value, kept where it is 0 or less.
        """
        for name, value in constraints.items():
            # A cost is a product of sizes, so the logarithm of its share of the limit is what is linear; 0 stays 0.
            level = math.log1p(min(_HIGHEST, max(_LOWEST, value)))
            self._known.setdefault(name, {})[number] = (point, level)

    def moved(self, point: Vector) -> Vector:
        """The nearest point that is expected to keep each constraint, or the same one.

        Args:
            point: `float64[size]` in [0, 1].
        """
        for name in sorted(self._known):
            if len(self._known[name]) >= _FEWEST:
                point = _out_of(point, *self._line(name))
        return point

    def _line(self, name: str) -> tuple[Vector, float]:
        """Slope and offset of the regression."""
        newest = sorted(self._known[name].items())[-_MOST:]
        points = np.array([point for _, (point, _) in newest])
        levels = np.array([level for _, (_, level) in newest])
        middle, centre = points.mean(axis=0), levels.mean()
        centred = points - middle
        slope = np.linalg.solve(centred.T @ centred + _RIDGE * np.eye(middle.size), centred.T @ (levels - centre))
        return slope, float(centre - slope @ middle)


def _out_of(point: Vector, slope: Vector, offset: float) -> Vector:
    for _ in range(_WALLS):
        excess = offset + float(slope @ point)
        free = np.where(slope > 0, point > 0, point < 1) * slope
        if excess <= 0 or not free.any():
            break
        point = np.clip(point - _BEYOND * excess * free / float(free @ free), 0.0, 1.0)
    return point
