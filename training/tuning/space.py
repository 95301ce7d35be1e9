"""What is tuned: a YAML file becomes parameters, and the values of a trial become settings.

learning_rate: {type: float, low: 0.0001, high: 0.01, log: true, default: 0.001}      a setting of training
set.filters.0: {type: int, low: 16, high: 96, log: true}                              part of a list of the model's
augment.cutout: {type: float, low: 0, high: 0.4}                                      a strength, 0 leaves it out
momentum: {type: float, low: 0.8, high: 0.98, when: {optimizer: sgd}}                 only where it means something
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Final

import optuna
import yaml
from optuna.distributions import BaseDistribution
from pydantic import ValidationError

from training.augmentation import Augmentation
from training.errors import TrainingError
from training.settings import TrainSettings, parse_model_settings
from training.tuning.parameters import KINDS, IntParameter, Parameter

# How to learn, not what from nor how long: those are the same for all trials, or their accuracies would not compare.
TUNABLE: Final = (
    "batch_size",
    "optimizer",
    "learning_rate",
    "momentum",
    "weight_decay",
    "bias_lr_factor",
    "schedule",
    "warmup",
    "final_lr_factor",
    "label_smoothing",
    "ema",
    "lookahead",
    "keep",
    "augment",
    "mixed_precision",
)
_STRENGTHS: Final = tuple(field.name for field in fields(Augmentation))
_MODEL: Final = "set."
_AUGMENT: Final = "augment."
DEFAULTS: Final = Path(__file__).parents[1] / "spaces"


@dataclass(frozen=True)
class Space:
    """Parameters by their names, in the order in which they are decided.

    Args:
        source: Where they were read, for messages.
        parameters: Name → kind and bounds.
    """

    source: str
    parameters: Mapping[str, Parameter]

    def record(self) -> dict[str, Any]:
        """Returns what two equal spaces have in common, as JSON has it."""
        return {
            name: {"type": one.kind, **one.model_dump(mode="json", exclude_defaults=True)}
            for name, one in self.parameters.items()
        }

    def with_types(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """Completes a record from when types were not written down: they count as this space's.

        Args:
            record: Of a study.
        """
        types = {name: {"type": one.kind} for name, one in self.parameters.items()}
        return {name: types.get(name, {}) | values for name, values in record.items()}

    def always(self) -> dict[str, BaseDistribution]:
        """Returns the distributions of the parameters that every trial has."""
        return {name: one.distribution() for name, one in self.parameters.items() if not one.when}

    def suggest(self, trial: optuna.Trial) -> dict[str, Any]:
        """Asks for the parameters of a trial.

        Args:
            trial: A running one.

        Returns:
            Name → value, of those whose conditions are met.
        """
        return self._decided(lambda name, one: one.suggest(trial, name))

    def defaults(self) -> dict[str, Any] | None:
        """Returns each parameter's default, of those whose conditions are met; None if one has none."""
        values = self._decided(lambda _, one: one.default)
        return None if None in values.values() else values

    def narrowed(self, share: float) -> dict[str, Any] | None:
        """Returns the defaults with a narrower model; None if one has none.

        Args:
            share: Of the default of the model's whole numbers on a logarithmic scale, which are its widths.
        """

        def decide(name: str, one: Parameter) -> Any:
            if share < 1 and name.startswith(_MODEL) and isinstance(one, IntParameter) and one.log:
                return one.narrowed(share)
            return one.default

        values = self._decided(decide)
        return None if None in values.values() else values

    def probes(self) -> Iterator[tuple[str, Any, dict[str, Any]]]:
        """Lists places that show whether the space fits a model: every parameter at its extremes, and floats between.

        Yields:
            A parameter, its value, and the values of all, which meet the parameter's conditions.
        """
        usual = {name: one.usual() for name, one in self.parameters.items()}
        for name, one in self.parameters.items():
            needed = {parent: choices[0] for parent, choices in one.when.items()}
            for value in one.probes():
                values = {**usual, **needed, name: value}
                yield name, value, self._decided(lambda other, _, values=values: values[other])

    def _decided(self, decide: Any) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for name, one in self.parameters.items():
            if all(values.get(parent) in choices for parent, choices in one.when.items()):
                values[name] = decide(name, one)
        return values


def changes(values: Mapping[str, Any], augmentation: Augmentation) -> dict[str, Any]:
    """Makes raw settings of a trial's values.

    Args:
        values: As `Space.suggest` returns them.
        augmentation: What the values' strengths are laid over.

    Returns:
        Settings by the names of `TrainSettings`; `set` holds texts.
    """
    made = {name: value for name, value in values.items() if not name.startswith((_MODEL, _AUGMENT))}
    strengths = {name.removeprefix(_AUGMENT): value for name, value in values.items() if name.startswith(_AUGMENT)}
    if strengths:
        made["augment"] = str(replace(augmentation, **strengths))
    own = {name.removeprefix(_MODEL): value for name, value in values.items() if name.startswith(_MODEL)}
    if own:
        made["set"] = _model_settings(own)
    return made


def _model_settings(values: Mapping[str, Any]) -> dict[str, str]:
    lists: dict[str, list[Any]] = {}
    made = {}
    for name, value in values.items():
        setting, dot, _ = name.partition(".")
        if dot:
            lists.setdefault(setting, []).append(value)  # their order was checked when the space was read
        else:
            made[name] = value if isinstance(value, str) else json.dumps(value)
    return made | {setting: json.dumps(elements) for setting, elements in lists.items()}


def default_file(model: str) -> Path:
    """Finds the space that comes with a model of the registry.

    Raises:
        TrainingError: There is none.
    """
    file = DEFAULTS / f"{model}.yaml"
    if not file.is_file():
        known = ", ".join(sorted(one.stem for one in DEFAULTS.glob("*.yaml")))
        raise TrainingError(f"expected --space FILE for --model {model}; only {known} have a space of their own")
    return file


def read(file: Path) -> Space:
    """Reads a space.

    Raises:
        TrainingError: The file is missing or no YAML, a parameter is unknown, or its bounds cannot be.
    """
    try:
        found = yaml.safe_load(file.read_bytes())
    except (OSError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise TrainingError(f"expected a search space in {file}, cannot read it ({reason})") from None
    if not isinstance(found, dict) or not found:
        raise TrainingError(
            f"space {file}: expected lines 'NAME: {{type: …}}', received {type(found).__name__}; see docs/tuning.md"
        )
    parameters: dict[str, Parameter] = {}
    for name, entry in found.items():
        try:
            _check_name(str(name), parameters)
            parameters[str(name)] = _parameter(entry, parameters)
        except TrainingError as error:
            raise TrainingError(f"space {file}: {name}: {error}") from None
    return Space(str(file), parameters)


def check(space: Space, settings: TrainSettings, model_settings: type[Any]) -> None:
    """Refuses a space with values that training would refuse.

    Args:
        space: To check.
        settings: What holds for all trials.
        model_settings: The architecture's dataclass of settings.

    Raises:
        TrainingError: A parameter is no setting of the model, or the setting may not have a value of it.
    """
    for name, value, values in space.probes():
        try:
            tried = with_changes(settings, changes(values, Augmentation()))
            parse_model_settings(model_settings, tried.set)
        except TrainingError as error:
            raise TrainingError(f"space {space.source}: {name} at {value}: {error}") from None


def with_changes(settings: TrainSettings, changed: Mapping[str, Any]) -> TrainSettings:
    """Lays a trial's settings over those of all trials.

    Raises:
        TrainingError: A value is out of bounds.
    """
    own = {**settings.set, **changed.get("set", {})}
    return TrainSettings.parse({**settings.model_dump(exclude_unset=True), **changed, "set": own})


def _check_name(name: str, before: Mapping[str, Parameter]) -> None:
    if name.startswith(_AUGMENT) and name.removeprefix(_AUGMENT) in _STRENGTHS:
        if "augment" in before:
            raise TrainingError("expected either augment or its strengths, received both; leave one out")
        return
    if name.startswith(_MODEL):
        _check_element(name, before)
    elif name not in TUNABLE:
        raise TrainingError(
            f"expected one of {', '.join(TUNABLE)}, augment.NAME with NAME of {', '.join(_STRENGTHS)},"
            " or set.NAME with a setting of the model"
        )


def _check_element(name: str, before: Mapping[str, Parameter]) -> None:
    """Refuses elements of a list that are out of order, or beside the whole list."""
    setting, _, index = name.removeprefix(_MODEL).partition(".")
    whole = f"{_MODEL}{setting}"
    elements = [other for other in before if other.startswith(f"{whole}.")]
    if not index:
        if elements:
            raise TrainingError("expected either the whole list or its elements, received both; leave one out")
        return
    if whole in before:
        raise TrainingError("expected either the whole list or its elements, received both; leave one out")
    if index != str(len(elements)):
        raise TrainingError(f"expected elements in order from 0, here {whole}.{len(elements)}; received {name}")


def _parameter(entry: Any, before: Mapping[str, Parameter]) -> Parameter:
    kind = str(entry.get("type")) if isinstance(entry, dict) else ""
    if kind not in KINDS:
        raise TrainingError(f"expected {{type: {' | '.join(KINDS)}, …}}, received {entry!r}")
    try:
        made = KINDS[kind].model_validate({key: value for key, value in entry.items() if key != "type"})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        message = first["msg"].removeprefix("Value error, ")
        received = f"; received {first['input']!r}" if place else ""
        raise TrainingError(f"{place}: {message}{received}" if place else message) from None
    for parent, choices in made.when.items():
        known = before[parent].probes() if parent in before and before[parent].is_categorical else ()
        unknown = [choice for choice in choices if choice not in known]
        if unknown:
            raise TrainingError(
                f"when: expected choices of a categorical parameter above it, received {parent}: {unknown[0]}"
            )
    return made
