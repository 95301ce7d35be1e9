"""What a request brings, checked against what its model takes. Pure.

pictures ──▶ bytes, still encoded
numbers, tensors ──▶ arrays by input name
"""

from collections.abc import Mapping
from typing import Final

from server.errors import InvalidInput
from server.pixels import to_rows, to_tensor
from server.tensors import Array, InferRequest
from server.versions import LoadedModel

NO_ROWS: Final = "expected at least one row, received none"


def pictures_of(request: InferRequest, model: LoadedModel) -> tuple[bytes, ...]:
    """Encoded pictures that came as the model's image input, `bytes[n]` or `bytes[n, 1]`; none where pixels did.

    Raises:
        InvalidInput: They came with other inputs, or in another shape.
    """
    image = request.inputs.get(model.bundle.image_input)
    if model.image is None or image is None or not image.dtype.hasobject:
        return ()
    if len(request.inputs) > 1 or image.shape not in ((image.size,), (image.size, 1)) or not image.size:
        raise InvalidInput(
            f"expected pixels {spell_inputs(model)} or encoded pictures BYTES[n] alone for '{model.name}', received"
            f" BYTES{list(image.shape)} for '{model.bundle.image_input}' among {len(request.inputs)} inputs"
        )
    return tuple(image.ravel().tolist())


def check_outputs(request: InferRequest, model: LoadedModel) -> None:
    """Checks that the outputs asked for are there.

    Raises:
        InvalidInput: One is not.
    """
    if request.outputs and not {*request.outputs} <= {spec.name for spec in model.outputs}:
        known = ", ".join(f"'{spec.name}'" for spec in model.outputs)
        received = ", ".join(f"'{name}'" for name in request.outputs)
        raise InvalidInput(f"expected outputs of '{model.name}' ({known}), received {received}")


def tensors_of(request: InferRequest, model: LoadedModel) -> Mapping[str, Array]:
    """The request's tensors or numbers as the graph takes them.

    Raises:
        InvalidInput: They are not what it takes.
    """
    if request.numbers is not None:
        if model.image is not None:
            return {model.bundle.image_input: to_rows(request.numbers, model.image)}
        if len(model.inputs) != 1:
            raise InvalidInput(f"expected inputs by name for '{model.name}' ({spell_inputs(model)}), received numbers")
        return {model.inputs[0].name: to_tensor(request.numbers, model.inputs[0])}
    _check_inputs(request.inputs, model)
    return request.inputs


def _check_inputs(inputs: Mapping[str, Array], model: LoadedModel) -> None:
    if len(inputs) == 1 and len(model.inputs) == 1:
        spec = model.inputs[0]
        array = inputs.get(spec.name)
        if array is not None:  # what nearly all models take, without the sets below
            spec.validate(array)
            if spec.batched and not len(array):
                raise InvalidInput(NO_ROWS)
            return
    if inputs.keys() != {spec.name for spec in model.inputs}:
        received = ", ".join(f"'{name}'" for name in inputs) or "none"
        raise InvalidInput(f"expected the inputs {spell_inputs(model)} of '{model.name}', received {received}")
    for spec in model.inputs:
        spec.validate(inputs[spec.name])
    rows = {inputs[spec.name].shape[0] for spec in model.inputs if spec.batched}
    if rows == {0}:
        raise InvalidInput(NO_ROWS)
    if len(rows) > 1:
        raise InvalidInput(f"expected as many rows in each input, received {sorted(rows)}")


def count_rows(inputs: Mapping[str, Array], model: LoadedModel) -> int:
    """How many rows the inputs have; 1 for a model without a batch dimension."""
    for spec in model.inputs:
        if spec.shape[:1] == (-1,):
            return len(inputs[spec.name])
    return 1


def spell_inputs(model: LoadedModel) -> str:
    """What a model takes, for people."""
    return ", ".join(f"'{spec.name}' {spec.datatype}{list(spec.shape)}" for spec in model.inputs)
