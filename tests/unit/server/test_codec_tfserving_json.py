"""TensorFlow Serving's JSON: rows and columns, base64, classes; and nothing but InvalidInput for the rest."""

import base64
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.descriptions import ModelDescription
from server.errors import InvalidInput
from server.tensors import InferRequest
from server.transports.codecs.tfserving import TfRequest
from server.transports.codecs.tfserving_json import (
    decode_classify,
    decode_predict,
    encode_classify,
    encode_predict,
)
from tests.unit.server.tfserving_models import PAIR, PICTURES, TABLE, TEXTS, answer, texts

PICTURE = {"b64": base64.b64encode(b"a picture").decode()}
DEEP = "[" * 40 + "1" + "]" * 40


def predict(document: Any, model: ModelDescription = TABLE) -> TfRequest:
    return decode_predict(document.encode() if isinstance(document, str) else json.dumps(document).encode(), model)


def inputs_of(document: Any, model: ModelDescription = TABLE) -> dict[str, Any]:
    return {name: array.tolist() for name, array in predict(document, model).infer.inputs.items()}


@pytest.mark.parametrize(
    "document",
    [
        {"instances": [[1, 2.5], [3, 4]]},
        {"instances": [{"x": [1, 2.5]}, {"x": [3, 4]}], "signature_name": "serving_default"},
        {"inputs": [[1, 2.5], [3, 4]]},
        {"inputs": {"x": [[1, 2.5], [3, 4]]}, "signature_name": "", "parameters": {"of": "others"}},
    ],
)
def test_rows_and_columns_are_the_same_tensor(document: Any) -> None:
    assert inputs_of(document) == {"x": [[1, 2.5], [3, 4]]}
    request = predict(document)
    assert request.infer.inputs["x"].dtype == np.float32
    assert (request.rows, request.signature) == ("instances" in document, "serving_default")


def test_several_inputs() -> None:
    rows = {"instances": [{"a": [1, -2], "b": True}, {"a": [3, 4], "b": False}]}
    columns = {"inputs": {"a": [[1, -2], [3, 4]], "b": [True, False]}}
    assert inputs_of(rows, PAIR) == inputs_of(columns, PAIR) == {"a": [[1, -2], [3, 4]], "b": [True, False]}


@pytest.mark.parametrize(
    "document",
    [
        {"instances": [PICTURE, PICTURE]},
        {"instances": [{"image": PICTURE}] * 2},
        {"instances": [{"image_bytes": PICTURE}] * 2, "signature_name": "predict_images"},
        {"inputs": [PICTURE] * 2},
        {"inputs": {"image": [PICTURE] * 2}},
    ],
)
def test_encoded_pictures(document: Any) -> None:
    assert inputs_of(document, PICTURES) == {"image": [b"a picture"] * 2}


def test_one_picture_needs_no_list() -> None:
    assert inputs_of({"inputs": PICTURE}, PICTURES) == {"image": [b"a picture"]}


def test_pixels() -> None:
    pixels = [[[1], [2]], [[3], [255]]]
    request = predict({"instances": [pixels]}, PICTURES)
    assert request.infer.inputs["image"].dtype == np.uint8
    assert request.infer.inputs["image"].tolist() == [pixels]


def test_texts_and_bytes() -> None:
    assert inputs_of({"instances": ["é", PICTURE]}, TEXTS) == {"x": ["é".encode(), b"a picture"]}


@pytest.mark.parametrize(
    ("document", "model", "message"),
    [
        ("", TABLE, "expected JSON"),
        ("[]", TABLE, "a JSON object"),
        ({}, TABLE, 'either "instances"'),
        ({"instances": [1], "inputs": [1]}, TABLE, "received both or neither"),
        ({"instances": []}, TABLE, "a list of rows, received a list of 0"),
        ({"instances": {"x": 1}}, TABLE, "a list of rows, received an object"),
        ({"instances": [{"x": [1, 2]}, {"z": 1}]}, TABLE, "the inputs x in every row"),
        ({"instances": [{"x": [1, 2]}, 1]}, TABLE, "in every row as in the first"),
        ({"instances": [[1, 2], [3]]}, TABLE, "of one shape for 'x'"),
        ({"instances": [[1, 2], 3]}, TABLE, "of one shape for 'x'"),
        ({"instances": [[1, None]]}, TABLE, "expected FP32 values for 'x', received null"),
        ({"instances": [[1, True]]}, TABLE, "received true or false"),
        ({"instances": [["1", "2"]]}, TABLE, "received the text '1'"),
        ({"instances": [[1e300, 0]]}, TABLE, "fit FP32"),
        ({"inputs": {"z": 1}}, TABLE, "expected the inputs 'x' FP32.* received 'z'"),
        ({"instances": [1]}, PAIR, r"by name \('a', 'b'\)"),
        ({"inputs": {"a": [[128, 0]], "b": [True]}}, PAIR, "fit INT8"),
        ({"inputs": {"a": [[1.0, 0]], "b": [True]}}, PAIR, "expected INT8 values for 'a', received the number 1.0"),
        ({"inputs": {"a": [[1, 0]], "b": [1]}}, PAIR, "expected BOOL values"),
        ({"inputs": {"image": PICTURE, "image_bytes": PICTURE}}, PICTURES, "which are the same"),
        ({"instances": ["a picture"]}, PICTURES, "encoded pictures for 'image', received the text"),
        ({"inputs": {"image_bytes": [[1]]}}, PICTURES, "encoded pictures for 'image_bytes', received the number 1"),
        ({"instances": [0.5]}, PICTURES, "expected UINT8 values"),
        ({"instances": [{"b64": "?"}]}, PICTURES, "expected base64 for 'image'"),
        ({"instances": [{"b64": 1}]}, PICTURES, "received 'b64'"),
        ({"instances": [PICTURE | {"x": [1, 2]}]}, TABLE, "received 'b64'"),
        ({"inputs": {"x": [{"z": "a"}]}}, TEXTS, "expected text or .* for 'x', received an object"),
        ({"instances": ["a"], "signature_name": "predict_images"}, TEXTS, "the signatures serving_default here"),
        ({"instances": ["a"], "signature_name": 1}, TEXTS, '"signature_name" as text, received the number 1'),
        ('{"instances": ' + DEEP + "}", TABLE, "at most 32 deep"),
    ],
)
def test_bodies_that_are_refused(document: Any, model: ModelDescription, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        predict(document, model)


# ---- answers ----


def told(form: str, **outputs: Any) -> Any:
    return json.loads(encode_predict(answer(**outputs), TfRequest(InferRequest(), rows=form == "rows")))


def test_one_output_goes_without_its_name() -> None:
    y = np.array([[0.25, 0.75]], np.float32)
    assert told("rows", y=y) == {"predictions": [[0.25, 0.75]]}
    assert told("columns", y=y) == {"outputs": [[0.25, 0.75]]}
    assert told("columns", y=np.array(7)) == {"outputs": 7}


def test_several_outputs_go_by_name() -> None:
    outputs = {"y": np.array([[1, 2], [3, 4]], np.int8), "z": texts(b"a", b"b")}
    assert told("rows", **outputs) == {"predictions": [{"y": [1, 2], "z": "a"}, {"y": [3, 4], "z": "b"}]}
    assert told("columns", **outputs) == {"outputs": {"y": [[1, 2], [3, 4]], "z": ["a", "b"]}}


def test_bytes_that_are_no_text_are_base64() -> None:
    assert told("rows", z=texts(b"\xff", b"a")) == {"predictions": [{"b64": "/w=="}, {"b64": "YQ=="}]}
    assert told("rows", z_bytes=texts(b"a")) == {"predictions": [{"b64": "YQ=="}]}


def test_a_float_is_told_in_its_own_digits_and_none_where_json_has_no_word() -> None:
    y = np.array([0.1, np.nan, np.inf], np.float32)
    assert encode_predict(answer(y=y), TfRequest(InferRequest(), rows=True)) == b'{"predictions":[0.1,null,null]}'


@pytest.mark.parametrize("outputs", [{"y": np.array(1)}, {"y": np.zeros((2, 1)), "z": np.zeros(3)}])
def test_outputs_without_rows_take_the_column_form(outputs: Any) -> None:
    with pytest.raises(InvalidInput, match='send "inputs"'):
        told("rows", **outputs)


# ---- classify ----


def classify(document: Any, model: ModelDescription) -> InferRequest:
    return decode_classify(json.dumps(document).encode(), model).infer


def test_examples_of_features() -> None:
    infer = classify({"examples": [{"x": [1, 2.5]}, {"x": [3, 4]}]}, TABLE)
    assert infer.inputs["x"].tolist() == [[1, 2.5], [3, 4]]
    infer = classify({"context": {"z": []}, "examples": [{"x": "a"}, {"x": PICTURE}]}, TEXTS)
    assert infer.inputs["x"].tolist() == [b"a", b"a picture"]
    shared = classify({"context": {"image/encoded": PICTURE}, "examples": [{}, {}]}, PICTURES)
    assert shared.images == (b"a picture", b"a picture")


def test_results() -> None:
    response = answer(y=np.array([[0.25, 0.1]], np.float32))
    assert encode_classify(response) == b'{"results":[[["low",0.25],["high",0.1]]]}'


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({}, '"examples" as a list'),
        ({"examples": [], "context": 1}, '"context" as an object'),
        ({"examples": []}, "at least one example"),
        ({"examples": [1]}, "an object of features, received the number 1"),
        ({"examples": [{"x": [[1]]}]}, "received nested lists"),
        ({"examples": [{"x": [1, "a"]}]}, "only numbers, or only text"),
        ({"examples": [{"x": None}]}, "only numbers, or only text"),
        ({"examples": [{"x": [1, 2]}], "signature_name": "predict_images"}, "serving_default, classify here"),
    ],
)
def test_examples_that_are_refused(document: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        classify(document, TABLE)


# ---- whatever comes ----

leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**65), 2**65),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=3),
    st.builds(lambda data: {"b64": base64.b64encode(data).decode()}, st.binary(max_size=3)),
    st.builds(lambda text: {"b64": text}, st.text(max_size=3)),
)
names = st.sampled_from(["x", "a", "b", "image", "image_bytes", "image/encoded", "image_raw", "b64", "z"])
values = st.recursive(
    leaves,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(names, inner, max_size=3)),
    max_leaves=8,
)
bodies = st.dictionaries(
    st.sampled_from(["instances", "inputs", "examples", "context", "signature_name"]), values, max_size=3
).map(lambda document: json.dumps(document).encode())


@given(st.one_of(bodies, st.binary(max_size=20)), st.sampled_from([TABLE, TEXTS, PAIR, PICTURES]))
def test_any_body_is_read_or_refused(body: bytes, model: ModelDescription) -> None:
    for decode in (decode_predict, decode_classify):
        try:
            infer = decode(body, model).infer
        except InvalidInput:
            continue
        assert infer.inputs.keys() <= {spec.name for spec in model.inputs}
