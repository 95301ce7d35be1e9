"""Search spaces: how they are read, what they refuse, and what settings their values become."""

import json
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import optuna
import pytest
from pydantic import Field

from server.images import ImageSpec
from training import models, recipe
from training.augmentation import Augmentation
from training.errors import TrainingError
from training.settings import TrainSettings, parse_model_settings
from training.tuning import space
from training.tuning.settings import TuneSettings

WriteSpace = Callable[[str], Path]


@dataclass(frozen=True)
class NetSettings:
    filters: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)] = (8, 16)
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1


@pytest.fixture
def write(tmp_path: Path) -> WriteSpace:
    def to_file(text: str) -> Path:
        file = tmp_path / "space.yaml"
        file.write_text(text)
        return file

    return to_file


EVERY_KIND = """
optimizer: {type: categorical, choices: [adamw, sgd], default: adamw}
learning_rate: {type: float, low: 1e-4, high: 1e-1, log: true}
momentum: {type: float, low: 0.5, high: 0.9, step: 0.1, when: {optimizer: sgd}}
batch_size: {type: int, low: 16, high: 64, step: 16}
set.filters.0: {type: int, low: 4, high: 8}
set.filters.1: {type: int, low: 8, high: 16, log: true}
set.dropout: {type: categorical, choices: [0.0, 0.25]}
augment.cutout: {type: float, low: 0, high: 0.3}
"""


def test_values_become_settings(write: WriteSpace) -> None:
    read = space.read(write(EVERY_KIND))
    fixed = {
        "optimizer": "sgd", "learning_rate": 0.01, "momentum": 0.6, "batch_size": 48, "set.filters.0": 5,
        "set.filters.1": 9, "set.dropout": 0.25, "augment.cutout": 0.2,
    }  # fmt: skip
    values = read.suggest(optuna.trial.FixedTrial(fixed))
    changed = space.changes(values, Augmentation(flip=0.5))
    settings = space.with_changes(TrainSettings(epochs=7, set={"kernel_px": "5"}), changed)
    assert (settings.optimizer, settings.learning_rate, settings.momentum) == ("sgd", 0.01, 0.6)
    assert (settings.batch_size, settings.epochs, settings.augment) == (48, 7, "flip=0.5,cutout=0.2")
    own = dict(settings.set)
    assert own.pop("kernel_px") == "5"
    assert parse_model_settings(NetSettings, own) == NetSettings((5, 9), 0.25)


def test_a_parameter_exists_only_under_its_condition(write: WriteSpace) -> None:
    read = space.read(write(EVERY_KIND))
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    drawn = [read.suggest(study.ask()) for _ in range(20)]
    assert {one["optimizer"] for one in drawn} == {"adamw", "sgd"}
    assert all(("momentum" in one) == (one["optimizer"] == "sgd") for one in drawn)
    assert "momentum" not in read.always()


def test_a_narrower_default_has_fewer_of_what_is_wide_alone(write: WriteSpace) -> None:
    text = """
set.filters.0: {type: int, low: 8, high: 96, log: true, default: 32}
set.filters.1: {type: int, low: 16, high: 192, log: true, default: 65}
set.kernel_px: {type: int, low: 3, high: 5, step: 2, default: 5}
batch_size: {type: int, low: 16, high: 128, log: true, default: 64}
"""
    found = space.read(write(text))
    assert found.narrowed(1.0) == found.defaults()
    assert found.narrowed(0.6) == {"set.filters.0": 16, "set.filters.1": 40, "set.kernel_px": 5, "batch_size": 64}
    assert found.narrowed(0.1) == {"set.filters.0": 8, "set.filters.1": 16, "set.kernel_px": 5, "batch_size": 64}
    assert space.read(write(text.replace(", default: 65", ""))).narrowed(0.5) is None


def test_strengths_of_zero_leave_an_augmentation_out() -> None:
    changed = space.changes({"augment.crop": 0.0}, Augmentation(flip=0.5, crop=0.125))
    assert changed == {"augment": "flip=0.5"}


def test_a_choice_may_be_a_list(write: WriteSpace) -> None:
    read = space.read(write("set.filters: {type: categorical, choices: [[4, 8], [16]], default: [16]}"))
    values = read.defaults()
    assert values is not None
    assert parse_model_settings(NetSettings, space.changes(values, Augmentation())["set"]).filters == (16,)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("colour: {type: int, low: 1, high: 2}", "colour: expected one of batch_size, .* or set.NAME"),
        ("epochs: {type: int, low: 1, high: 2}", "epochs: expected one of"),
        ("augment.blur: {type: float, low: 0, high: 1}", "augment.blur: expected one of"),
        ("ema: {type: float, low: 0.9, high: 0.5}", "ema: expected low ≤ high, received low 0.9 and high 0.5"),
        ("ema: {type: float, low: 0, high: 0.5, log: true}", "ema: expected low above 0 with log, received 0; zero"),
        ("batch_size: {type: int, low: 1, high: 9, log: true, step: 2}", "expected either log or step"),
        ("ema: {type: float, low: 0, high: 0.5, default: 0.9}", "expected a default from 0 to 0.5, received 0.9"),
        ("batch_size: {type: int, low: 16, high: 64, step: 16, default: 20}", "plus steps of 16, received 20"),
        ("ema: {type: float, low: 0}", "ema: high: Field required"),
        ("ema: {type: float, low: 0, high: .inf}", "ema: high: Input should be a finite number; received inf"),
        ("ema: {type: real, low: 0, high: 1}", r"ema: expected {type: float \| int \| categorical"),
        ("ema: 0.5", "ema: expected {type: "),
        ("optimizer: {type: categorical, choices: []}", "optimizer: choices: .*at least 1 item"),
        ("optimizer: {type: categorical, choices: [sgd, sgd]}", "different choices, received 'sgd' more than once"),
        ("optimizer: {type: categorical, choices: [sgd], default: adam}", "a default out of the choices"),
        ("ema: {type: float, low: 0, high: 1, when: {optimizer: sgd}}", "when: expected choices .* received optimizer"),
        (
            "keep: {type: categorical, choices: [best]}\nema: {type: int, low: 0, high: 1, when: {keep: last}}",
            "ema: when: .* received keep: last",
        ),
        ("set.filters.1: {type: int, low: 1, high: 2}", "in order from 0, here set.filters.0; received set.filters.1"),
        (
            "set.f: {type: categorical, choices: [[1]]}\nset.f.0: {type: int, low: 1, high: 2}",
            "either the whole list or its elements",
        ),
        ("", "expected lines 'NAME: {type: …}', received NoneType"),
        ("[1", "cannot read it"),
    ],
)
def test_a_space_that_cannot_be_is_refused_in_one_line(write: WriteSpace, text: str, says: str) -> None:
    with pytest.raises(TrainingError, match=says) as raised:
        space.read(write(text))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("set.colour: {type: int, low: 1, high: 2}", "set.colour at 1: --set: expected one of filters, dropout"),
        ("set.dropout: {type: float, low: 0, high: 1.5}", "set.dropout at 1.5: --set dropout: expected less than 1"),
        ("set.filters.0: {type: int, low: 0, high: 4}", "set.filters.0 at 0: .* greater than or equal to 1"),
        ("label_smoothing: {type: float, low: 0, high: 1}", "label_smoothing at 1.0: --label-smoothing: expected less"),
        (
            "augment.flip: {type: float, low: -1, high: 1}",
            "augment.flip at -1.0: --augment: expected a strength of flip",
        ),
        ("batch_size: {type: float, low: 16, high: 64}", "batch_size at 16.5: --batch-size: expected a valid integer"),
        ("set.filters.0: {type: float, low: 4, high: 8, step: 1.5}", "set.filters.0 at 5.5: --set filters: .* integer"),
        ("optimizer: {type: categorical, choices: [sgd, lion]}", "optimizer at lion: --optimizer: expected 'sgd'"),
    ],
)
def test_values_that_training_would_refuse_are_refused_at_once(write: WriteSpace, text: str, says: str) -> None:
    with pytest.raises(TrainingError, match=says):
        space.check(space.read(write(text)), TrainSettings(), NetSettings)


def test_whole_steps_suit_a_setting_of_integers(write: WriteSpace) -> None:
    text = "batch_size: {type: float, low: 16, high: 64, step: 16}\nset.filters.0: {type: float, low: 4, high: 4}"
    space.check(space.read(write(text)), TrainSettings(), NetSettings)


def test_a_missing_file_and_a_model_without_a_space_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"none\.yaml, cannot read it"):
        space.read(tmp_path / "none.yaml")
    with pytest.raises(TrainingError, match="expected --space FILE for --model own:net; only binary, cnn, "):
        space.default_file("own:net")


@pytest.mark.slow
@pytest.mark.parametrize("model", models.MODELS)
def test_every_model_has_a_space_whose_first_trial_is_the_model_as_it_comes(model: str) -> None:
    read = space.read(space.default_file(model))
    plain, image = TrainSettings(model=model), ImageSpec(32, 32, 3)
    architecture = models.get(model)
    space.check(read, plain, architecture.settings)
    values = read.defaults()
    assert values is not None

    def decided(settings: TrainSettings) -> tuple[dict[str, Any], dict[str, Any]]:
        own = parse_model_settings(architecture.settings, settings.set)
        chosen = recipe.resolve(settings, architecture.recipe, precision=architecture.precision, image=image)
        return asdict(chosen), asdict(own)

    usual = decided(plain)
    changed = space.changes(values, Augmentation.parse(usual[0]["augment"]))
    assert changed["batch_size"]
    own, expected = decided(space.with_changes(plain, changed)), usual
    own[1].pop("freeze_epochs", None)  # a trial has fewer epochs than a backbone is usually frozen for
    expected[1].pop("freeze_epochs", None)
    assert own == expected


def test_the_pages_example_is_a_space_and_its_flags_exist(write: WriteSpace) -> None:
    page = (Path(__file__).parents[3] / "docs" / "tuning.md").read_text()
    read = space.read(write(re.findall(r"^```yaml\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL)[0]))
    assert read.defaults() is not None
    space.check(read, TrainSettings(), NetSettings)
    flags = {flag.removeprefix("--").replace("-", "_") for flag in re.findall(r"`(--[a-z-]+)", page)}
    assert flags - set(TuneSettings.model_fields) - set(TrainSettings.model_fields) == set()


def test_two_equal_spaces_have_equal_records(write: WriteSpace) -> None:
    one, other = space.read(write(EVERY_KIND)), space.read(write(f"# again\n{EVERY_KIND}"))
    assert json.dumps(one.record()) == json.dumps(other.record())
    changed = space.read(write(EVERY_KIND.replace("0.3", "0.4")))
    assert changed.record() != one.record()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--space", "none.yaml"], "error: expected a search space in none.yaml, cannot read it"),
        (["--model", "nothing"], "error: --model: expected one of "),
        (["--data", "nowhere"], "error: no data folder nowhere; expected 'digits'"),
        (["--fraction", "2"], "error: --fraction: expected less than or equal to 1; received '2'"),
        (["--learning-rate", "-1"], "error: --learning-rate: expected greater than 0"),
    ],
)
def test_bad_input_is_one_line_and_code_2(
    command: Callable[..., int], capsys: pytest.CaptureFixture[str], words: list[str], says: str
) -> None:
    assert command("tune", *words) == 2
    shown = capsys.readouterr().err
    assert shown.startswith(says)
    assert shown.count("\n") == 1
