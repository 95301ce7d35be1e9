"""Who takes part in a comparison: the words of `--models`.

cnn,mlp                                    two contenders: each model with its own recipe
cnn:optimizer=adam,set.dropout=0.3         one contender: the model, with these settings changed
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from training import models
from training.errors import TrainingError
from training.settings import TrainSettings

# What differs between the runs of one comparison by itself, so no contender may set it.
FIXED: Final = ("data", "model", "name", "runs", "seed")

# Before a setting's name alone: values have commas too, in `set.filters=[32,64]` and in `augment=flip,cutout=8`.
_NAMES: Final = "|".join(name.replace("_", "[-_]") for name in TrainSettings.model_fields)
_NEXT_SETTING: Final = re.compile(rf",(?=(?:{_NAMES}|set\.\w+)=)")
_MODEL_SETTING: Final = "set."


@dataclass(frozen=True, slots=True)
class Contender:
    """A model, and what is changed in how it is trained.

    Args:
        name: As the user wrote it.
        model: The architecture.
        changes: Setting → value, beside those that hold for all contenders; `set` holds the model's own settings.
    """

    name: str
    model: str
    changes: Mapping[str, Any]

    def settings(self, shared: Mapping[str, Any], seed: int) -> TrainSettings:
        """Makes the settings of one run.

        Args:
            shared: Raw values that hold for every contender.
            seed: Of this run.

        Raises:
            TrainingError: A value is unknown or out of bounds.
        """
        merged = {**shared, **self.changes, "model": self.model, "seed": seed}
        if "set" in self.changes:
            merged["set"] = {**shared.get("set", {}), **self.changes["set"]}
        try:
            return TrainSettings.parse(merged)
        except TrainingError as error:
            raise TrainingError(f"--models {self.name}: {error}") from None


def parse(words: Sequence[str]) -> list[Contender]:
    """Reads the words of `--models`.

    Args:
        words: Each a list of models with commas between them, or one model, a colon, and settings.

    Raises:
        TrainingError: A model or a setting is unknown, or a contender is named twice.
    """
    contenders = [contender for word in words for contender in _contenders(word)]
    names = [contender.name for contender in contenders]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise TrainingError(f"--models: expected each contender once; received '{twice[0]}' more than once")
    return contenders


def _contenders(word: str) -> list[Contender]:
    if "=" not in word:
        return [Contender(name, _checked(name), {}) for name in word.split(",") if name]
    first_setting = word.index("=")
    # The last colon before the first setting: `module:function:optimizer=adam` has two.
    colon = word.rfind(":", 0, first_setting)
    if colon <= 0:
        raise TrainingError(f"--models: expected MODEL or MODEL:SETTING=VALUE,…; received '{word}'")
    return [Contender(word, _checked(word[:colon]), _changes(_NEXT_SETTING.split(word[colon + 1 :])))]


def _checked(model: str) -> str:
    if "," in model:
        raise TrainingError(
            f"--models: expected one model before the settings; received '{model}'; put a space, not a comma, before"
            " the next model"
        )
    models.check(model)
    return model


def _changes(pairs: Sequence[str]) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    for pair in pairs:
        key, _, value = pair.partition("=")
        name = key.replace("-", "_")
        if name.startswith(_MODEL_SETTING):
            changes.setdefault("set", {})[name.removeprefix(_MODEL_SETTING)] = value
        elif name in FIXED or name == "set" or name not in TrainSettings.model_fields:
            known = ", ".join(field for field in TrainSettings.model_fields if field not in (*FIXED, "set"))
            raise TrainingError(f"--models: expected one of {known}, set.<model setting>; received '{key}'")
        else:
            changes[name] = value
    return changes
