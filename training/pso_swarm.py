"""What the finished trials of a study say about the swarm: a cache that any process rebuilds from the storage.

    storage ─finished trials─▶ Memory ─one per space─▶ Swarm: each particle's best visit and last flight

Every trial belongs to particle `number mod population`, so nobody has to claim a particle: the storage hands each
number out once, to whichever process asks. Trials that other samplers or people made have numbers too, so their results
count as their particle's. A trial that still runs, or whose worker died, says nothing and blocks nobody.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from training.pso_repair import Repair
from training.pso_space import SwarmSpace, Vector

FLIGHT_KEY: Final = "pso"  # system attribute of a trial: its particle, position and velocity
_DECIMALS: Final = 6  # keeps the attribute of 100 parameters under 2 KB
_SPACES_KEPT: Final = 64  # a study whose ranges differ in every trial would otherwise fill the memory

Rank = tuple[float, bool, int, float, int]


@dataclass(frozen=True)
class Flight:
    """One move of one particle, as its trial remembers it.

    Args:
        particle: Which particle moved.
        fingerprint: The space it moved in.
        position: Where it arrived, `float64[size]` in [0, 1].
        velocity: How it came there, `float64[size]`.
    """

    particle: int
    fingerprint: int
    position: Vector
    velocity: Vector

    def stored(self) -> dict[str, Any]:
        """The attribute's JSON value."""
        return {
            "particle": self.particle,
            "space": self.fingerprint,
            "position": [round(value, _DECIMALS) for value in self.position.tolist()],
            "velocity": [round(value, _DECIMALS) for value in self.velocity.tolist()],
        }

    @classmethod
    def of(cls, trial: FrozenTrial) -> "Flight | None":
        """The flight that a trial remembers, None where no swarm made it.

        Args:
            trial: Any trial.
        """
        stored = trial.system_attrs.get(FLIGHT_KEY)
        if stored is None:
            return None
        position, velocity = np.array(stored["position"]), np.array(stored["velocity"])
        return cls(stored["particle"], stored["space"], position, velocity)


@dataclass(frozen=True)
class Visit:
    """A point and how good it is.

    Args:
        rank: The smaller, the better, see `_rank`.
        point: `float64[size]`, snapped to the values that were really tried.
    """

    rank: Rank
    point: Vector


class Swarm:
    """The particles of one space.

    Args:
        space: Where they fly.
        population: How many there are.
        sign: 1 to minimise, −1 to maximise.
    """

    def __init__(self, space: SwarmSpace, population: int, sign: int) -> None:
        self.space: Final = space
        self._population = population
        self._sign = sign
        self._visits: dict[int, Visit] = {}
        self._last: dict[int, tuple[int, Vector, Vector]] = {}
        self._tried: set[tuple[Any, ...]] = set()
        self.repair: Final = Repair()

    def learn(self, trial: FrozenTrial) -> None:
        """Takes a finished trial in; the order of trials does not matter.

        Args:
            trial: Complete, pruned or failed.
        """
        if not self.space.covers(trial.distributions):
            return
        self._tried.add(self.key(trial.params))
        flight = Flight.of(trial)
        particle = (trial.number if flight is None else flight.particle) % self._population
        point = self.space.encode(trial.params)
        self._remember_last(particle, trial.number, flight, point)
        if trial.state == TrialState.FAIL:
            return
        self.repair.learn(trial.number, point, trial.constraints)
        visit = Visit(_rank(trial, self._sign), point)
        if particle not in self._visits or visit.rank < self._visits[particle].rank:
            self._visits[particle] = visit

    def last(self, particle: int) -> tuple[Vector, Vector] | None:
        """Position and velocity of the particle's newest finished trial, None before the first."""
        return None if particle not in self._last else self._last[particle][1:]

    def best_of(self, particles: Iterable[int]) -> Visit | None:
        """The best visit of some particles, None while they have none."""
        visits = [self._visits[particle] for particle in particles if particle in self._visits]
        return min(visits, key=lambda visit: visit.rank) if visits else None

    def was_tried(self, params: dict[str, Any]) -> bool:
        """Whether a finished trial had exactly these parameters."""
        return self.key(params) in self._tried

    def key(self, params: dict[str, Any]) -> tuple[Any, ...]:
        """What two trials at the same place have in common."""
        return tuple(params[name] for name in self.space.distributions)

    def _remember_last(self, particle: int, number: int, flight: Flight | None, point: Vector) -> None:
        if particle in self._last and self._last[particle][0] > number:
            return
        if flight is None or flight.fingerprint != self.space.fingerprint:
            self._last[particle] = (number, point, np.zeros_like(point))
        else:
            self._last[particle] = (number, flight.position, flight.velocity)


def violation(trial: FrozenTrial) -> float:
    """By how much a trial breaks its constraints, added up over them as Optuna's own samplers do; 0: it keeps them.

    Args:
        trial: Any trial; one that was given no constraint keeps them all.
    """
    return float(sum(excess for excess in trial.constraints.values() if excess > 0))


def _rank(trial: FrozenTrial, sign: int) -> Rank:
    """Deb's rules (`training.pso`), then complete before pruned, and of these the one that was stopped latest.

    Values of different steps would not compare, so a pruned trial's last report only decides among those of its step.
    """
    value = math.nan if trial.value is None else sign * trial.value
    pruned = trial.state != TrialState.COMPLETE
    steps = trial.last_step if pruned and trial.last_step is not None else 0
    return violation(trial), pruned, -steps, math.inf if math.isnan(value) else value, trial.number


class Memory:
    """All finished trials of one study, each taken in once.

    Args:
        population: Particles per swarm.
        sign: 1 to minimise, −1 to maximise.
    """

    def __init__(self, population: int, sign: int) -> None:
        self._population = population
        self._sign = sign
        self._finished: dict[int, FrozenTrial] = {}
        self._shared: dict[str, BaseDistribution] | None = None
        self._swarms: dict[int, Swarm] = {}
        self.infeasible = 0  # finished trials that broke a constraint

    def refresh(self, trials: Sequence[FrozenTrial]) -> None:
        """Takes in what finished since the last call.

        Args:
            trials: All trials of the study.
        """
        for trial in trials:
            if trial.number in self._finished or not trial.state.is_finished():
                continue
            self._finished[trial.number] = trial
            self.infeasible += violation(trial) > 0
            self._share(trial)
            for swarm in self._swarms.values():
                swarm.learn(trial)

    def shared_space(self) -> dict[str, BaseDistribution]:
        """The parameters that every complete trial had, with the same distribution, sorted by name."""
        return dict(sorted((self._shared or {}).items()))

    def swarm(self, distributions: dict[str, BaseDistribution]) -> Swarm:
        """The swarm of a space, made from all finished trials when it is asked for first.

        Args:
            distributions: The space.
        """
        space = SwarmSpace(distributions)
        if space.fingerprint not in self._swarms:
            if len(self._swarms) >= _SPACES_KEPT:
                self._swarms.clear()
            swarm = self._swarms[space.fingerprint] = Swarm(space, self._population, self._sign)
            for trial in self._finished.values():
                swarm.learn(trial)
        return self._swarms[space.fingerprint]

    def _share(self, trial: FrozenTrial) -> None:
        if trial.state != TrialState.COMPLETE:
            return
        if self._shared is None:
            self._shared = {name: known for name, known in trial.distributions.items() if not known.single()}
        else:
            of_trial = trial.distributions
            self._shared = {name: known for name, known in self._shared.items() if of_trial.get(name) == known}
