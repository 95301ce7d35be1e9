"""Particle swarm tuning as an Optuna sampler.

    study.ask() ─number n─▶ particle n mod population
                              │  its last finished trial: position x, velocity v        ┐
                              │  its own best p, its neighbourhood's best g             ├ from the storage (pso_swarm)
                              ▼                                                         ┘
                 v' = w v + c₁ r₁ (p − x) + c₂ r₂ (g − x),  x' = x + v'  ─decode─▶ parameters (pso_space)

The first trials are a Latin hypercube; from then on particles fly. Nothing is kept in this object but settings and a
cache, so any number of processes and machines may ask and tell in any order, a killed one loses nothing, and a new one
goes on where it stopped. What is random about a trial depends on the seed and the trial's number alone: a study that
one worker began, left and resumed walks the path that it would have walked.

Constraints are Optuna's (`trial.set_constraint(name, value)`, kept where the value is 0 or less). Which place is the
better one, of a particle and of its neighbourhood, is decided by Deb, "An efficient constraint handling method for
genetic algorithms", CMAME 186, 2000: one that keeps the constraints before one that does not; of two that keep them the
better value; of two that do not the smaller violation. No weight has to be chosen between value and violation, and a
trial that was stopped for its constraint, and has no value, still shows the way. Where a move is expected to break a
constraint it is mended before it is tried (`training.pso_repair`).
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple, get_args
from zlib import crc32

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial

from training.pso_space import SwarmSpace, Vector
from training.pso_swarm import FLIGHT_KEY, Flight, Memory, Swarm

_SEED_KEY: Final = "pso:seed"  # study attribute: what an unseeded sampler draws from, for all its processes
_ATTEMPTS: Final = 20  # to find a point that was not tried before
_RETRY_JITTER: Final = 0.05
_BOUNCE: Final = 0.5  # share of its speed that a particle keeps when it hits a wall

Topology = Literal["global", "ring"]
Boundary = Literal["midway", "reflect", "absorb"]


@dataclass(frozen=True)
class Coefficients:
    """How particles move; the defaults were chosen on `benchmarks.pso_functions.TUNING` for 24 to 160 evaluations.

    Inertia and jitter cool with the study's age `a`, its trials as multiples of the first design, less those that broke
    a constraint: `w = final_inertia + (inertia − final_inertia) / a` and `σ = jitter / a`. That needs no budget to be
    known.

    Args:
        inertia: `w` at the first move.
        final_inertia: What `w` falls to.
        cognitive: `c₁`, the pull of a particle's own best.
        social: `c₂`, the pull of its neighbourhood's best.
        max_velocity: Longest step along a coordinate, as a share of its range.
        jitter: Standard deviation of noise on the velocity, as a share of the range: a swarm whose bests have met
            would otherwise stand still.
        mutation: Probability that a coordinate starts anew at random ("craziness" in Kennedy & Eberhart 1995), so that
            a swarm that stalls still looks elsewhere.
    """

    inertia: float = 0.4
    final_inertia: float = 0.2
    cognitive: float = 1.2
    social: float = 2.1
    max_velocity: float = 1.0
    jitter: float = 0.06
    mutation: float = 0.02

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0 <= value < float("inf"):
                raise ValueError(f"expected {name} ≥ 0, received {value}: leave it out for the default")

    @classmethod
    def constriction(cls, phi: float = 4.1) -> "Coefficients":
        """Clerc & Kennedy's constricted swarm, "The Particle Swarm", IEEE TEC 6(1), 2002, equation 14 with κ = 1.

        Slower at few evaluations, steadier at thousands.

        Args:
            phi: φ = φ₁ + φ₂, above 4.

        Raises:
            ValueError: φ is not above 4, where the swarm would not converge.
        """
        if not phi > 4:  # noqa: PLR2004 - the paper's limit
            raise ValueError(f"expected phi > 4 so that the swarm converges, received {phi}")
        chi = 2 / abs(2 - phi - float(np.sqrt(phi * phi - 4 * phi)))
        pull = chi * phi / 2
        return cls(inertia=chi, final_inertia=chi, cognitive=pull, social=pull)


class PSOSampler(BaseSampler):  # type: ignore[misc, unused-ignore] # Optuna may be seen as untyped
    """Samples with a particle swarm.

        study = optuna.create_study(direction="maximize", sampler=PSOSampler(seed=1))
        study.optimize(objective, n_trials=40)

    Parameters that only some trials have (conditional ones) are moved by a swarm of their own, one per parameter.

    Args:
        seed: Same seed, same trials, with one worker. Without one, a seed is drawn once and kept with the study.
        population: Particles. Trials in flight beyond that fly from older positions, and do no harm.
        design: Trials of the first Latin hypercube.
        coefficients: How particles move.
        topology: `global`: all particles follow the best of all. `ring`: each follows the best of its two neighbours
            and itself; slower, and harder to trap.
        boundary: What happens at a wall. `midway`: a particle stops half way to it (Zhang & Sanderson, "JADE", IEEE TEC
            13(5), 2009). `reflect`: it bounces off with half its speed. `absorb`: it stops there, which was 0.1 of a
            rank worse than the others.
        search_space: The parameters that move together, where they are known beforehand. Otherwise those that all
            complete trials have in common.

    Raises:
        ValueError: A setting is out of its range.
        TypeError: The search space holds something that is no distribution.
    """

    def __init__(
        self,
        seed: int | None = None,
        *,
        population: int = 7,
        design: int = 8,
        coefficients: Coefficients | None = None,
        topology: Topology = "global",
        boundary: Boundary = "midway",
        search_space: dict[str, BaseDistribution] | None = None,
    ) -> None:
        _check_settings(seed, population, design, topology, boundary)
        SwarmSpace(search_space or {})  # says which parameter is none
        self._seed = seed
        self._population = population
        self._design = design
        self._coefficients = coefficients or Coefficients()
        self._topology = topology
        self._boundary = boundary
        self._search_space = search_space
        self._known: _Known | None = None
        self._lock = threading.Lock()  # `study.optimize(n_jobs=…)` asks from several threads

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in {"_lock", "_known"}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._known, self._lock = None, threading.Lock()

    def reseed_rng(self) -> None:
        """Does nothing: no two trials share a random stream, whoever asks for them."""

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The parameters that move together; see Optuna's `BaseSampler`.

        Args:
            study: The study.
            trial: The new trial.

        Raises:
            ValueError: The study has several objectives.
        """
        if self._search_space is not None:
            self._raise_error_if_multi_objective(study)
            known = sorted(self._search_space.items())
            return {name: distribution for name, distribution in known if not distribution.single()}
        with self._lock:
            return self._refreshed(study, trial).memory.shared_space()

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Moves the trial's particle; see Optuna's `BaseSampler`.

        Args:
            study: The study.
            trial: The new trial; its particle, position and velocity become its system attribute `pso`.
            search_space: What `infer_relative_search_space` answered.

        Returns:
            A value for each parameter.

        Raises:
            ValueError: The study has several objectives.
        """
        self._raise_error_if_multi_objective(study)
        if not search_space:
            return {}
        with self._lock:
            params, flight = self._untried(self._refreshed(study, trial), search_space, trial.number)
        attribute = flight.stored()
        study._storage.set_trial_system_attr(trial._trial_id, FLIGHT_KEY, attribute)  # noqa: SLF001 - there is no public way
        return params

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Draws a parameter that not every trial has, from a swarm of its own; see Optuna's `BaseSampler`.

        Args:
            study: The study.
            trial: The new trial.
            param_name: The parameter.
            param_distribution: Where its values come from.

        Raises:
            ValueError: The study has several objectives.
        """
        with self._lock:
            known = self._refreshed(study, trial)
            swarm = known.memory.swarm({param_name: param_distribution})
            rng = np.random.default_rng([known.seed, trial.number, crc32(param_name.encode())])
            return self._next(known, swarm, trial.number, rng).params[param_name]

    def _untried(
        self, known: "_Known", space: dict[str, BaseDistribution], number: int
    ) -> tuple[dict[str, Any], Flight]:
        """The next point of a trial, shaken until nobody has tried or is trying it.

        Only spaces of few discrete points make this loop turn; when all are tried, the last one is tried again.
        """
        rng = np.random.default_rng([known.seed, number])
        swarm = known.memory.swarm(space)
        params, moved, velocity = self._next(known, swarm, number, rng)
        point = swarm.repair.moved(moved)
        if point is not moved:
            params = swarm.space.decode(point, rng)
        in_flight = {swarm.key(other.params) for other in known.running if swarm.space.covers(other.distributions)}
        for attempt in range(1, _ATTEMPTS):
            if not swarm.was_tried(params) and swarm.key(params) not in in_flight:
                break
            point = np.clip(point + rng.normal(size=point.size) * _RETRY_JITTER * attempt, 0.0, 1.0)
            params = swarm.space.decode(point, rng)
        return params, Flight(number % self._population, swarm.space.fingerprint, point, velocity)

    def _next(self, known: "_Known", swarm: Swarm, number: int, rng: np.random.Generator) -> "_Move":
        """Where a trial's particle goes."""
        everyone = swarm.best_of(range(self._population))
        if number < self._design or everyone is None:
            params = _design_params(swarm.space, number, self._design, known.seed, rng)
            point = swarm.space.encode(params)
            return _Move(params, point, np.zeros_like(point))
        particle = number % self._population
        own = swarm.best_of([particle]) or everyone
        social = swarm.best_of(self._neighbours(particle)) or everyone
        position, velocity = swarm.last(particle) or (own.point, np.zeros_like(own.point))
        age = max(1.0, (number - known.memory.infeasible) / self._design)
        velocity = self._velocity(position, velocity, own.point, social.point, age, rng)
        position, velocity = self._bounded(position, velocity, rng)
        return _Move(swarm.space.decode(position, rng), position, velocity)

    def _velocity(self, x: Vector, v: Vector, p: Vector, g: Vector, age: float, rng: np.random.Generator) -> Vector:
        """The update rule: v' = w v + c₁ r₁ (p − x) + c₂ r₂ (g − x) + σ N(0, 1).

        Kennedy & Eberhart, "Particle swarm optimization", ICNN 1995, with the inertia `w` of Shi & Eberhart, "A
        modified particle swarm optimizer", CEC 1998; `r₁` and `r₂` are drawn per coordinate.
        """
        c = self._coefficients
        w = c.final_inertia + (c.inertia - c.final_inertia) / age
        noise = c.jitter / age * rng.normal(size=x.size)
        r1, r2 = rng.random(x.size), rng.random(x.size)
        moved = w * v + c.cognitive * r1 * (p - x) + c.social * r2 * (g - x) + noise
        return np.asarray(np.clip(moved, -c.max_velocity, c.max_velocity))

    def _bounded(self, position: Vector, velocity: Vector, rng: np.random.Generator) -> tuple[Vector, Vector]:
        """Moves, with mutation and the boundary rule."""
        arrived = position + velocity
        mutated = rng.random(arrived.size) < self._coefficients.mutation
        arrived = np.where(mutated, rng.random(arrived.size), arrived)
        outside = (arrived < 0) | (arrived > 1)
        velocity = np.where(outside, -_BOUNCE * velocity if self._boundary == "reflect" else 0.0, velocity)
        if self._boundary == "reflect":
            arrived = np.where(arrived < 0, -arrived, np.where(arrived > 1, 2 - arrived, arrived))
        elif self._boundary == "midway":
            arrived = np.where(arrived < 0, position / 2, np.where(arrived > 1, (1 + position) / 2, arrived))
        return np.clip(arrived, 0.0, 1.0), velocity

    def _neighbours(self, particle: int) -> Sequence[int]:
        if self._topology == "global":
            return range(self._population)
        return [(particle + offset) % self._population for offset in (-1, 0, 1)]

    def _refreshed(self, study: Study, trial: FrozenTrial) -> "_Known":
        """What is known of the study by now; the storage is read once per trial."""
        self._raise_error_if_multi_objective(study)
        storage, study_id = study._storage, study._study_id  # noqa: SLF001 - Hyperband's view of a study hides trials
        if self._known is None or self._known.storage is not storage or self._known.study_id != study_id:
            sign = -1 if study.direction == StudyDirection.MAXIMIZE else 1
            seed = _kept_seed(storage, study_id) if self._seed is None else self._seed
            self._known = _Known(storage, study_id, seed, Memory(self._population, sign))
        if self._known.asked != trial.number:
            trials = storage.get_all_trials(study_id, deepcopy=False)
            self._known.memory.refresh(trials)
            self._known.running = [other for other in trials if not other.state.is_finished()]
            self._known.asked = trial.number
        return self._known


class _Move(NamedTuple):
    params: dict[str, Any]
    point: Vector
    velocity: Vector


@dataclass
class _Known:
    """What a sampler knows of a study: nothing that the storage does not know."""

    storage: BaseStorage
    study_id: int
    seed: int
    memory: Memory
    running: Sequence[FrozenTrial] = ()
    asked: int = -1  # the trial that the storage was last read for


def _design_params(space: SwarmSpace, number: int, strata: int, seed: int, rng: np.random.Generator) -> dict[str, Any]:
    """A row of a Latin hypercube, one parameter at a time, so that parameters met only later join in.

    Trials past the design, asked for before anything finished, are drawn at random.
    """
    params = {}
    for name, axis in space.axes.items():
        share = rng.random()
        if number < strata:
            order = np.random.default_rng([seed, crc32(name.encode())]).permutation(strata)
            share = (order[number] + share) / strata
        params[name] = axis.at_share(float(share))
    return params


def _kept_seed(storage: BaseStorage, study_id: int) -> int:
    """The seed that a study keeps for all its unseeded samplers."""
    if _SEED_KEY not in storage.get_study_system_attrs(study_id):
        drawn = int(np.random.SeedSequence().generate_state(1)[0])
        storage.set_study_system_attr(study_id, _SEED_KEY, drawn)
    return int(storage.get_study_system_attrs(study_id)[_SEED_KEY])


def _check_settings(seed: int | None, population: int, design: int, topology: str, boundary: str) -> None:
    if seed is not None and seed < 0:
        raise ValueError(f"expected a seed ≥ 0, received {seed}")
    if population < 1 or design < 1:
        raise ValueError(f"expected population and design ≥ 1, received {population} and {design}")
    if topology not in get_args(Topology):
        raise ValueError(f"expected a topology out of {', '.join(get_args(Topology))}, received {topology!r}")
    if boundary not in get_args(Boundary):
        raise ValueError(f"expected a boundary rule out of {', '.join(get_args(Boundary))}, received {boundary!r}")
