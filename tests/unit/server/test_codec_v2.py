import numpy as np
import pytest

from server.errors import InvalidInput
from server.tensors import Array, InferRequest, InferResponse
from server.transports.codecs.v2 import (
    V2Request,
    WantedOutput,
    read_output,
    read_parameters,
    read_version,
    select,
)

LABELS = ("cat", "dog", "frog")


def read(**parameters: object) -> V2Request:
    request = V2Request(InferRequest())
    read_parameters(request, parameters)
    return request


@pytest.mark.parametrize(
    ("level", "priority"), [(0, 0), (1, -99), (100, 0), (101, 1), (200, 100), (201, 0), (2**63, 0)]
)
def test_priority_1_goes_first_and_none_is_in_the_middle(level: int, priority: int) -> None:
    assert read(priority=level).infer.priority == priority


def test_a_timeout_is_microseconds() -> None:
    assert read(timeout=250_000).timeout_s == 0.25
    assert read(timeout=0).timeout_s is None
    assert read(timeout=2**64 - 1).timeout_s == 3600
    assert read().timeout_s is None


def test_unknown_parameters_are_let_be() -> None:
    assert read(sequence_id=3, whatever="x").binary is False


@pytest.mark.parametrize("parameters", [{"priority": "1"}, {"timeout": -1}, {"timeout": 1.5}, {"priority": True}])
def test_parameters_of_the_wrong_kind(parameters: dict[str, object]) -> None:
    with pytest.raises(InvalidInput, match="whole number"):
        read(**parameters)
    with pytest.raises(InvalidInput, match="true or false"):
        read(binary_data_output=1)


def test_versions() -> None:
    assert read_version("") is None
    assert read_version("12") == 12
    for text in ("0", "-1", "1.0", "x", "²", "9" * 30):
        with pytest.raises(InvalidInput, match="version"):
            read_version(text)


def test_what_is_wanted_of_an_output() -> None:
    assert read_output("p", {"classification": 3, "binary_data": False}) == WantedOutput("p", 3, binary=False)
    assert read_output("p", {}) == WantedOutput("p")
    with pytest.raises(InvalidInput, match="shares no memory"):
        read_output("p", {"shared_memory_region": "x"})


def classes(array: Array, count: int, labels: tuple[str, ...] = LABELS) -> Array:
    request = V2Request(InferRequest(), outputs=(WantedOutput("p", count),))
    (output,) = select(InferResponse("m", 1, "v", {"p": array}, labels=labels), request)
    assert output.datatype == "BYTES"
    return output.array


def test_classes_are_value_index_label_best_first() -> None:
    array = np.array([[0.1, 0.7, 0.2], [0.4, 0.4, 0.2]], np.float32)
    assert classes(array, 2).tolist() == [
        [b"0.700000:1:dog", b"0.200000:2:frog"],
        [b"0.400000:0:cat", b"0.400000:1:dog"],
    ]


def test_more_classes_than_there_are_means_all() -> None:
    assert classes(np.array([[1, 3, 2]], np.int32), 9).tolist() == [[b"3:1:dog", b"2:2:frog", b"1:0:cat"]]


def test_classes_without_names_of_their_own_have_their_numbers() -> None:
    assert classes(np.array([[0.5, 0.25]], np.float64), 1).tolist() == [[b"0.500000:0"]]


def test_an_output_without_rows_is_one_row() -> None:
    assert classes(np.array([0, 2, 1], np.uint8), 2).tolist() == [b"2:1:dog", b"1:2:frog"]


def test_values_that_are_not_numbers_sort_last_and_break_nothing() -> None:
    assert classes(np.array([[np.nan, 0.5, 0.25]], np.float32), 3).shape == (1, 3)


@pytest.mark.parametrize("array", [np.array([[True]]), np.array([[b"a"]], object), np.empty((0, 3), np.float32)])
def test_an_output_without_classes(array: Array) -> None:
    with pytest.raises(InvalidInput, match="classification"):
        classes(array, 1)


def test_every_output_is_given_where_none_is_asked_for() -> None:
    outputs: dict[str, Array] = {"a": np.zeros(1, np.int8), "b": np.zeros(1, np.float16)}
    response = InferResponse("m", 1, "v", outputs)
    selected = select(response, V2Request(InferRequest(), binary=True))
    assert [(output.name, output.datatype, output.binary) for output in selected] == [
        ("a", "INT8", True),
        ("b", "FP16", True),
    ]
    asked = V2Request(InferRequest(), outputs=(WantedOutput("b", binary=False), WantedOutput("a")), binary=True)
    assert [(output.name, output.binary) for output in select(response, asked)] == [("b", False), ("a", True)]
