"""What holds for every space, every swarm and every order of events."""

import math
from typing import Any

import numpy as np
import optuna
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from training.pso import Coefficients, PSOSampler
from training.pso_space import SwarmSpace
from training.pso_swarm import FLIGHT_KEY, Swarm

optuna.logging.set_verbosity(optuna.logging.ERROR)


@st.composite
def integers(draw: st.DrawFn) -> IntDistribution:
    log = draw(st.booleans())
    low, step = draw(st.integers(1 if log else -(10**6), 10**6)), 1 if log else draw(st.integers(1, 1000))
    return IntDistribution(low, low + step * draw(st.integers(1, 10**6)), log=log, step=step)


@st.composite
def floats(draw: st.DrawFn) -> FloatDistribution:
    log = draw(st.booleans())
    bounds = st.floats(1e-300, 1e300) if log else st.floats(allow_nan=False, allow_infinity=False)
    low, high = sorted(draw(st.tuples(bounds, bounds).filter(lambda pair: pair[0] != pair[1])))
    return FloatDistribution(low, high, log=log)


@st.composite
def steps(draw: st.DrawFn) -> FloatDistribution:
    low, step = draw(st.integers(-100, 100)) / 4, draw(st.sampled_from([0.25, 0.5, 3.0]))
    return FloatDistribution(low, low + step * draw(st.integers(1, 40)), step=step)


CHOICES = st.lists(st.none() | st.booleans() | st.integers(2, 99) | st.text(max_size=3), min_size=1, unique=True)
DISTRIBUTIONS = integers() | floats() | steps() | CHOICES.map(CategoricalDistribution)
SPACES = st.dictionaries(st.text(min_size=1, max_size=4), DISTRIBUTIONS, min_size=1, max_size=5)
SHARES = st.floats(0, 1, exclude_max=True)


def contained(space: dict[str, BaseDistribution], params: dict[str, Any]) -> bool:
    return all(space[name]._contains(space[name].to_internal_repr(value)) for name, value in params.items())


@given(SPACES, st.randoms(use_true_random=False))
def test_every_point_of_the_cube_is_a_set_of_allowed_values(space: dict[str, BaseDistribution], random: Any) -> None:
    swarm_space = SwarmSpace(space)
    point = np.array([random.choice([0.0, 1.0, random.random()]) for _ in range(swarm_space.size)])
    params = swarm_space.decode(point, np.random.default_rng(random.randrange(2**32)))
    assert params.keys() == space.keys()
    assert contained(space, params)


@given(DISTRIBUTIONS, SHARES)
def test_a_value_survives_encoding(distribution: BaseDistribution, share: float) -> None:
    space = SwarmSpace({"p": distribution})
    value = space.axes["p"].at_share(share)
    point = space.encode({"p": value})
    assert point.shape == (space.size,)
    assert np.all((point >= 0) & (point <= 1))
    if isinstance(distribution, CategoricalDistribution):
        assert point.sum() == point[distribution.choices.index(value)] == 1
        return
    decoded = space.decode(point, np.random.default_rng(0))["p"]
    if isinstance(distribution, IntDistribution):
        assert decoded == value
    elif distribution.log:
        assert math.isclose(decoded, value, rel_tol=1e-9)
    else:
        assert math.isclose(decoded / 2, value / 2, abs_tol=1e-9 * (distribution.high / 2 - distribution.low / 2))


@given(st.integers(1, 12), st.integers(0, 2**32 - 1), st.text(min_size=1, max_size=4))
def test_the_design_meets_every_stratum_once(strata: int, seed: int, name: str) -> None:
    space: dict[str, BaseDistribution] = {name: IntDistribution(1, strata), "": FloatDistribution(0, strata)}
    study = optuna.create_study(sampler=PSOSampler(seed=seed, design=strata))
    for _ in range(strata):
        study.tell(study.ask(space), state=TrialState.FAIL)
    assert sorted(int(trial.params[""]) for trial in study.trials) == list(range(strata))
    if strata > 1:
        assert sorted(trial.params[name] for trial in study.trials) == list(range(1, strata + 1))


COEFFICIENT = st.floats(0, 5)
EVENTS = st.lists(
    st.tuples(st.sampled_from(["ask", "complete", "fail", "prune", "restart"]), st.integers(0, 99)), max_size=40
)


@settings(max_examples=60, deadline=None)
@given(
    EVENTS,
    st.builds(Coefficients, *[COEFFICIENT] * 6, mutation=st.floats(0, 1)),
    st.sampled_from(["global", "ring"]),
    st.sampled_from(["midway", "reflect", "absorb"]),
    st.integers(1, 9),
)
def test_no_order_of_events_stops_the_swarm_or_drives_it_out(
    events: list[tuple[str, int]], coefficients: Coefficients, topology: Any, boundary: Any, population: int
) -> None:
    space: dict[str, BaseDistribution] = {
        "a": FloatDistribution(1e-4, 1.0, log=True),
        "b": IntDistribution(0, 7),
        "c": CategoricalDistribution(["x", "y"]),
    }

    def sampler() -> PSOSampler:
        return PSOSampler(
            seed=1, population=population, design=4, coefficients=coefficients, topology=topology, boundary=boundary
        )

    study = optuna.create_study(sampler=sampler())
    flying: list[optuna.Trial] = []
    for event, number in [*events, ("ask", 0)]:
        if event == "restart":
            study.sampler = sampler()
        elif event == "ask" or not flying:
            flying.append(study.ask(space))
        else:
            trial = flying.pop(number % len(flying))
            states = {"complete": None, "fail": TrialState.FAIL, "prune": TrialState.PRUNED}
            study.tell(trial, float(number) if event == "complete" else None, state=states[event])
    for trial in study.trials:
        assert contained(space, trial.params)
        flight = trial.system_attrs.get(FLIGHT_KEY)
        assert flight is None or all(0 <= coordinate <= 1 for coordinate in flight["position"])


def finished(
    number: int, value: float, state: TrialState, position: float | None, excesses: dict[str, float], steps: int
) -> FrozenTrial:
    distributions = {"p": FloatDistribution(0, 1)}
    flight = (
        None
        if position is None
        else {
            "particle": number % 3,
            "space": SwarmSpace(distributions).fingerprint,
            "position": [position],
            "velocity": [position / 2],
        }
    )
    trial = optuna.create_trial(
        state=state,
        value=value if state == TrialState.COMPLETE else None,
        params={"p": (number % 10) / 10},
        distributions=distributions,
        system_attrs={} if flight is None else {FLIGHT_KEY: flight},
        intermediate_values=dict.fromkeys(range(1, steps + 1), value),
        constraints=excesses,
    )
    trial.number = number
    return trial


TRIALS = st.lists(
    st.tuples(
        st.integers(-3, 3).map(float),
        st.sampled_from([TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL]),
        st.none() | st.floats(0, 1),
        st.dictionaries(st.sampled_from("ab"), st.integers(-2, 2).map(float)),
        st.integers(0, 3),
    ),
    max_size=12,
)


def learnt(trials: list[FrozenTrial]) -> Swarm:
    swarm = Swarm(SwarmSpace({"p": FloatDistribution(0, 1)}), population=3, sign=1)
    for trial in trials:
        swarm.learn(trial)
    return swarm


@given(TRIALS, st.randoms(use_true_random=False))
def test_a_swarm_is_the_same_in_whatever_order_its_trials_are_learnt(trials: list[Any], random: Any) -> None:
    in_order = [finished(number, *trial) for number, trial in enumerate(trials)]
    swarms = [learnt(in_order), learnt(random.sample(in_order, len(in_order)))]
    for particle in range(3):
        assert repr(swarms[0].best_of([particle])) == repr(swarms[1].best_of([particle]))
        assert repr(swarms[0].last(particle)) == repr(swarms[1].last(particle))


@given(TRIALS)
def test_the_best_is_chosen_by_debs_rules(trials: list[Any]) -> None:
    living = [finished(number, *trial) for number, trial in enumerate(trials)]
    living = [trial for trial in living if trial.state != TrialState.FAIL]
    best = learnt(living).best_of(range(3))
    if best is None:
        assert not living
        return
    chosen = living[[trial.number for trial in living].index(best.rank[-1])]
    excess = {trial.number: sum(max(0.0, one) for one in trial.constraints.values()) for trial in living}
    feasible = [trial for trial in living if not excess[trial.number]]
    if not feasible:
        assert excess[chosen.number] == min(excess.values())
        return
    assert not excess[chosen.number]
    complete = [trial.value for trial in feasible if trial.state == TrialState.COMPLETE]
    if complete:
        assert chosen.value == min(complete)
    else:
        assert chosen.last_step == max((trial.last_step for trial in feasible), key=lambda step: step or 0)
