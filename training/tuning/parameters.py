"""The kinds of parameters that a search space may have."""

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Final, Self

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

Choice = bool | int | float | str
_BLOCK: Final = 8  # engines compute so many channels at a time, or a multiple of it


def _choice(value: Any) -> Any:
    """Writes a list down as JSON: the storage knows choices of text and numbers alone."""
    return json.dumps(value) if isinstance(value, list) else value


def _choices(value: Any) -> Any:
    return [_choice(one) for one in (value if isinstance(value, list) else [value])]


class Parameter(BaseModel, ABC):
    """What all kinds have.

    Args:
        default: Where the first trial begins.
        when: Parameter → choices of it with which this one exists.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: ClassVar[str]

    default: Annotated[Choice | None, BeforeValidator(_choice)] = None
    when: Mapping[str, Annotated[tuple[Choice, ...], BeforeValidator(_choices)]] = Field(default_factory=dict)

    @property
    def is_categorical(self) -> bool:
        """Whether it has choices."""
        return False

    @abstractmethod
    def distribution(self) -> BaseDistribution:
        """Returns Optuna's distribution."""

    @abstractmethod
    def suggest(self, trial: optuna.Trial, name: str) -> Any:
        """Asks a trial for a value."""

    @abstractmethod
    def probes(self) -> Sequence[Any]:
        """Lists the values that show whether all of them are allowed."""

    def usual(self) -> Any:
        """Returns the default, or else the first probe."""
        return self.probes()[0] if self.default is None else self.default


class _Number(Parameter, ABC):
    def _check(self, low: float, high: float, step: float | None, *, log: bool) -> None:
        if not low <= high:
            raise ValueError(f"expected low ≤ high, received low {low:g} and high {high:g}; exchange them")
        if log and low <= 0:
            raise ValueError(f"expected low above 0 with log, received {low:g}; zero has no logarithm")
        if log and step is not None:
            raise ValueError("expected either log or step, received both; leave one out")
        if self.default is not None and not (isinstance(self.default, int | float) and low <= self.default <= high):
            raise ValueError(f"expected a default from {low:g} to {high:g}, received {self.default!r}")
        if self.default is not None and step and not _is_whole((float(self.default) - low) / step):
            raise ValueError(f"expected a default at {low:g} plus steps of {step:g}, received {self.default!r}")


def _is_whole(steps: float) -> bool:
    return math.isclose(steps, round(steps), abs_tol=1e-9)


class FloatParameter(_Number):
    """A number.

    Args:
        low: The least.
        high: The most.
        log: Whether equal ratios weigh the same, rather than equal differences.
        step: Between neighbouring values, from `low` on.
    """

    kind = "float"

    low: float
    high: float
    log: bool = False
    step: Annotated[float | None, Field(gt=0)] = None
    default: float | None = None

    @model_validator(mode="after")
    def _check_bounds(self) -> Self:
        self._check(self.low, self.high, self.step, log=self.log)
        return self

    def distribution(self) -> BaseDistribution:
        """See `Parameter`."""
        return FloatDistribution(self.low, self.high, log=self.log, step=self.step)

    def suggest(self, trial: optuna.Trial, name: str) -> float:
        """See `Parameter`."""
        return float(trial.suggest_float(name, self.low, self.high, log=self.log, step=self.step))

    def probes(self) -> Sequence[Any]:
        """See `Parameter`."""
        # Between whole bounds this is not whole, unless all steps are: a setting of integers refuses it.
        between = self.low + (self.step or 0.5)
        return (self.low, self.high, between) if between < self.high else (self.low, self.high)


class IntParameter(_Number):
    """A whole number.

    Args:
        low: The least.
        high: The most.
        log: Whether equal ratios weigh the same, rather than equal differences.
        step: Between neighbouring values, from `low` on.
    """

    kind = "int"

    low: int
    high: int
    log: bool = False
    step: Annotated[int | None, Field(gt=0)] = None
    default: int | None = None

    @model_validator(mode="after")
    def _check_bounds(self) -> Self:
        self._check(self.low, self.high, self.step, log=self.log)
        return self

    def distribution(self) -> BaseDistribution:
        """See `Parameter`."""
        return IntDistribution(self.low, self.high, log=self.log, step=self.step or 1)

    def suggest(self, trial: optuna.Trial, name: str) -> int:
        """See `Parameter`."""
        return int(trial.suggest_int(name, self.low, self.high, log=self.log, step=self.step or 1))

    def probes(self) -> Sequence[Any]:
        """See `Parameter`."""
        return (self.low, self.high)

    def narrowed(self, share: float) -> int | None:
        """Returns a share of the default within the bounds, in blocks of 8 from 12 on; None where there is no default.

        Args:
            share: Above 0, at most 1.
        """
        if self.default is None:
            return None
        value = self.default * share
        return max(self.low, _BLOCK * round(value / _BLOCK) if value >= 1.5 * _BLOCK else round(value))


class CategoricalParameter(Parameter):
    """One of several.

    Args:
        choices: Texts, numbers, or lists of them.
    """

    kind = "categorical"

    choices: Annotated[tuple[Choice, ...], BeforeValidator(_choices), Field(min_length=1)]

    @model_validator(mode="after")
    def _check_choices(self) -> Self:
        twice = [choice for index, choice in enumerate(self.choices) if choice in self.choices[:index]]
        if twice:
            raise ValueError(f"expected different choices, received {twice[0]!r} more than once")
        if self.default is not None and self.default not in self.choices:
            raise ValueError(f"expected a default out of the choices, received {self.default!r}")
        return self

    @property
    def is_categorical(self) -> bool:
        """See `Parameter`."""
        return True

    def distribution(self) -> BaseDistribution:
        """See `Parameter`."""
        return CategoricalDistribution(self.choices)

    def suggest(self, trial: optuna.Trial, name: str) -> Any:
        """See `Parameter`."""
        return trial.suggest_categorical(name, self.choices)

    def probes(self) -> Sequence[Any]:
        """See `Parameter`."""
        return self.choices


KINDS: Final[Mapping[str, type[Parameter]]] = {
    made.kind: made for made in (FloatParameter, IntParameter, CategoricalParameter)
}
