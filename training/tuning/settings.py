"""The settings of one search: the flags of `tune` beside those of `train`, and what a worker is given."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from training.errors import TrainingError
from training.settings import TrainSettings, checked_name

if TYPE_CHECKING:
    from training.tuning.space import Space  # it imports Optuna, which the parser needs not

# Each trial decides them, or they make no sense for a search.
NO_FLAGS: Final = ("fraction", "fresh", "mlflow")
# Where and how fast, not what: two commands that differ in these alone go on with the same study.
_NOT_SIGNED: Final = {
    "name", "data", "epochs", "fraction", "runs", "cache", "memory_limit_mb", "devices", "fresh", "checkpoints",
    "checkpoint_minutes", "mlflow", "patience",
}  # fmt: skip
_PASSWORD: Final = re.compile(r"//[^/@]*@")


class TuneSettings(BaseModel):
    """How to search."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    space: Annotated[
        str, Field(description="YAML file of what is tuned (default: the model's own, docs/tuning.md)")
    ] = ""
    trials: Annotated[int, Field(ge=0, description="of the whole study; the same command again does the rest")] = 24
    minutes: Annotated[float, Field(ge=0, description="begin no trial after so many minutes; 0: no limit")] = 0.0
    fraction: Annotated[float, Field(gt=0, le=1, description="share of the training split that trials learn from")] = (
        0.3
    )
    proxy_epochs: Annotated[int, Field(ge=1, le=10_000, description="passes over that share in a trial")] = 3
    sampler: Annotated[Literal["pso", "random", "tpe"], Field(description="what chooses the next trial")] = "pso"
    pruner: Annotated[
        Literal["median", "none"], Field(description="median: stop trials that are below most others' accuracy")
    ] = "median"
    workers: Annotated[int, Field(ge=1, le=1024, description="processes; each gets its share of cores, and a GPU")] = 1
    storage: Annotated[
        str, Field(description="SQLAlchemy URL of the study's database (default: SQLite in the study's folder)")
    ] = ""
    study: Annotated[str, Field(description="the study's name (default: <name>-<model>-<sampler>)")] = ""
    best: Annotated[int, Field(ge=0, description="so many of the best are trained in full; 0: only search")] = 3
    max_us_per_image: Annotated[
        float, Field(ge=0, description="refuse what takes longer in int8 on one thread of this machine; 0: no limit")
    ] = 0.0
    measure_cost: Annotated[bool, Field(description="measure what each candidate costs without a limit, too")] = False

    @field_validator("study")
    @classmethod
    def _check_study(cls, name: str) -> str:
        return name if not name else checked_name(name)

    @classmethod
    def parse(cls, values: Mapping[str, object]) -> Self:
        """Makes settings of raw values, such as flags.

        Raises:
            TrainingError: A value is unknown or out of bounds; the message is one line and names the flag.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            flag = str(first["loc"][0]).replace("_", "-")
            message = first["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
            expected = message if message.startswith("expected") else f"expected {message}"
            raise TrainingError(f"--{flag}: {expected}; received '{first['input']}'") from None


@dataclass(frozen=True)
class Job:
    """All that a worker has to know.

    Args:
        settings: What holds for all trials, and for the trainings in full.
        tuning: How to search.
        space: What is tuned.
    """

    settings: TrainSettings
    tuning: TuneSettings
    space: "Space"

    @property
    def study(self) -> str:
        """The study's name."""
        return self.tuning.study or f"{self.settings.run_name}-{self.settings.model}-{self.tuning.sampler}".replace(
            ":", "-"
        )

    @property
    def folder(self) -> Path:
        """Where results, figures and logs go."""
        return self.settings.runs / "tuning" / self.study

    @property
    def storage(self) -> str:
        """The database's URL."""
        return self.tuning.storage or f"sqlite:///{self.folder / 'study.db'}"

    @property
    def storage_shown(self) -> str:
        """The database's URL without a password, and without the folders above a file."""
        return _PASSWORD.sub("//…@", self.storage) if self.tuning.storage else "study.db"

    @property
    def measures_cost(self) -> bool:
        """Whether candidates are exported and timed."""
        return self.tuning.measure_cost or self.tuning.max_us_per_image > 0

    @property
    def proxy(self) -> TrainSettings:
        """The settings of a short training, before a trial's own."""
        values = self.settings.model_dump(exclude_unset=True)
        short = {"fraction": self.tuning.fraction, "epochs": self.tuning.proxy_epochs, "patience": 0}
        return TrainSettings.parse({**values, **short})

    def signature(self, fingerprint: str) -> dict[str, Any]:
        """Describes what the accuracies of a study depend on, so that no two of different meaning are mixed.

        Args:
            fingerprint: Of the data.
        """
        return {
            "data": fingerprint,
            "model": self.settings.model,
            "space": self.space.record(),
            "sampler": self.tuning.sampler,
            "fraction": self.tuning.fraction,
            "proxy-epochs": self.tuning.proxy_epochs,
            "pruner": self.tuning.pruner,
            "max-us-per-image": self.tuning.max_us_per_image,
            "settings": self.settings.model_dump(mode="json", exclude=_NOT_SIGNED | {"model"}),
        }
