"""Numbers in JSON are read in two ways, by NumPy and by a parser, and nobody can tell which it was."""

import json
from collections.abc import Callable
from itertools import accumulate
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from server.errors import InvalidInput
from server.transports.codecs import json_boxes, plain, tfserving_json, v2_json
from tests.unit.server.tfserving_models import PICTURES, TABLE

DATA = json_boxes.pattern_of("data")

shapes = st.lists(st.integers(1, 4), min_size=1, max_size=5)
spacings = st.sampled_from([(",", ":"), (", ", ": ")])
edits = st.lists(
    st.tuples(st.integers(0, 10**6), st.integers(0, 2), st.sampled_from([*'[]{},:0123456789 \n.-+eE"\\']).map(str)),
    max_size=3,
)


def boxes(shape: list[int], largest: int, random: Any) -> Any:
    flat: list[Any] = [random.choice([0, 7, 10, 99, 100, random.randint(0, largest)]) for _ in range(np.prod(shape))]
    return np.array(flat).reshape(shape).tolist()


def edited(text: str, changes: list[tuple[int, int, str]]) -> bytes:
    """Cuts characters out and puts others in: what is left is nearly JSON."""

    def change(text: str, step: tuple[int, int, str]) -> str:
        place = step[0] % len(text)
        return text[:place] + step[2] + text[place + step[1] :]

    return [*accumulate(changes, change, initial=text)][-1].encode()


def told(read: Callable[[bytes], Any], body: bytes) -> Any:
    """What a reader makes of a body: arrays with their types, or its message."""
    try:
        infer, *rest = read(body)
    except InvalidInput as error:
        return str(error)
    arrays = {"": infer.numbers.values} if infer.numbers is not None else infer.inputs
    scale = infer.numbers.scale if infer.numbers is not None else None
    return [(name, array.dtype, array.shape, array.tolist()) for name, array in arrays.items()], scale, rest


def read_plain(body: bytes) -> Any:
    return plain.decode_request(body, "application/json")


def read_v2(body: bytes) -> Any:
    request = v2_json.decode_request(body, None)
    return request.infer, request.id, request.outputs, request.binary


def read_tfserving(body: bytes) -> Any:
    requests = [tfserving_json.decode_predict(body, model) for model in (TABLE, PICTURES)]
    return requests[0].infer, *told(lambda _: (requests[1].infer,), body), requests[0].rows


def assert_both_ways_alike(read: Callable[[bytes], Any], body: bytes) -> None:
    quick = told(read, body)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_boxes, "loads", lambda *_: None)
        assert told(read, body) == quick


@given(shapes, st.sampled_from([255, 300]), st.randoms(use_true_random=False), spacings, edits)
@example([2, 2], 255, None, (",", ":"), [])
def test_predict_reads_the_same_both_ways(
    shape: list[int], largest: int, random: Any, spacing: tuple[str, str], changes: list[tuple[int, int, str]]
) -> None:
    data = boxes(shape, largest, random) if random else [[1, 2], [3, 4]]
    document = {"scale": "0-255", "data": data, "top_k": 3}
    assert_both_ways_alike(read_plain, edited(json.dumps(document, separators=spacing), changes))


@given(
    shapes,
    st.randoms(use_true_random=False),
    spacings,
    edits,
    st.sampled_from(["UINT8", "INT8", "INT32", "FP16", "FP32", "UINT64", "BOOL", "BYTES", "FP8"]),
    st.booleans(),
)
def test_v2_reads_the_same_both_ways(
    shape: list[int],
    random: Any,
    spacing: tuple[str, str],
    changes: list[tuple[int, int, str]],
    datatype: str,
    flat: bool,  # noqa: FBT001
) -> None:
    values = boxes([int(np.prod(shape))] if flat else shape, 255, random)
    tensor = {"name": "x", "shape": shape, "datatype": datatype, "data": values}
    document = {"id": "7", "inputs": [tensor], "outputs": [{"name": "y"}]}
    assert_both_ways_alike(read_v2, edited(json.dumps(document, separators=spacing), changes))


@given(shapes, st.randoms(use_true_random=False), spacings, edits, st.sampled_from(["instances", "inputs"]))
def test_tfserving_reads_the_same_both_ways(
    shape: list[int], random: Any, spacing: tuple[str, str], changes: list[tuple[int, int, str]], key: str
) -> None:
    document = {"signature_name": "", key: boxes(shape, 255, random)}
    assert_both_ways_alike(read_tfserving, edited(json.dumps(document, separators=spacing), changes))


@given(shapes, st.randoms(use_true_random=False), spacings)
def test_bytes_in_boxes_are_read_without_a_parser(shape: list[int], random: Any, spacing: tuple[str, str]) -> None:
    data = boxes(shape, 255, random)
    text = json.dumps({"data": data, "top_k": 1}, separators=spacing).encode()
    document = json_boxes.loads(text, DATA, lambda document: (document,))
    assert document is not None
    assert document.pop("data").tolist() == data
    assert document == {"top_k": 1}


@pytest.mark.parametrize(
    "array",
    [
        "[1,2,]",
        "[1,,2]",
        "[1,01]",
        "[1,00]",
        "[1,256]",
        "[1,1000]",
        "[1,-1]",
        "[1,1.0]",
        "[1,1e1]",
        "[1,true]",
        "[1,null]",
        "[1 2]",
        "[1, ,2 3]",
        "[]",
        "[[]]",
        "[[1],[]]",
        "[[1,2],[3]]",
        "[[1,2]3,[4,5]]",
        "[1[,2],[3,4]]",
        "[[1,2],[3,4]",
        "[[1,2],3]",
        "[" * 9 + "1" + "]" * 9,
    ],
)
def test_everything_else_is_for_the_parser(array: str) -> None:
    assert json_boxes.loads(f'{{"data":{array}}}'.encode(), DATA, lambda document: (document,)) is None


@pytest.mark.parametrize(
    "text",
    [
        '{"data":[1],"data":2}',
        '{"other":{"data":[1]}}',
        '{"x\\"data":[1]}',
        '{"data":[1],"x":"the numbers that were read apart"}',
        '{"data":[1],"data":"the num\\u0062ers that were read apart"}',
        '{"data":[1],"x":[2,3]}x',
        '{"x":"' + "y" * json_boxes.HEAD_BYTES + '","data":[1]}',
        '{"data":[1],"x":"' + "y" * json_boxes.TAIL_BYTES + '"}',
        '["data":[1]]',
    ],
)
def test_a_box_that_may_be_another_one_is_for_the_parser(text: str) -> None:
    assert json_boxes.loads(text.encode(), DATA, lambda document: (document,)) is None


def test_a_picture_of_any_bytes() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    body = orjson.dumps({"data": pixels.tolist()})
    document = json_boxes.loads(body, DATA, lambda document: (document,))
    assert document is not None
    assert np.array_equal(document["data"], pixels)
