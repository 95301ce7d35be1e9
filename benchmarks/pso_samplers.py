"""One search by one sampler on one function, with several evaluations in flight, on a clock of its own.

Evaluations take random times (log-normal, the same for every sampler at the same seed), so they finish out of order as
trainings do: whoever is free asks next.
"""

import heapq
import importlib
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, Final

import numpy as np
import optuna
from optuna.distributions import BaseDistribution

from benchmarks.pso_functions import Member
from training.pso import Coefficients, PSOSampler

BUDGETS: Final = (24, 40, 80, 160)
IN_FLIGHT: Final = 4
_DURATION_SPREAD: Final = 0.4  # of the log of an evaluation's duration: one in twenty takes over twice as long

Ask = Callable[[], tuple[Any, Mapping[str, Any]]]
Tell = Callable[[Any, float], None]
Opened = tuple[Ask, Tell]


def search(sampler: str, member: Member, seed: int) -> list[float]:
    """The true value of the best evaluation so far at each budget.

    Args:
        sampler: A key of `SAMPLERS`.
        member: The function.
        seed: The sampler's; durations of evaluations come from it too.
    """
    ask, tell = SAMPLERS[sampler](member.problem.space(), seed)
    clock = np.random.default_rng([seed, 99])
    flying: list[tuple[float, int, Any, Mapping[str, Any]]] = []
    now, asked, best, kept = 0.0, 0, np.inf, list[float]()
    for finished in range(1, BUDGETS[-1] + 1):
        while len(flying) < IN_FLIGHT and asked < BUDGETS[-1]:
            handle, params = ask()
            heapq.heappush(flying, (now + clock.lognormal(0.0, _DURATION_SPREAD), asked, handle, params))
            asked += 1
        now, number, handle, params = heapq.heappop(flying)
        observed = member.observed_value(params, number)
        tell(handle, observed)
        if observed < best:
            best, true_value = observed, member.true_value(params)
        if finished in BUDGETS:
            kept.append(true_value)
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

        return ask, study.tell

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

    return ask, optimizer.tell


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
