"""Looks inside a finished model, however it is nested: its layers in order, and what they compute on the way."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras


def flat_layers(model: Any) -> list[Any]:
    """Lists a model's layers in their order, those of models inside it in their place."""
    found: list[Any] = []
    for layer in model.layers:
        found += flat_layers(layer) if isinstance(layer, keras.Model) else [layer]
    return found


@contextmanager
def observed(layer: Any, observe: Any) -> Iterator[None]:
    """Has a function see what a layer takes and gives, each time the layer is called.

    Args:
        layer: Anywhere in a model.
        observe: Called with the layer's first input and its output, both tensors.
    """
    original, outer = layer.call, layer.__dict__.get("call")

    def call(inputs: Any, *arguments: Any, **options: Any) -> Any:
        outputs = original(inputs, *arguments, **options)
        observe(inputs, outputs)
        return outputs

    # Past Keras's `__setattr__`, which would track the function as part of the model.
    layer.__dict__["call"] = call
    try:
        yield
    finally:
        if outer is None:
            del layer.__dict__["call"]
        else:  # somebody watches it already
            layer.__dict__["call"] = outer
