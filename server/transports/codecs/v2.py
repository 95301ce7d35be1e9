"""What both forms of the Open Inference Protocol have in common: parameters, and what is wanted of the outputs.

message ─▶ v2_messages ─┐                                        ┌─▶ v2_messages ─▶ message
                        ├─▶ V2Request   InferResponse ─▶ select ─┤
JSON + bytes ─▶ v2_json ┘                                        └─▶ v2_json ─▶ JSON + bytes
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import numpy as np

from server.errors import InvalidInput
from server.tensors import Array, InferRequest, InferResponse
from server.transports.codecs.v2_tensors import datatype_of

# As ModelConfig.dynamic_batching says it: level 1 goes first, and requests that name none are in the middle.
PRIORITY_LEVELS: Final = 200
DEFAULT_PRIORITY: Final = 100
MAX_TIMEOUT_US: Final = 3_600_000_000
_MAX_VERSION: Final = 10**18
_BATCHED_NDIM: Final = 2


@dataclass(frozen=True, slots=True)
class WantedOutput:
    """What a request wants of one output.

    Args:
        name: The output's.
        classes: How many classes to name instead of giving the values; 0 gives the values.
        binary: Whether its values come as bytes behind the JSON; None as the request says for all.
    """

    name: str
    classes: int = 0
    binary: bool | None = None


@dataclass(slots=True)
class V2Request:
    """A request of the protocol.

    Args:
        infer: What the service answers.
        id: The caller's name for it, echoed.
        outputs: What is wanted; empty for all outputs.
        timeout_s: The caller's time-out in seconds, or None.
        binary: Whether outputs come as bytes where they do not say.
        final_mark: Whether the answer says that it is the request's last one.
    """

    infer: InferRequest
    id: str = ""
    outputs: tuple[WantedOutput, ...] = field(default_factory=tuple)
    timeout_s: float | None = None
    binary: bool = False
    final_mark: bool = False

    @property
    def all_binary(self) -> bool:
        """Whether every output is wanted as bytes, and the answer says nothing that others do not."""
        return self.binary and not self.outputs and not self.id


class NamedOutput(NamedTuple):
    """One output as it goes out."""

    name: str
    datatype: str
    array: Array
    binary: bool


def read_version(text: str) -> int | None:
    """Reads a version as the protocol writes it.

    Args:
        text: A number, or nothing for whichever answers.

    Raises:
        InvalidInput: It is no whole number above 0.
    """
    if not text:
        return None
    if not text.isascii() or not text.isdigit() or not 0 < int(text[:20]) < _MAX_VERSION:
        raise InvalidInput(f"expected a version as a whole number above 0, received {text[:40]!r}")
    return int(text)


def read_parameters(request: V2Request, parameters: Mapping[str, Any]) -> None:
    """Takes over what a request's parameters say; unknown ones are let be, as the protocol has it.

    Args:
        request: To be filled in.
        parameters: By name.

    Raises:
        InvalidInput: One has a value of the wrong kind.
    """
    level = _whole(parameters, "priority")
    # The protocol has no place for levels beyond the last: they are as good as none.
    request.infer.priority = level - DEFAULT_PRIORITY if 0 < level <= PRIORITY_LEVELS else 0
    timeout_us = _whole(parameters, "timeout")
    request.timeout_s = min(timeout_us, MAX_TIMEOUT_US) / 1e6 if timeout_us else None
    request.binary = _flag(parameters, "binary_data_output") or False
    request.final_mark = _flag(parameters, "triton_enable_empty_final_response") or False


def read_output(name: str, parameters: Mapping[str, Any]) -> WantedOutput:
    """Reads what is wanted of one output.

    Args:
        name: The output's.
        parameters: By name.

    Raises:
        InvalidInput: One has a value of the wrong kind.
    """
    refuse_shared_memory(name, parameters)
    return WantedOutput(name, _whole(parameters, "classification"), _flag(parameters, "binary_data"))


def refuse_shared_memory(name: str, parameters: Mapping[str, Any]) -> None:
    """Refuses a tensor that lies in shared memory.

    Args:
        name: The tensor's.
        parameters: Its parameters.

    Raises:
        InvalidInput: It does.
    """
    if "shared_memory_region" in parameters:
        raise InvalidInput(f"expected the values of '{name}' in the request, this server shares no memory with clients")


def select(response: InferResponse, request: V2Request) -> list[NamedOutput]:
    """The outputs that were asked for, as they were asked for.

    Args:
        response: What the service answered; it holds every output that the request names.
        request: What was asked.

    Raises:
        InvalidInput: Classes were asked for of an output that has none.
    """
    wanted = request.outputs or tuple(WantedOutput(name) for name in response.outputs)
    selected = []
    for output in wanted:
        array = response.outputs[output.name]
        if output.classes:
            array = _classify(output, array, response.labels)
        binary = request.binary if output.binary is None else output.binary
        selected.append(NamedOutput(output.name, datatype_of(array), array, binary))
    return selected


def _classify(output: WantedOutput, array: Array, labels: tuple[str, ...]) -> Array:
    """`value:index:label` of the best classes, `BYTES[n, classes]`; without the rows where the output has none."""
    if array.dtype.kind not in "fiu" or not array.size or not array.ndim:
        raise InvalidInput(
            f"expected an output of numbers for `classification`, '{output.name}' is {datatype_of(array)}"
            f"{list(array.shape)}; ask for its values instead"
        )
    batched = array.ndim >= _BATCHED_NDIM
    rows = array.reshape(array.shape[0] if batched else 1, -1)
    # Backwards from the last of a stable ascending sort of the reversed row: equal ones in the order of their numbers.
    order = rows.shape[1] - 1 - np.argsort(rows[:, ::-1], axis=1, kind="stable")[:, ::-1]
    best = order[:, : output.classes]
    named = len(labels) == rows.shape[1]
    spelled = [
        _spell_class(rows[row, index], int(index), labels[index] if named else "")
        for row, indices in enumerate(best)
        for index in indices
    ]
    classes: Array = np.empty(len(spelled), np.object_)
    classes[:] = spelled
    return classes.reshape(best.shape if batched else -1)


def _spell_class(value: Any, index: int, label: str) -> bytes:
    number = f"{value:f}" if value.dtype.kind == "f" else str(value)
    return f"{number}:{index}:{label}".encode() if label else f"{number}:{index}".encode()


def _whole(parameters: Mapping[str, Any], name: str) -> int:
    value = parameters.get(name, 0)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise InvalidInput(f"expected the parameter '{name}' as a whole number of 0 or more, received {value!r:.40}")
    return value


def _flag(parameters: Mapping[str, Any], name: str) -> bool | None:
    value = parameters.get(name)
    if value is not None and not isinstance(value, bool):
        raise InvalidInput(f"expected the parameter '{name}' as true or false, received {value!r:.40}")
    return value
