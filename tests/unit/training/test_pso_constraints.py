"""Constraints: what breaks them attracts nobody who has kept them, and shows the way to those who have not."""

import math

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from tests.unit.training.test_pso_sampler import FLOATS, PULL, between, position_of
from training import pso_repair
from training.pso import Coefficients, PSOSampler
from training.pso_swarm import FLIGHT_KEY


@pytest.mark.parametrize(
    ("excesses", "best"),
    [
        ([None, 3.0, -1.0, 2.0], 2),  # kept before broken, the better of those kept (values 3, 2, 1, 0)
        ([-1.0, 0.0, 1e-9, 5.0], 1),  # exactly at the limit is kept
        ([4.0, 0.5, 1.0, 0.7], 1),  # all broken: the least
    ],
)
def test_constraints_decide_who_attracts_the_swarm(
    excesses: list[float | None], best: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pso_repair, "_FEWEST", math.inf)  # moves stay as they are
    study = optuna.create_study(
        sampler=PSOSampler(seed=3, population=4, design=4, coefficients=PULL, search_space=FLOATS)
    )
    flying = [study.ask(FLOATS) for _ in range(4)]
    for trial, excess in zip(flying, excesses, strict=True):
        if excess is not None:
            trial.set_constraint("cost", excess)
        study.tell(trial, 3.0 - trial.number)
    moved = [study.ask(FLOATS) for _ in range(4)]
    for trial in moved:
        start = position_of(study.trials[trial.number - 4])
        assert between(position_of(study.trials[trial.number]), start, position_of(study.trials[best]))


def test_refused_trials_without_a_value_show_the_way_to_what_is_allowed() -> None:
    """A corner of a hundredth of the cube."""
    study = optuna.create_study(sampler=PSOSampler(seed=1, search_space=FLOATS))
    for _ in range(30):
        trial = study.ask(FLOATS)
        excess = max(trial.params["a"], trial.params["b"]) - 0.1
        trial.set_constraint("corner", excess)
        study.tell(trial, trial.params["a"] if excess <= 0 else None, state=None if excess <= 0 else TrialState.PRUNED)
    kept = [trial.number for trial in study.trials if trial.state == TrialState.COMPLETE]
    assert kept[0] >= 4, "the first rows of the design miss it"
    assert len(kept) >= 10
    assert study.best_value < 0.02


def test_refused_trials_do_not_cool_the_swarm() -> None:
    jitter = Coefficients(inertia=0, final_inertia=0, cognitive=0, social=0, jitter=0.1, mutation=0)

    def spread(excess: float) -> float:
        study = optuna.create_study(
            sampler=PSOSampler(seed=1, population=1, design=1, coefficients=jitter, search_space=FLOATS)
        )
        for _ in range(60):
            trial = study.ask(FLOATS)
            trial.set_constraint("cost", excess)
            study.tell(trial, 1.0)
        velocities = np.array([trial.system_attrs[FLIGHT_KEY]["velocity"] for trial in study.trials[-40:]])
        return float(np.std(velocities[velocities != 0]))  # a wall takes all of it

    assert spread(1.0) == pytest.approx(0.1, rel=0.3)
    assert spread(-1.0) < 0.01
