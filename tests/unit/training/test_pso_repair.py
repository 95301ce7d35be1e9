"""Where a point goes when its constraints are expected to be broken."""

import numpy as np
import optuna
import pytest
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.trial import TrialState

from training.pso import PSOSampler
from training.pso_repair import Repair

WEIGHTS = np.array([2.0, 0.0, -1.0, 0.0])


def excess(point: np.ndarray) -> float:
    """A cost as a share above its limit; its logarithm is linear in the coordinates 0 and 2 alone."""
    return float(np.expm1(WEIGHTS @ point - 0.5))


@pytest.fixture
def repair() -> Repair:
    known = Repair()
    for number, point in enumerate(np.random.default_rng(0).uniform(size=(60, 4))):
        known.learn(number, point, {"cost": excess(point)})
    return known


def test_a_point_beyond_the_limit_moves_below_it_and_no_further(repair: Repair) -> None:
    for point in np.random.default_rng(1).uniform(size=(200, 4)):
        moved = repair.moved(point)
        if excess(point) > 0.05:
            assert -0.25 < excess(moved) < 0.05
            np.testing.assert_allclose(moved[[1, 3]], point[[1, 3]], atol=0.05)
        elif excess(point) < -0.1:
            assert moved is point


def test_at_a_wall_the_other_coordinates_go_the_rest_of_the_way() -> None:
    known = Repair()
    for number, point in enumerate(np.random.default_rng(0).uniform(size=(60, 2))):
        known.learn(number, point, {"cost": float(np.expm1(point[0] - 6 * point[1] + 5.5))})
    moved = known.moved(np.array([1.0, 1.0]))  # half too much, and of what matters most there is no more
    assert moved[1] == 1.0
    assert moved[0] <= 0.5


def test_what_cannot_be_kept_ends_at_the_walls(repair: Repair) -> None:
    for number in range(60, 120):
        repair.learn(number, np.random.default_rng(number).uniform(size=4), {"never": 5.0})
    assert np.all((repair.moved(np.full(4, 0.9)) >= 0) & (repair.moved(np.full(4, 0.9)) <= 1))


def test_nothing_moves_before_there_is_something_to_go_by() -> None:
    known, point = Repair(), np.array([0.9, 0.9, 0.1, 0.9])
    for number in range(3):
        known.learn(number, np.full(4, number / 3), {"cost": 1.0 + number})
        assert known.moved(point) is point


def test_the_order_in_which_trials_are_learnt_does_not_matter(repair: Repair) -> None:
    again, points = Repair(), np.random.default_rng(0).uniform(size=(60, 4))
    for number in np.random.default_rng(5).permutation(60):
        again.learn(int(number), points[number], {"cost": excess(points[number])})
    point = np.array([0.9, 0.2, 0.1, 0.7])
    assert again.moved(point).tolist() == repair.moved(point).tolist()


def test_a_swarm_leaves_a_space_of_which_a_thousandth_is_allowed_behind() -> None:
    """Ten sizes, whose product may be no more than a small part of the usual: the least bad place is no way out."""
    space: dict[str, BaseDistribution] = {f"size{index}": FloatDistribution(1, 16, log=True) for index in range(10)}
    study = optuna.create_study(sampler=PSOSampler(seed=1, search_space=space))
    for _ in range(40):
        trial = study.ask(space)
        cost = float(np.prod(list(trial.params.values()))) / 2.0**10
        trial.set_constraint("cost", cost - 1)
        study.tell(trial, None if cost > 1 else cost, state=TrialState.PRUNED if cost > 1 else None)
    kept = [trial.number for trial in study.trials if trial.state == TrialState.COMPLETE]
    assert len(kept) >= 20
