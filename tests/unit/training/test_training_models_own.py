"""A user's own `module:function`: its parameters are settings, and what is no model is refused in one line."""

import re
import textwrap
from pathlib import Path
from typing import Any

import pytest

from server.images import ImageSpec
from training import models
from training.errors import TrainingError

OWN = """
    import keras

    def build(image_shape, classes, *, width: int = 4, end="softmax"):
        pixels = keras.Input(image_shape)
        features = keras.layers.Dense(width)(keras.layers.Flatten()(pixels))
        return keras.Model(pixels, keras.layers.Dense(classes, activation=end)(features))

    def wide(image_shape, classes, **settings):
        return build(image_shape, classes + 1)

    def nothing(image_shape, classes):
        return None

    def fails(image_shape, classes):
        raise KeyError("no such thing")

    def alone(image_shape):
        return None

    constant = 3
"""


def build(name: str, image: ImageSpec, **settings: Any) -> Any:
    architecture = models.get(name)
    return architecture.build(architecture.settings(**settings), image, 4)


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_net.py").write_text(textwrap.dedent(OWN))
    (tmp_path / "broken_net.py").write_text("import nothing_of_this_name")
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.slow
@pytest.mark.usefixtures("own")
def test_own_model_takes_its_parameters_as_settings() -> None:
    from training.settings import parse_model_settings  # noqa: PLC0415

    architecture = models.get("own_net:build")
    settings = parse_model_settings(architecture.settings, {"width": "7"})
    model = architecture.build(settings, ImageSpec(5, 6, 3), 4)
    assert model.output_shape == (None, 4)
    assert model.layers[2].units == 7
    with pytest.raises(TrainingError, match="--set: expected one of width, end; received 'depth'"):
        parse_model_settings(architecture.settings, {"depth": "7"})
    with pytest.raises(TrainingError, match=r"--set width: expected .*integer.*; received 'much'"):
        parse_model_settings(architecture.settings, {"width": "much"})


@pytest.mark.slow
@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("absent_net:build", {}, "expected a module 'absent_net' that can be imported .* ModuleNotFoundError"),
        ("broken_net:build", {}, "received ModuleNotFoundError: No module named 'nothing_of_this_name'"),
        ("own_net:missing", {}, "expected a function 'missing' in own_net, found none"),
        ("own_net:constant", {}, "expected a function 'constant' in own_net, found none"),
        ("own_net:alone", {}, r"expected a function of \(image_shape, classes, …\), received \(image_shape\)"),
        ("own_net:nothing", {}, r"expected the function to return a keras\.Model, received NoneType"),
        ("own_net:fails", {}, "the function raised KeyError: 'no such thing'"),
        ("own_net:wide", {}, r"to probabilities \(None, 4\), received \(None, 5, 6, 3\), \(None, 5\)"),
        ("own_net:build", {"end": "relu"}, "expected probabilities that sum to 1, received a sum of 0"),
    ],
)
def test_own_model_that_is_none(name: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        build(name, ImageSpec(5, 6, 3), **settings)


@pytest.mark.slow
def test_own_model_of_the_documentation_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).resolve().parents[3] / "docs" / "models.md").read_text()
    example = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)[0]
    (tmp_path / "mynet.py").write_text(example)
    monkeypatch.syspath_prepend(tmp_path)
    model = build("mynet:build", ImageSpec(12, 10, 1), width=48)
    assert model.layers[2].filters == 48
