"""What the swarm promises, on studies in memory and in SQLite."""

import copy
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import InMemoryStorage
from optuna.testing.pytest_samplers import BasicSamplerTestCase, RelativeSamplerTestCase, SingleOnlySamplerTestCase
from optuna.trial import TrialState

from training.pso import Coefficients, PSOSampler
from training.pso_space import SwarmSpace
from training.pso_swarm import FLIGHT_KEY

SPACE: dict[str, BaseDistribution] = {
    "a": FloatDistribution(-1.0, 3.0),
    "b": FloatDistribution(1e-5, 1e-1, log=True),
    "c": IntDistribution(4, 512, log=True),
    "d": CategoricalDistribution(["x", "y", "z"]),
}
FLOATS: dict[str, BaseDistribution] = {"a": FloatDistribution(0.0, 1.0), "b": FloatDistribution(0.0, 1.0)}
# No inertia, no noise: a particle ends between where it was and its neighbourhood's best, so a test can tell both.
PULL = Coefficients(inertia=0, final_inertia=0, cognitive=0, social=1, jitter=0, mutation=0)
STILL = Coefficients(inertia=0, final_inertia=0, cognitive=0, social=0, jitter=0, mutation=0)


@pytest.fixture(autouse=True)
def _quiet_optuna() -> Iterator[None]:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    yield
    optuna.logging.set_verbosity(optuna.logging.INFO)


class TestContract(BasicSamplerTestCase, RelativeSamplerTestCase, SingleOnlySamplerTestCase):  # type: ignore[misc, unused-ignore]
    """Optuna's own tests for samplers."""

    @pytest.fixture
    def sampler(self) -> Callable[[], PSOSampler]:
        return PSOSampler


def value_of(params: dict[str, Any]) -> float:
    penalty = {"x": 0.5, "y": 0.0, "z": 1.0}[params["d"]]
    return float((params["a"] - 2) ** 2 + np.log10(params["b"] / 1e-3) ** 2 + np.log2(params["c"] / 64) ** 2 + penalty)


def walk(study: optuna.Study, trials: int) -> list[dict[str, Any]]:
    for _ in range(trials):
        trial = study.ask(SPACE)
        study.tell(trial, value_of(trial.params))
    return [trial.params for trial in study.trials]


def position_of(trial: optuna.trial.FrozenTrial) -> np.ndarray:
    return np.array(trial.system_attrs[FLIGHT_KEY]["position"])


def between(point: np.ndarray, one: np.ndarray, other: np.ndarray) -> bool:
    low, high = np.minimum(one, other), np.maximum(one, other)
    return bool(np.all((point >= low - 1e-5) & (point <= high + 1e-5)))


def test_the_seed_alone_decides_what_one_worker_tries() -> None:
    first, again, other = (walk(optuna.create_study(sampler=PSOSampler(seed=seed)), 30) for seed in (5, 5, 6))
    assert first == again
    assert first != other


@pytest.mark.slow
def test_a_resumed_study_walks_on_as_if_it_had_never_stopped(tmp_path: Path) -> None:
    straight = walk(optuna.create_study(sampler=PSOSampler(seed=5)), 24)
    url = f"sqlite:///{tmp_path / 'study.db'}"
    walk(optuna.create_study(storage=url, study_name="s", sampler=PSOSampler(seed=5)), 13)
    resumed = walk(optuna.load_study(storage=url, study_name="s", sampler=PSOSampler(seed=5)), 11)
    assert resumed == straight


def test_minimising_and_maximising_the_negative_are_the_same() -> None:
    down = optuna.create_study(sampler=PSOSampler(seed=1))
    up = optuna.create_study(direction="maximize", sampler=PSOSampler(seed=1))
    for _ in range(25):
        for study, sign in ((down, 1), (up, -1)):
            trial = study.ask(SPACE)
            study.tell(trial, sign * value_of(trial.params))
    assert [trial.params for trial in down.trials] == [trial.params for trial in up.trials]


def test_every_trial_remembers_its_particle_position_and_velocity() -> None:
    study = optuna.create_study(sampler=PSOSampler(seed=1, population=5, search_space=SPACE))
    walk(study, 20)
    for trial in study.trials:
        flight = trial.system_attrs[FLIGHT_KEY]
        assert flight["particle"] == trial.number % 5
        assert len(flight["position"]) == len(flight["velocity"]) == 6
        assert all(0 <= coordinate <= 1 for coordinate in flight["position"])
    assert any(any(trial.system_attrs[FLIGHT_KEY]["velocity"]) for trial in study.trials[10:])


def test_trials_that_finish_out_of_order_keep_their_own_particles() -> None:
    study = optuna.create_study(
        sampler=PSOSampler(seed=3, population=4, design=4, coefficients=PULL, search_space=FLOATS)
    )
    flying = [study.ask(FLOATS) for _ in range(4)]
    for trial in reversed(flying):  # the last asked finishes first and is the best
        study.tell(trial, -trial.number)
    best = position_of(study.trials[3])
    moved = [study.ask(FLOATS) for _ in range(4)]
    for trial in moved[:3]:
        start = position_of(study.trials[trial.number - 4])
        assert between(position_of(study.trials[trial.number]), start, best)


def test_a_particle_follows_its_ring_and_not_a_stranger() -> None:
    def after_design(topology: Any) -> list[optuna.trial.FrozenTrial]:
        sampler = PSOSampler(seed=3, population=6, design=6, coefficients=PULL, topology=topology, search_space=FLOATS)
        study = optuna.create_study(sampler=sampler)
        for _ in range(6):
            study.tell(study.ask(FLOATS), [5.0, 4.0, 9.0, 0.0, 9.0, 9.0][study.trials[-1].number])
        study.ask(FLOATS)
        return list(study.trials)

    ring, everyone = after_design("ring"), after_design("global")
    start, neighbour, stranger = (position_of(ring[number]) for number in (0, 1, 3))
    assert between(position_of(ring[6]), start, neighbour)
    assert between(position_of(everyone[6]), start, stranger)
    assert not between(position_of(ring[6]), start, stranger)


@pytest.mark.parametrize("fate", [TrialState.FAIL, TrialState.PRUNED, TrialState.RUNNING])
def test_trials_without_a_value_do_not_stall_the_swarm(fate: TrialState) -> None:
    study = optuna.create_study(sampler=PSOSampler(seed=2))
    for number in range(60):
        trial = study.ask(SPACE)
        if number % 3:
            study.tell(trial, value_of(trial.params))
        elif fate is not TrialState.RUNNING:
            study.tell(trial, state=fate)
    last = study.trials[-20:]
    assert len({trial.params["a"] for trial in last}) == 20
    assert study.best_value < 1.0
    velocities = [trial.system_attrs[FLIGHT_KEY]["velocity"] for trial in last]
    assert all(any(velocity) for velocity in velocities)


def test_a_particle_none_of_whose_trials_ever_finish_still_flies() -> None:
    study = optuna.create_study(
        sampler=PSOSampler(seed=2, population=4, design=4, coefficients=PULL, search_space=FLOATS)
    )
    for _ in range(40):
        trial = study.ask(FLOATS)
        if trial.number % 4:
            study.tell(trial, abs(trial.params["a"] - 0.3))
    orphans = [trial for trial in study.trials if trial.number % 4 == 0]
    assert len({tuple(trial.params.values()) for trial in orphans}) == 10


def test_a_pruned_trial_counts_only_while_nothing_is_complete() -> None:
    study = optuna.create_study(
        sampler=PSOSampler(seed=3, population=4, design=4, coefficients=PULL, search_space=FLOATS)
    )
    flying = [study.ask(FLOATS) for _ in range(4)]
    flying[0].report(-100.0, step=1)
    study.tell(flying[0], state=TrialState.PRUNED)
    for trial in flying[1:]:
        study.tell(trial, float(trial.number))
    moved = [study.ask(FLOATS) for _ in range(3)][-1]
    start, best, pruned = (position_of(study.trials[number]) for number in (2, 1, 0))
    assert between(position_of(study.trials[moved.number]), start, best)
    assert not between(position_of(study.trials[moved.number]), start, pruned)


def test_of_pruned_trials_the_one_that_went_furthest_attracts_the_swarm() -> None:
    study = optuna.create_study(
        sampler=PSOSampler(seed=3, population=4, design=4, coefficients=PULL, search_space=FLOATS)
    )
    flying = [study.ask(FLOATS) for _ in range(4)]
    for trial, reports in zip(flying, ([0.1], [0.9, 0.8], [0.2], [0.3]), strict=True):
        for step, report in enumerate(reports, start=1):
            trial.report(report, step)
        study.tell(trial, state=TrialState.PRUNED)
    study.ask(FLOATS)
    start, furthest, lowest = (position_of(study.trials[number]) for number in (0, 1, 2))
    assert between(position_of(study.trials[4]), start, furthest)
    assert not between(position_of(study.trials[4]), start, lowest)


def test_failures_attract_nobody() -> None:
    study = optuna.create_study(sampler=PSOSampler(seed=3, population=4, design=4, coefficients=PULL))
    for _ in range(40):
        study.tell(study.ask(FLOATS), state=TrialState.FAIL)
    assert np.std([trial.params["a"] for trial in study.trials[-20:]]) > 0.2


def test_a_particle_keeps_its_velocity_from_trial_to_trial() -> None:
    coast = Coefficients(inertia=0.5, final_inertia=0.5, cognitive=0, social=0, jitter=0, mutation=0)
    study = optuna.create_study(sampler=PSOSampler(seed=3, population=1, design=1, coefficients=coast))
    fingerprint = SwarmSpace(FLOATS).fingerprint
    flight = {"particle": 0, "space": fingerprint, "position": [0.2, 0.8], "velocity": [0.1, -0.2]}
    params = {"a": 0.2, "b": 0.8}
    study.add_trial(
        optuna.create_trial(params=params, distributions=FLOATS, value=1.0, system_attrs={FLIGHT_KEY: flight})
    )
    for expected in ([0.25, 0.7], [0.275, 0.65]):
        trial = study.ask(FLOATS)
        study.tell(trial, 1.0)
        np.testing.assert_allclose(list(trial.params.values()), expected)


def test_what_people_enqueue_or_add_attracts_the_swarm() -> None:
    study = optuna.create_study(
        sampler=PSOSampler(seed=3, population=4, design=4, coefficients=PULL, search_space=FLOATS)
    )
    study.add_trial(optuna.create_trial(params={"a": 0.9, "b": 0.1}, distributions=FLOATS, value=-5.0))
    study.enqueue_trial({"a": 0.5, "b": 0.5})
    for _ in range(4):
        study.tell(study.ask(FLOATS), 1.0)
    assert study.trials[1].params == {"a": 0.5, "b": 0.5}
    study.ask(FLOATS)
    assert between(position_of(study.trials[5]), np.array([0.5, 0.5]), np.array([0.9, 0.1]))


def test_the_first_trials_are_a_latin_hypercube_even_of_parameters_not_yet_known() -> None:
    study = optuna.create_study(sampler=PSOSampler(seed=8, design=8))
    study.optimize(lambda trial: trial.suggest_float("a", 0, 8) + trial.suggest_float("b", 0, 8), n_trials=8)
    for name in ("a", "b"):
        assert sorted(int(trial.params[name]) for trial in study.trials) == list(range(8))


def test_the_same_discrete_point_is_not_tried_twice_while_others_are_left() -> None:
    space: dict[str, BaseDistribution] = {"a": IntDistribution(0, 3), "b": CategoricalDistribution(["x", "y", "z"])}
    study = optuna.create_study(sampler=PSOSampler(seed=4))
    flying = []
    for _ in range(10):  # of 12 points, three always in flight
        flying.append(study.ask(space))
        if len(flying) > 3:
            trial = flying.pop(0)
            study.tell(trial, trial.params["a"])
    assert len({tuple(trial.params.values()) for trial in study.trials}) == 10
    for _ in range(10):  # and when all are tried, it goes on
        study.tell(study.ask(space), 1.0)
    assert len(study.trials) == 20


def test_conditional_parameters_are_tuned_too() -> None:
    def objective(trial: optuna.Trial) -> float:
        if trial.suggest_categorical("kind", ["deep", "wide"]) == "deep":
            return abs(float(trial.suggest_float("depth", 0, 100)) - 70)
        return 60 + abs(float(trial.suggest_float("width", 1, 100, log=True)) - 10)

    study = optuna.create_study(sampler=PSOSampler(seed=4))
    study.optimize(objective, n_trials=60)
    assert study.best_value < 3
    late = [trial.params["depth"] for trial in study.trials[30:] if "depth" in trial.params]
    assert np.median(np.abs(np.array(late) - 70)) < 10


def test_a_parameter_whose_range_changed_leaves_the_swarm_and_the_rest_flies_on() -> None:
    study = optuna.create_study(sampler=PSOSampler(seed=4, coefficients=STILL))
    walk(study, 10)
    wider = SPACE | {"a": FloatDistribution(-5.0, 50.0)}
    study.tell(study.ask(wider), 1.0)
    trial = study.ask(wider)
    assert len(position_of(study.trials[trial.number])) == 5
    assert set(trial.params) == set(SPACE)


def test_unseeded_samplers_of_one_study_share_a_seed_that_the_study_keeps() -> None:
    storage = InMemoryStorage()
    study = optuna.create_study(storage=storage, sampler=PSOSampler(design=8))
    other = optuna.load_study(study_name=study.study_name, storage=storage, sampler=PSOSampler(design=8))
    for turn in (study, other) * 4:
        turn.tell(turn.ask({"a": FloatDistribution(0, 8)}), 1.0)
    assert sorted(int(trial.params["a"]) for trial in study.trials) == list(range(8))
    fresh = optuna.create_study(storage=storage, sampler=PSOSampler())
    fresh.ask(FLOATS)
    seeds = {storage.get_study_system_attrs(one._study_id)["pso:seed"] for one in (study, fresh)}
    assert len(seeds) == 2


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda sampler: pickle.loads(pickle.dumps(sampler))])
def test_a_copy_goes_on_where_the_original_was(copied: Callable[[PSOSampler], PSOSampler]) -> None:
    straight = walk(optuna.create_study(sampler=PSOSampler(seed=5)), 20)
    study = optuna.create_study(sampler=PSOSampler(seed=5))
    walk(study, 12)
    study.sampler = copied(study.sampler)
    assert walk(study, 8) == straight


def test_one_sampler_serves_two_studies() -> None:
    alone = walk(optuna.create_study(sampler=PSOSampler(seed=5)), 15)
    sampler = PSOSampler(seed=5)
    one, two = optuna.create_study(sampler=sampler), optuna.create_study(sampler=sampler)
    for _ in range(15):
        walk(one, 1)
        walk(two, 1)
    assert [trial.params for trial in one.trials] == [trial.params for trial in two.trials] == alone


def test_threads_share_a_sampler() -> None:
    study = optuna.create_study(sampler=PSOSampler(seed=1))
    study.optimize(lambda trial: trial.suggest_float("a", 0, 1), n_trials=40, n_jobs=4)
    assert len({trial.params["a"] for trial in study.trials}) == 40


def test_hyperband_may_show_the_sampler_a_part_of_the_study() -> None:
    pruner = optuna.pruners.HyperbandPruner(min_resource=1, max_resource=9)
    study = optuna.create_study(
        sampler=PSOSampler(seed=1, population=4, design=4, coefficients=PULL, search_space=FLOATS), pruner=pruner
    )
    for _ in range(12):
        trial = study.ask(FLOATS)
        trial.report(1.0, step=1)
        trial.should_prune()  # from here on the pruner has several brackets
        study.tell(trial, abs(trial.params["a"] - 0.5))
    for number in range(4, 12):
        best = min(study.trials[:number], key=lambda trial: trial.value or 0.0)
        start = position_of(study.trials[number - 4])
        assert between(position_of(study.trials[number]), start, position_of(best))


class CountingStorage(InMemoryStorage):  # type: ignore[misc, unused-ignore]
    """Counts what is expensive in a database."""

    def __init__(self) -> None:
        super().__init__()
        self.writes = 0

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        self.writes += 1
        super().set_trial_system_attr(trial_id, key, value)


def test_a_trial_costs_one_attribute_and_is_learnt_once(monkeypatch: pytest.MonkeyPatch) -> None:
    learnt: list[int] = []
    encode = SwarmSpace.encode

    def counted(space: SwarmSpace, params: dict[str, Any]) -> np.ndarray:
        learnt.append(1)
        return encode(space, params)

    monkeypatch.setattr(SwarmSpace, "encode", counted)
    storage = CountingStorage()
    walk(optuna.create_study(storage=storage, sampler=PSOSampler(seed=1, search_space=SPACE)), 100)
    assert storage.writes == 100
    assert len(learnt) == 99 + 8  # each finished trial once, and the 8 design points


def test_a_space_given_beforehand_moves_together_from_the_first_trial() -> None:
    study = optuna.create_study(sampler=PSOSampler(seed=1, search_space=SPACE | {"one": IntDistribution(1, 1)}))
    walk(study, 1)
    assert len(position_of(study.trials[0])) == 6


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"seed": -1}, "seed ≥ 0, received -1"),
        ({"population": 0}, "population and design ≥ 1, received 0 and 8"),
        ({"topology": "star"}, "global, ring, received 'star'"),
        ({"boundary": "wrap"}, "midway, reflect, absorb, received 'wrap'"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        PSOSampler(**settings)


def test_a_space_of_something_else_is_refused() -> None:
    with pytest.raises(TypeError, match="distribution for 'lr', received"):
        PSOSampler(search_space={"lr": (0, 1)})  # type: ignore[dict-item, unused-ignore]


@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf")])
def test_coefficients_out_of_range_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match="expected social ≥ 0"):
        Coefficients(social=value)


def test_constriction_has_the_values_of_the_paper() -> None:
    clerc = Coefficients.constriction()
    assert clerc.inertia == clerc.final_inertia == pytest.approx(0.72984, abs=1e-5)
    assert clerc.cognitive == clerc.social == pytest.approx(1.49618, abs=1e-5)
    with pytest.raises(ValueError, match="phi > 4"):
        Coefficients.constriction(4.0)


@pytest.mark.parametrize(
    ("boundary", "arrived", "speed"), [("midway", 0.95, 0.0), ("reflect", 0.8, -0.15), ("absorb", 1.0, 0.0)]
)
def test_a_wall_halves_the_way_turns_or_stops_a_particle(boundary: Any, arrived: float, speed: float) -> None:
    sampler = PSOSampler(boundary=boundary, coefficients=STILL)
    for mirrored in (False, True):
        position, velocity = np.array([0.9, 0.5]), np.array([0.3, 0.1])
        if mirrored:
            position, velocity = 1 - position, -velocity
        moved, kept = sampler._bounded(position, velocity, np.random.default_rng(0))
        np.testing.assert_allclose(1 - moved if mirrored else moved, [arrived, 0.6])
        np.testing.assert_allclose(-kept if mirrored else kept, [speed, 0.1])


def test_the_update_rule_is_the_formula() -> None:
    coefficients = Coefficients(inertia=0.5, final_inertia=0.5, cognitive=2, social=3, jitter=0, mutation=0)
    sampler = PSOSampler(coefficients=coefficients)
    x, v, p, g = (np.array([value]) for value in (0.5, 0.1, 0.6, 0.4))
    seen = [sampler._velocity(x, v, p, g, 2.5, np.random.default_rng(seed))[0] for seed in range(4000)]
    assert np.mean(seen) == pytest.approx(0.5 * 0.1 + 2 * 0.5 * 0.1 - 3 * 0.5 * 0.1, abs=0.005)
    assert np.std(seen) == pytest.approx(np.sqrt((0.2**2 + 0.3**2) / 12), rel=0.05)
