"""Flags become settings, or one clear line."""

from dataclasses import dataclass
from typing import Literal

import pytest

from training.errors import TrainingError
from training.settings import TrainSettings, parse_model_settings, parse_size


@pytest.mark.parametrize(
    ("flag", "value", "words"),
    [
        ("epochs", "0", "--epochs: expected greater than or equal to 1; received '0'"),
        ("epochs", "many", "--epochs: expected a valid integer"),
        ("batch_size", "-4", "--batch-size: expected greater than or equal to 1; received '-4'"),
        ("learning_rate", "0", "--learning-rate: expected greater than 0; received '0'"),
        ("learning_rate", "nan", "--learning-rate: expected"),
        ("validation_fraction", "1", "--validation-fraction: expected less than 1; received '1'"),
        ("fraction", "1.5", "--fraction: expected less than or equal to 1; received '1.5'"),
        ("seed", "-1", "--seed: expected greater than or equal to 0"),
        ("channels", "4", "--channels: expected 'auto', '1' or '3'; received '4'"),
        ("augment", "blur", "--augment: expected auto, none or different names of flip, crop, rotate, zoom,"),
        ("augment", "flip=2", "--augment: expected a strength of flip above 0 and up to 1; received 'flip=2'"),
        ("optimizer", "lion", "--optimizer: expected 'sgd', 'adam' or 'adamw'; received 'lion'"),
        ("schedule", "linear", "--schedule: expected 'cosine', 'one-cycle', 'plateau' or 'constant'"),
        ("devices", "tpu", "--devices: expected auto, cpu or gpu:0,1; received 'tpu'"),
        ("ema", "1", "--ema: expected less than 1; received '1'"),
        ("label_smoothing", "-0.1", "--label-smoothing: expected greater than or equal to 0"),
        ("mixed_precision", "float16", "--mixed-precision: expected 'auto', 'float32' or 'bfloat16'"),
        ("image_size", "0", "--image-size: expected sides of 2 to 4096 pixels; received '0'"),
        ("image_size", "32x", "--image-size: expected HxW or N in pixels, such as 32x32 or 32; received '32x'"),
        ("name", "../x", "--name: expected letters, digits, '.', '_' and '-', beginning with a letter or a digit"),
        ("name", ".hidden", "--name: expected letters"),
        ("name", "päng", "--name: expected letters"),
    ],
)
def test_bad_values_are_one_line_that_names_the_flag(flag: str, value: str, words: str) -> None:
    with pytest.raises(TrainingError) as caught:
        TrainSettings.parse({flag: value})
    assert str(caught.value).startswith(words)
    assert "\n" not in str(caught.value)


def test_text_becomes_typed_values() -> None:
    settings = TrainSettings.parse({"epochs": "3", "learning_rate": "1e-2", "image_size": "24x32", "runs": "out"})
    assert (settings.epochs, settings.learning_rate, settings.size_px) == (3, 0.01, (24, 32))
    assert settings.runs.name == "out"


@pytest.mark.parametrize(("text", "size"), [("32", (32, 32)), ("24x48", (24, 48)), ("24X48", (24, 48))])
def test_sizes(text: str, size: tuple[int, int]) -> None:
    assert parse_size(text) == size


def test_run_is_named_after_its_data() -> None:
    assert TrainSettings().run_name == "digits"
    assert TrainSettings(data="some/where/photos/").run_name == "photos"
    assert TrainSettings(data="photos", name="mine").run_name == "mine"


def test_data_folder_whose_name_is_no_run_name() -> None:
    with pytest.raises(TrainingError, match="give a name by --name"):
        _ = TrainSettings(data="my photos").run_name


@dataclass(frozen=True)
class Shape:
    filters: tuple[int, ...] = (32, 64)
    dropout: float = 0.2
    head: Literal["flatten", "average"] = "flatten"


def test_model_settings_are_read_as_json_or_words() -> None:
    made = parse_model_settings(Shape, {"filters": "[8, 16]", "dropout": "0.5", "head": "average"})
    assert made == Shape((8, 16), 0.5, "average")
    assert parse_model_settings(Shape, {}) == Shape()


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"filter": "8"}, "--set: expected one of filters, dropout, head; received 'filter'"),
        ({"dropout": "much"}, "--set dropout: expected a valid number"),
        ({"filters": '[8, "x"]'}, "--set filters: expected a valid integer"),
        ({"head": "max"}, "--set head: expected 'flatten' or 'average'; received 'max'"),
    ],
)
def test_bad_model_settings(values: dict[str, str], words: str) -> None:
    with pytest.raises(TrainingError) as caught:
        parse_model_settings(Shape, values)
    assert str(caught.value).startswith(words)
