"""Functions with a known optimum that look like tuning problems: mixed kinds of parameters, some rotated, some noisy.

    parameters ─unit values u in [0, 1]─▶ z = 10 R (u − u* − shift of the chosen categories) ─▶ shape(z) + penalties
                                        └▶ exp(w · u) ≤ limit, where there is one: what a network costs

Each seed of a problem is a problem of its own: the optimum `u*` (never near the centre), the rotation `R` and what
each category costs are drawn anew, so that no sampler can be lucky with a centre or with the order of the choices.
`TUNING` holds the problems by which `training.pso`'s defaults were chosen, `REPORTED` those that the report is about;
they share neither a shape nor a seed. `CONSTRAINED` are problems of the report's kind under a limit that few random
points keep.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

Vector = NDArray[np.float64]
Shape = Callable[[Vector], float]

_WIDTH = 10.0  # the usual test functions are interesting over about [-5, 5]


@dataclass(frozen=True)
class Problem:
    """One family of functions; every seed is a member of it.

    Args:
        name: Short name, as in the report's table.
        shape: Function of the centred numeric parameters, 0 at its minimum, the origin.
        kinds: One per parameter: `float`, `log`, `int8` (8 steps), `logint` or `cat4` (4 choices).
        rotated: Whether parameters interact through a random rotation.
        shifting: Whether a category also moves the optimum of the numeric parameters, by up to this much of the range.
        noise: Standard deviation of what is added to every evaluation, as a share of a random point's typical value.
        allowed: Share of random points that keep the constraint; 1: there is none.
    """

    name: str
    shape: Shape
    kinds: tuple[str, ...]
    rotated: bool = False
    shifting: float = 0.0
    noise: float = 0.0
    allowed: float = 1.0

    def space(self) -> dict[str, BaseDistribution]:
        """The search space, parameters named `p0`, `p1` and so on."""
        return {f"p{index}": _distribution(kind) for index, kind in enumerate(self.kinds)}

    def member(self, seed: int) -> "Member":
        """Draws one function of the family.

        Args:
            seed: Which one.
        """
        rng = np.random.default_rng([seed, *self.name.encode()])
        numeric = sum(not kind.startswith("cat") for kind in self.kinds)
        choices = [int(kind[3:]) for kind in self.kinds if kind.startswith("cat")]
        side = rng.choice([-1.0, 1.0], size=numeric)
        optimum = 0.5 + side * rng.uniform(0.15, 0.4, size=numeric)
        rotation = np.linalg.qr(rng.normal(size=(numeric, numeric)))[0] if self.rotated else np.eye(numeric)
        scale = _typical(self.shape, numeric, optimum, rng)
        penalties = [rng.permutation(np.linspace(0.0, 1.0, count)) * 0.5 * scale for count in choices]
        shifts = [rng.uniform(-self.shifting, self.shifting, size=(count, numeric)) for count in choices]
        limit = _limit(numeric, self.allowed, rng) if self.allowed < 1 else None
        return Member(self, optimum, rotation, tuple(penalties), tuple(shifts), self.noise * scale, limit, seed)


@dataclass(frozen=True)
class Member:
    """One function to minimise.

    Args:
        problem: Its family.
        optimum: Unit values of the best numeric parameters under the best categories, `[numeric]`.
        rotation: `[numeric, numeric]`.
        penalties: What each choice costs, per categorical parameter.
        shifts: How far each choice moves the optimum, `[choices, numeric]` per categorical parameter.
        noise: Standard deviation of the noise.
        limit: The constraint, where there is one.
        seed: The seed it was drawn with.
    """

    problem: Problem
    optimum: Vector
    rotation: Vector
    penalties: tuple[Vector, ...]
    shifts: tuple[Vector, ...]
    noise: float
    limit: "Limit | None"
    seed: int

    def true_value(self, params: Mapping[str, Any]) -> float:
        """The function without its noise.

        Args:
            params: A value for each parameter of the space.
        """
        unit, choices = self._split(params)
        shift, cost = np.zeros_like(self.optimum), 0.0
        for penalties, shifts, choice in zip(self.penalties, self.shifts, choices, strict=True):
            cost += float(penalties[choice])
            shift += shifts[choice] if penalties[choice] > 0 else 0.0
        return self.problem.shape(_WIDTH * self.rotation @ (unit - self.optimum - shift)) + cost

    def observed_value(self, params: Mapping[str, Any], evaluation: int) -> float:
        """What an evaluation reports.

        Args:
            params: A value for each parameter of the space.
            evaluation: Number of the trial; the noise depends on it.
        """
        noise = np.random.default_rng([self.seed, evaluation, 7]).normal() * self.noise if self.noise else 0.0
        return self.true_value(params) + float(noise)

    def excess(self, params: Mapping[str, Any]) -> float:
        """What the parameters cost above the limit, as a share of it; 0 or less: they keep it, or there is none.

        Args:
            params: A value for each parameter of the space.
        """
        if self.limit is None:
            return 0.0
        unit, _ = self._split(params)
        return math.expm1(float(self.limit.weights @ unit) - self.limit.most)

    def _split(self, params: Mapping[str, Any]) -> tuple[Vector, list[int]]:
        unit: list[float] = []
        choices: list[int] = []
        for index, kind in enumerate(self.problem.kinds):
            value = params[f"p{index}"]
            if kind.startswith("cat"):
                choices.append(int(value[1:]))
            else:
                unit.append(_unit_value(_distribution(kind), value))
        return np.array(unit), choices


@dataclass(frozen=True)
class Limit:
    """A constraint on a cost that grows with some of the numeric parameters, as a network's does with its layers.

    Args:
        weights: Of the unit values in the logarithm of the cost, `[numeric]`.
        most: The logarithm of the limit.
    """

    weights: Vector
    most: float


def _limit(numeric: int, allowed: float, rng: np.random.Generator) -> Limit:
    weights = rng.uniform(0.6, 1.8, size=numeric) * (np.arange(numeric) < max(2, round(0.6 * numeric)))
    return Limit(weights, float(np.quantile(rng.uniform(size=(2000, numeric)) @ weights, allowed)))


def _distribution(kind: str) -> BaseDistribution:
    if kind.startswith("cat"):
        return CategoricalDistribution([f"c{choice}" for choice in range(int(kind[3:]))])
    if kind.startswith("int"):
        return IntDistribution(0, int(kind[3:]) - 1)
    return {
        "float": FloatDistribution(-3.0, 5.0),
        "log": FloatDistribution(1e-5, 1e-1, log=True),
        "logint": IntDistribution(4, 512, log=True),
    }[kind]


def _unit_value(distribution: Any, value: float) -> float:
    low, high = float(distribution.low), float(distribution.high)
    if distribution.log:
        return math.log(value / low) / math.log(high / low)
    return (value - low) / (high - low)


def _typical(shape: Shape, numeric: int, optimum: Vector, rng: np.random.Generator) -> float:
    """The median value of random points, against which penalties and noise are set."""
    points = rng.uniform(size=(64, numeric))
    return float(np.median([shape(_WIDTH * (point - optimum)) for point in points]))


def _weights(z: Vector, condition: float) -> Vector:
    return condition ** (np.arange(z.size) / max(1, z.size - 1))


def _sphere(z: Vector) -> float:
    return float(z @ z)


def _ellipsoid(z: Vector) -> float:
    return float(_weights(z, 1000.0) @ z**2)


def _rastrigin(z: Vector) -> float:
    return float(10 * z.size + np.sum(z**2 - 10 * np.cos(2 * np.pi * z)))


def _ackley(z: Vector) -> float:
    root = np.sqrt(np.mean(z**2))
    return float(20 - 20 * np.exp(-0.2 * root) + np.e - np.exp(np.mean(np.cos(2 * np.pi * z))))


def _rosenbrock(z: Vector) -> float:
    x = 0.4 * z + 1.0
    return float(np.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2))


def _different_powers(z: Vector) -> float:
    return float(np.sum(np.abs(z) ** np.linspace(1.0, 3.0, z.size)))


def _schwefel_ridge(z: Vector) -> float:
    return float(np.sum(np.cumsum(z) ** 2))


def _bumps(z: Vector) -> float:
    """Two funnels: a wide one beside the narrow one that holds the optimum."""
    narrow = 1 - np.exp(-0.15 * np.mean(z**2))
    wide = 1 - 0.7 * np.exp(-0.03 * np.mean((np.abs(z) - 5) ** 2))
    return float(min(narrow, wide))


def _plateaus(z: Vector) -> float:
    return float(np.sum(np.floor(np.abs(z) + 0.5) ** 2) + 0.05 * np.sum(np.abs(z)))


def _griewank(z: Vector) -> float:
    wave = np.prod(np.cos(4 * z / np.sqrt(np.arange(1, z.size + 1))))
    return float(1 + np.sum(z**2) / 40 - wave)


def _levy(z: Vector) -> float:
    w = 1 + z / 2
    middle = np.sum((w[:-1] - 1) ** 2 * (1 + 10 * np.sin(np.pi * w[:-1] + 1) ** 2))
    return float(np.sin(np.pi * w[0]) ** 2 + middle + (w[-1] - 1) ** 2 * (1 + np.sin(2 * np.pi * w[-1]) ** 2))


def _zakharov(z: Vector) -> float:
    slope = np.sum(0.5 * np.arange(1, z.size + 1) * z) / 4
    return float(np.sum(z**2) + slope**2 + slope**4 / 100)


def _alpine(z: Vector) -> float:
    return float(np.sum(np.abs(z * np.sin(z) + 0.1 * z)))


def _cigar(z: Vector) -> float:
    return float(z[0] ** 2 + 100 * np.sum(z[1:] ** 2))


def _absolute(z: Vector) -> float:
    return float(_weights(z, 10.0) @ np.abs(z))


def _valley(z: Vector) -> float:
    """Steep when too large, flat when too small, as a learning rate is."""
    return float(np.sum(np.where(z > 0, np.expm1(np.minimum(z, 6.0)), -0.5 * z)))


def _salomon(z: Vector) -> float:
    radius = float(np.sqrt(z @ z))
    return 1 - math.cos(math.pi * radius / 2) + 0.5 * radius


_WIDE = ("logint",) * 6 + ("float",) * 4 + ("log", "log", "cat3", "cat2")  # as many as the spaces of real models
_CNN = ("logint", "logint", "float", "log", "int6", "log", "float", "cat3")

REPORTED: tuple[Problem, ...] = (
    Problem("sphere-mixed", _sphere, ("float", "float", "log", "log", "int16", "cat3")),
    Problem("ellipsoid-rotated", _ellipsoid, ("float",) * 5, rotated=True),
    Problem("rastrigin", _rastrigin, ("float", "float", "float", "log")),
    Problem("ackley-int", _ackley, ("float", "float", "int20", "int20", "logint", "cat3")),
    Problem("rosenbrock", _rosenbrock, ("float", "float", "log", "log")),
    Problem("powers-rotated", _different_powers, ("float", "log", "log", "int32", "float", "cat2"), rotated=True),
    Problem("ridge-log", _schwefel_ridge, ("log", "log", "log", "logint", "logint", "cat4"), shifting=0.1),
    Problem("two-funnels", _bumps, ("float", "log", "int12", "float")),
    Problem("plateaus-int", _plateaus, ("int8", "int8", "int16", "int32", "logint")),
    Problem("categories", _sphere, ("cat4", "cat3", "cat5", "cat2", "float", "log"), shifting=0.15),
    Problem("cnn-noisy", _different_powers, _CNN, shifting=0.15, noise=0.02),
    Problem("rastrigin-rotated", _rastrigin, ("float", "float", "log"), rotated=True),
)

TUNING: tuple[Problem, ...] = (
    Problem("griewank", _griewank, ("float", "float", "log", "int20")),
    Problem("levy-mixed", _levy, ("float", "log", "log", "int16", "float", "cat3")),
    Problem("zakharov", _zakharov, ("float", "float", "log", "log", "float")),
    Problem("alpine-cat", _alpine, ("float", "float", "log", "cat4")),
    Problem("cigar-rotated", _cigar, ("float", "log", "float", "log"), rotated=True),
    Problem("absolute-int", _absolute, ("int12", "int24", "logint", "logint", "cat2", "cat3")),
    Problem("valley-cnn", _valley, _CNN, shifting=0.1, noise=0.02),
    Problem("valley-rotated", _valley, ("float", "log", "log", "logint", "cat3"), rotated=True),
    Problem("salomon", _salomon, ("float", "float", "log", "log", "int10")),
    Problem("absolute-categories", _absolute, ("cat5", "cat4", "cat3", "log", "log", "float"), shifting=0.15),
)

CONSTRAINED: tuple[Problem, ...] = (
    Problem("sphere-limited", _sphere, ("float", "float", "log", "log", "int16", "cat3"), allowed=0.1),
    Problem("rosenbrock-limited", _rosenbrock, ("float", "float", "log", "log"), allowed=0.1),
    Problem("ridge-limited", _schwefel_ridge, ("log", "log", "log", "logint", "logint", "cat4"), allowed=0.05),
    Problem("cnn-limited", _different_powers, _CNN, shifting=0.15, noise=0.02, allowed=0.05),
    Problem("wide-limited", _different_powers, _WIDE, shifting=0.05, noise=0.02, allowed=0.1),
    Problem("wide-narrow", _salomon, _WIDE, noise=0.02, allowed=0.02),
)
