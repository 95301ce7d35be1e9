"""One search by one sampler on one function, with several evaluations in flight, on a clock of its own.

Evaluations take random times (log-normal, the same for every sampler at the same seed), so they finish out of order as
trainings do: whoever is free asks next. One that breaks its problem's constraint ends at once, as a network that costs
too much is refused before it is trained, and takes `REFUSED` of an evaluation from the budget.
"""

import heapq
import importlib
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, Final

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import TrialState

from benchmarks.pso_functions import Member
from training.pso import Coefficients, PSOSampler

BUDGETS: Final = (24, 40, 80, 160)
IN_FLIGHT: Final = 4
REFUSED: Final = 0.25  # to export and time an untrained network takes a quarter of a short training
_DURATION_SPREAD: Final = 0.4  # of the log of an evaluation's duration: one in twenty takes over twice as long

Ask = Callable[[], tuple[Any, Mapping[str, Any]]]
Tell = Callable[[Any, float, float], None]  # handle, value, excess over the constraint
Opened = tuple[Ask, Tell]


def search(sampler: str, member: Member, seed: int) -> list[float]:
    """The true value of the best evaluation that kept the constraint so far, at each budget.

    Args:
        sampler: A key of `SAMPLERS`.
        member: The function.
        seed: The sampler's; durations of evaluations come from it too.

    Returns:
        A value for each of `BUDGETS`; infinite before anything kept the constraint.
    """
    ask, tell = SAMPLERS[sampler](member.problem.space(), seed)
    clock = np.random.default_rng([seed, 99])
    flying: list[tuple[float, int, float, Any, Mapping[str, Any]]] = []
    now, asked, spent, best, true_value, kept = 0.0, 0, 0.0, np.inf, np.inf, list[float]()
    while len(kept) < len(BUDGETS):
        while len(flying) < IN_FLIGHT and spent + sum(share for _, _, share, _, _ in flying) < BUDGETS[-1]:
            handle, params = ask()
            share = 1.0 if member.excess(params) <= 0 else REFUSED
            lands = now + share * clock.lognormal(0.0, _DURATION_SPREAD)
            heapq.heappush(flying, (lands, asked, share, handle, params))
            asked += 1
        now, number, share, handle, params = heapq.heappop(flying)
        excess, observed = member.excess(params), member.observed_value(params, number)
        tell(handle, observed, excess)
        spent += share
        if excess <= 0 and observed < best:
            best, true_value = observed, member.true_value(params)
        kept += [true_value] * (spent >= BUDGETS[len(kept)])
    return kept


def pso_settings() -> dict[str, Any]:
    """Our sampler's defaults: results of other defaults are no results of ours."""
    sampler = PSOSampler(seed=0)
    settings = {name.lstrip("_"): value for name, value in vars(sampler).items() if isinstance(value, int | str)}
    return settings | asdict(Coefficients())


def _in_optuna(sampler: Callable[[int], optuna.samplers.BaseSampler]) -> Callable[..., Opened]:
    def opened(space: dict[str, BaseDistribution], seed: int) -> Opened:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        study = optuna.create_study(sampler=sampler(seed))

        def ask() -> tuple[Any, Mapping[str, Any]]:
            trial = study.ask(space)
            return trial, trial.params

        def tell(trial: optuna.Trial, value: float, excess: float) -> None:
            if excess:  # exactly 0 where there is no limit
                trial.set_constraint("limit", excess)
            refused = excess > 0
            study.tell(trial, None if refused else value, state=TrialState.PRUNED if refused else None)

        return ask, tell

    return opened


def _confpso(space: dict[str, BaseDistribution], seed: int) -> Opened:
    """Nevergrad's PSO; with its default population of 40 or more, 40 evaluations would be plain random search."""
    nevergrad = importlib.import_module("nevergrad")
    parameters = nevergrad.p.Dict(**{name: _in_nevergrad(nevergrad, space[name]) for name in space})
    parameters.random_state.seed(seed)
    optimizer = nevergrad.optimizers.ConfPSO(popsize=8)(parameters, budget=BUDGETS[-1], num_workers=IN_FLIGHT)

    def ask() -> tuple[Any, Mapping[str, Any]]:
        candidate = optimizer.ask()
        return candidate, candidate.value

    def tell(candidate: Any, value: float, excess: float) -> None:
        if excess > 0:
            raise ValueError("expected a problem without a constraint for nevergrad's ConfPSO: leave confpso-8 out")
        optimizer.tell(candidate, value)

    return ask, tell


def _in_nevergrad(nevergrad: Any, distribution: Any) -> Any:
    if isinstance(distribution, optuna.distributions.CategoricalDistribution):
        return nevergrad.p.Choice(list(distribution.choices))
    kind = nevergrad.p.Log if distribution.log else nevergrad.p.Scalar
    parameter = kind(lower=distribution.low, upper=distribution.high)
    if isinstance(distribution, optuna.distributions.IntDistribution):
        parameter.set_integer_casting()
    return parameter


def _tpe(seed: int) -> optuna.samplers.BaseSampler:
    return optuna.samplers.TPESampler(seed=seed, constant_liar=True)


SAMPLERS: Final[dict[str, Callable[[dict[str, BaseDistribution], int], Opened]]] = {
    "random": _in_optuna(lambda seed: optuna.samplers.RandomSampler(seed=seed)),
    "tpe": _in_optuna(_tpe),
    "confpso-8": _confpso,
    "pso": _in_optuna(lambda seed: PSOSampler(seed=seed)),
}
