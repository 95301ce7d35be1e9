"""A user's own model: `--model mypackage.net:build`.

    def build(image_shape: tuple[int, int, int], classes: int, *, width: int = 32) -> keras.Model: ...

Its parameters after the first two are what `--set` may set, with their types and defaults.
"""

import inspect
from collections.abc import Callable
from dataclasses import asdict, field, make_dataclass
from importlib import import_module
from typing import Any, Final, get_type_hints

import keras
import numpy as np

from server.images import ImageSpec
from training.errors import TrainingError
from training.models import Architecture

_GIVEN: Final = 2  # image_shape and classes
_TOLERANCE: Final = 1e-2  # of the sum of probabilities; a softmax in bfloat16 is off by some thousandths


def architecture(name: str) -> Architecture:
    """Makes an architecture of a function.

    Args:
        name: `module:function`; the module is imported as Python would from the current folder.

    Raises:
        TrainingError: There is no such module or function, or it does not take what it would be given.
    """
    function = _function(name)

    def build(settings: Any, image: ImageSpec, classes: int) -> Any:
        try:
            model = function(image.shape, classes, **asdict(settings))
        except Exception as error:
            raise TrainingError(f"--model {name}: the function raised {type(error).__name__}: {error}") from error
        _check_model(name, model, image, classes)
        return model

    return Architecture(settings=_settings(name, function), build=build, note=_silent, precision="float32")


def _silent(settings: Any, image: ImageSpec) -> str:  # noqa: ARG001 (every note's signature)
    return ""


def _function(name: str) -> Callable[..., Any]:
    module_name, _, attribute = name.partition(":")
    try:
        module = import_module(module_name)
    except Exception as error:  # the user's code may raise anything while it is imported
        raise TrainingError(
            f"--model {name}: expected a module '{module_name}' that can be imported from the current folder; received"
            f" {type(error).__name__}: {error}"
        ) from error
    function: Callable[..., Any] | None = getattr(module, attribute, None)
    if not callable(function):
        raise TrainingError(f"--model {name}: expected a function '{attribute}' in {module_name}, found none")
    return function


def _settings(name: str, function: Callable[..., Any]) -> type[Any]:
    """Makes a dataclass of a function's own parameters."""
    kinds = inspect.Parameter
    parameters = list(inspect.signature(function).parameters.values())
    positional = [entry for entry in parameters if entry.kind in (kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD)]
    if len(positional) < _GIVEN:
        raise TrainingError(
            f"--model {name}: expected a function of (image_shape, classes, …), received {inspect.signature(function)}"
        )
    named = [entry for entry in parameters[_GIVEN:] if entry.kind in (kinds.POSITIONAL_OR_KEYWORD, kinds.KEYWORD_ONLY)]
    hints = get_type_hints(function)
    columns = [(entry.name, hints.get(entry.name, Any), _column(entry)) for entry in named]
    return make_dataclass("CustomSettings", columns, frozen=True, kw_only=True)


def _column(parameter: inspect.Parameter) -> Any:
    if parameter.default is inspect.Parameter.empty:
        return field()
    return field(default_factory=lambda: parameter.default)  # a list as a default would be refused


def _check_model(name: str, model: Any, image: ImageSpec, classes: int) -> None:
    if not isinstance(model, keras.Model):
        raise TrainingError(
            f"--model {name}: expected the function to return a keras.Model, received {type(model).__name__}"
        )
    shapes = [tuple(tensor.shape) for tensor in (*model.inputs, *model.outputs)]
    expected = [(None, *image.shape), (None, classes)]
    if len(model.inputs) != 1 or len(model.outputs) != 1 or shapes != expected:
        raise TrainingError(
            f"--model {name}: expected a model from pixels {expected[0]} to probabilities {expected[1]}, received"
            f" {', '.join(map(str, shapes))}"
        )
    answer = np.asarray(model(np.zeros((1, *image.shape), np.float32), training=False), np.float64)
    if not abs(answer.sum() - 1) < _TOLERANCE or answer.min() < 0:
        raise TrainingError(
            f"--model {name}: expected probabilities that sum to 1, received a sum of {answer.sum():.4g}; end the model"
            " with a softmax, and take pixels 0..255"
        )
