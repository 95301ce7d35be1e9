import base64
import json
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.errors import InvalidInput, ShoalError
from server.tensors import InferResponse
from server.transports.codecs.plain import decode_request, encode_response, read_top_k


def decode(document: Any, content_type: str = "application/json") -> Any:
    return decode_request(json.dumps(document).encode(), content_type)


def answer(*rows: list[float], labels: tuple[str, ...] = ("cat", "dog", "frog")) -> InferResponse:
    return InferResponse("pets", 7, "int8", {"probabilities": np.array(rows, np.float32)}, labels=labels)


# ---- decode ----


def test_numbers_keep_their_shape_and_their_scale() -> None:
    plain = decode({"data": [[[1, 2], [3, 255]]], "scale": "0-255", "top_k": 3})
    assert plain.infer.numbers.values.tolist() == [[[1, 2], [3, 255]]]
    assert plain.infer.numbers.values.dtype == np.uint8
    assert plain.infer.numbers.scale == "0-255"
    assert plain.top_k == 3


@pytest.mark.parametrize("data", [[0.5, 1], [256, 0], [-1, 0], [1.0, 2.0], [10**18, 0], [1e300, 0]])
def test_numbers_beyond_bytes_are_floats(data: list[float]) -> None:
    values = decode({"data": data}).infer.numbers.values
    assert values.dtype == np.float64
    assert values.tolist() == data


@given(
    st.integers(1, 4).flatmap(lambda depth: st.tuples(*[st.integers(1, 4)] * depth)),
    st.sampled_from([np.uint8, np.int16, np.float64]),
    st.randoms(use_true_random=False),
)
def test_any_box_of_numbers_comes_through(shape: tuple[int, ...], dtype: type, random: Any) -> None:
    numbers = [random.randrange(200) for _ in range(int(np.prod(shape)))]
    values: Any = np.array(numbers, dtype).reshape(shape)
    decoded = decode({"data": values.tolist()}).infer.numbers.values
    assert decoded.shape == shape
    assert np.array_equal(decoded, values)


nested = st.recursive(
    st.one_of(
        st.integers(-5, 300), st.floats(allow_nan=False, allow_infinity=False), st.text(), st.none(), st.booleans()
    ),
    lambda children: st.one_of(st.lists(children, max_size=4), st.dictionaries(st.text(), children, max_size=2)),
    max_leaves=12,
)


@given(nested)
def test_any_json_gives_an_array_or_a_clear_error(data: Any) -> None:
    try:
        values = decode({"data": data}).infer.numbers.values
    except InvalidInput:
        return
    assert values.shape == np.array(data, float).shape


@given(
    st.binary(max_size=300), st.sampled_from(["", "application/json", "image/png", "multipart/form-data; boundary=x"])
)
def test_any_bytes_give_a_request_or_our_error(body: bytes, content_type: str) -> None:
    try:
        plain = decode_request(body, content_type)
    except ShoalError:
        return
    assert plain.infer.images or plain.infer.numbers is not None


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (
            [[1, 2], [3]],
            "shape [2, 2] throughout by its first element, received a list of 1 in place of 2 at data[1]",
        ),
        ([[[1, 2]], [[3, 4, 5]]], "received a list of 3 in place of 2 at data[1][0]"),
        ([[1, 2], 3], "received the number 3 in place of a list of 2 at data[1]"),
        ([1, [2]], "received a list of 1 at data[1]"),
        ([[[1, 2]], [[[3], 4]]], "received a list of 1 at data[1][0][0]"),
        ([[[[[1]]]]], "at most 4 deep, received 5 levels"),
        ([], "an empty list"),
        ([[], []], "empty lists: shape [2, 0]"),
        ([1, "2"], "the text '2'"),
        ([[1, None]], "null"),
        ([0.5, True], "true or false"),
        ([{}, {}], "an object"),
        (["x" * 100_000, *[1] * 50], "the text 'xxxx"),
        (None, "null"),
        (5, "the number 5"),
    ],
)
def test_what_is_no_box_of_numbers_is_refused_where_it_goes_wrong(data: Any, words: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        decode({"data": data})
    assert words in str(raised.value)
    assert len(str(raised.value)) < 250


def test_base64_pictures_bare_and_as_data_urls() -> None:
    text = base64.b64encode(b"pixels").decode()
    assert decode({"images": [text, f"data:image/png;base64,{text}"]}).infer.images == (b"pixels", b"pixels")


@pytest.mark.parametrize("images", [[], "abc", [1], ["*"], [""], ["data:image/png;base64,"], [None]])
def test_base64_that_is_none(images: Any) -> None:
    with pytest.raises(InvalidInput, match="images"):
        decode({"images": images})


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({}, "both or neither"),
        ({"data": [1], "images": ["aa"]}, "both or neither"),
        ({"data": [1], "extra": 1}, "'extra'"),
        ({"data": [1], "scale": 1}, "scale"),
        ({"data": [1], "scale": ["0-1"]}, "scale"),
        ([1, 2], "a list of 2"),
        ("text", "the text 'text'"),
    ],
)
def test_documents_of_another_form(document: Any, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        decode(document)


def test_the_content_decides_where_the_type_does_not() -> None:
    body = b' {"data": [5, 6]}'
    for content_type in ("", "text/plain", "application/x-www-form-urlencoded", "application/octet-stream"):
        assert decode_request(body, content_type).infer.numbers is not None
    assert decode_request(body, "image/png").infer.images == (body,)
    assert decode_request(b"\x89PNG", "Application/Octet-Stream; x=y").infer.images == (b"\x89PNG",)
    with pytest.raises(InvalidInput, match="JSON"):
        decode_request(b"\x89PNG", "application/vnd.api+json")
    with pytest.raises(InvalidInput, match="empty body"):
        decode_request(b"", "application/json")


FORM = "multipart/form-data; boundary=limit"


def form(*parts: tuple[str, bytes]) -> bytes:
    pieces = [
        f"--limit\r\nContent-Disposition: form-data; {about}\r\n\r\n".encode() + content for about, content in parts
    ]
    return b"\r\n".join([*pieces, b"--limit--"])


def test_a_form_brings_files_under_any_name_and_options() -> None:
    body = form(('name="a"; filename="a.png"', b"1"), ('name="top_k"', b"3"), ('name="b"', b"2"))
    plain = decode_request(body, FORM)
    assert plain.infer.images == (b"1", b"2")
    assert plain.top_k == 3


def test_a_file_may_be_called_like_an_option() -> None:
    assert decode_request(form(('name="top_k"; filename="x.png"', b"1")), FORM).infer.images == (b"1",)


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ([('name="a"; filename="a.png"', b"")], "'a', received no bytes"),
        ([('name="top_k"', b"3")], "at least one file"),
        ([('name="top_k"', b"x")], "top_k"),
    ],
)
def test_forms_without_pictures(parts: list[tuple[str, bytes]], words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        decode_request(form(*parts), FORM)


@pytest.mark.parametrize("value", [1, 1000, "7"])
def test_top_k(value: object) -> None:
    assert read_top_k(value) == int(str(value))


@pytest.mark.parametrize("value", [0, 1001, -1, 1.5, True, None, "", "x", "9" * 5000, "٣"])
def test_top_k_that_is_none(value: object) -> None:
    with pytest.raises(InvalidInput, match="top_k"):
        read_top_k(value)


# ---- encode ----


def test_an_answer_has_every_documented_field() -> None:
    document = orjson.loads(encode_response(answer([0.1, 0.7, 0.2], [0.5, 0.25, 0.25]), None, "id-1"))
    assert document == {
        "predictions": [1, 0],
        "labels": ["dog", "cat"],
        "confidence": [0.7, 0.5],
        "probabilities": [[0.1, 0.7, 0.2], [0.5, 0.25, 0.25]],
        "model": "pets",
        "version": 7,
        "variant": "int8",
        "request_id": "id-1",
    }


def test_top_lists_the_best_first_and_equal_ones_in_order() -> None:
    document = orjson.loads(encode_response(answer([0.25, 0.5, 0.25]), 2, ""))
    assert document["top"] == [
        [{"class": 1, "label": "dog", "probability": 0.5}, {"class": 0, "label": "cat", "probability": 0.25}]
    ]
    assert len(orjson.loads(encode_response(answer([0.2, 0.5, 0.3]), 99, ""))["top"][0]) == 3
    assert [entry["class"] for entry in orjson.loads(encode_response(answer([0.2, 0.5, 0.3]), 1, ""))["top"][0]] == [1]


def test_equal_ones_keep_their_order_however_many_there_are() -> None:
    levels = [0.5 if number % 3 else 0.25 for number in range(200)]
    top = orjson.loads(encode_response(answer(levels), 200, ""))["top"][0]
    expected = [number for number in range(200) if number % 3] + list(range(0, 200, 3))
    assert [entry["class"] for entry in top] == expected


def test_a_class_without_a_name_goes_by_its_number() -> None:
    assert orjson.loads(encode_response(answer([0.1, 0.9], labels=("cat",)), None, ""))["labels"] == ["1"]


def test_memory_in_any_order_is_written() -> None:
    response = answer([0.1, 0.9])
    response.outputs = {"p": np.asfortranarray(np.array([[0.1, 0.9], [0.8, 0.2]], np.float32))}
    assert orjson.loads(encode_response(response, None, ""))["predictions"] == [1, 0]


@pytest.mark.parametrize("output", [np.zeros(3, np.float32), np.zeros((1, 3), np.int64), np.zeros((1, 0), np.float32)])
def test_a_model_that_is_no_classifier_is_refused(output: Any) -> None:
    response = answer([0.5])
    response.outputs = {"boxes": output}
    with pytest.raises(InvalidInput, match="'boxes'"):
        encode_response(response, None, "")
