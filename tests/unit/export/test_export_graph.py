"""Clean-up passes on small graphs made by hand."""

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from export import graph
from export.verify import answer, open_session

RNG = np.random.default_rng(0)
WEIGHT = RNG.normal(size=(2, 3, 3, 3)).astype(np.float32)
DENSE = RNG.normal(size=(72, 4)).astype(np.float32)


def classifier(prefix: str = "a", *, shuffled: bool = False) -> ModelProto:
    """As tf2onnx writes one: scaling in floats, the transpose after it, a flatten with a computed shape."""
    make, p = helper.make_node, prefix
    nodes = [
        make("Cast", ["image"], [f"{p}1"], name=f"{p}cast", to=TensorProto.FLOAT),
        make("Mul", [f"{p}1", f"{p}scale"], [f"{p}2"], name=f"{p}mul"),
        make("Add", [f"{p}2", f"{p}zero"], [f"{p}3"], name=f"{p}add"),
        make("Transpose", [f"{p}3"], [f"{p}4"], name=f"{p}layout", perm=[0, 3, 1, 2]),
        make("Conv", [f"{p}4", f"{p}weight"], [f"{p}5"], name=f"{p}conv"),
        make("Shape", [f"{p}5"], [f"{p}6"], name=f"{p}shape"),
        make("Slice", [f"{p}6", f"{p}from", f"{p}to"], [f"{p}7"], name=f"{p}slice"),
        make("Concat", [f"{p}7", f"{p}width"], [f"{p}8"], name=f"{p}concat", axis=0),
        make("Reshape", [f"{p}5", f"{p}8"], [f"{p}9"], name=f"{p}flatten"),
        make("MatMul", [f"{p}9", f"{p}dense"], [f"{p}10"], name=f"{p}matmul"),
        make("Softmax", [f"{p}10"], ["probabilities"], name=f"{p}softmax"),
    ]
    if shuffled:  # another order that is just as valid
        nodes = [*nodes[:5], *nodes[5:8], *nodes[8:]]
        nodes.insert(0, helper.make_node("Identity", [f"{p}zero"], [f"{p}unused"], name=f"{p}dead"))
    values = {
        "scale": np.float32(1 / 255), "zero": np.float32(0), "weight": WEIGHT, "dense": DENSE,
        "from": np.array([0], np.int64), "to": np.array([1], np.int64), "width": np.array([72], np.int64),
    }  # fmt: skip
    ordered = reversed(values.items()) if shuffled else values.items()
    model = helper.make_model(
        helper.make_graph(
            nodes, prefix,
            [helper.make_tensor_value_info("image", TensorProto.UINT8, ["unk__1", 8, 8, 3])],
            [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["unk__2", 4])],
            [numpy_helper.from_array(np.asarray(value), p + name) for name, value in ordered],
        ),
        opset_imports=[helper.make_opsetid("", 17)], ir_version=8,
    )  # fmt: skip
    onnx.checker.check_model(model)
    return model


def pixels(rows: int) -> np.ndarray:
    return np.random.default_rng(rows).integers(0, 256, (rows, 8, 8, 3), np.uint8)


def test_tidy_moves_bytes_and_computes_no_shape() -> None:
    before, after = classifier(), graph.tidy(classifier())
    onnx.checker.check_model(after, full_check=True)
    assert [node.op_type for node in after.graph.node] == [
        "Transpose", "Cast", "Mul", "Conv", "Reshape", "MatMul", "Softmax",
    ]  # fmt: skip
    assert after.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    for rows in (1, 5):
        expected = answer(open_session(before.SerializeToString()), pixels(rows))
        assert np.array_equal(answer(open_session(after.SerializeToString()), pixels(rows)), expected)


def test_tidy_does_not_depend_on_names_or_order() -> None:
    first = graph.tidy(classifier("a"), {"k": "v"}).SerializeToString()
    assert graph.tidy(classifier("zz", shuffled=True), {"k": "v"}).SerializeToString() == first


def test_what_no_output_needs_is_dropped() -> None:
    model = graph.canonical(classifier(shuffled=True))
    assert "Identity" not in graph.operators(model)
    assert {tensor.name for tensor in model.graph.initializer} >= {"Conv_0.weight", "MatMul_0.weight"}


def test_pixel_chain_reads_the_scaling() -> None:
    chain = graph.pixel_chain(classifier())
    assert chain is not None
    assert chain.casts
    assert chain.source == "image"
    assert chain.output == "a4"
    assert (chain.scale, chain.offset) == pytest.approx((1 / 255, 0.0))


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([("Div", 127.5), ("Sub", 1.0)], (1 / 127.5, -1.0)),
        ([("Sub", 128.0), ("Mul", 2.0)], (2.0, -256.0)),
        (
            [("Mul", np.array([1.0, 2.0, 3.0], np.float32))],
            (1.0, 0.0),
        ),  # one factor a channel: the chain ends before it
    ],
)
def test_pixel_chain_multiplies_out(steps: list[tuple[str, object]], expected: tuple[float, float]) -> None:
    nodes = [helper.make_node("Cast", ["image"], ["v0"], name="cast", to=TensorProto.FLOAT)]
    constants = []
    for index, (kind, number) in enumerate(steps):
        constants.append(numpy_helper.from_array(np.asarray(number, np.float32), f"c{index}"))
        nodes.append(helper.make_node(kind, [f"v{index}", f"c{index}"], [f"v{index + 1}"], name=f"n{index}"))
    nodes.append(helper.make_node("Softmax", [f"v{len(steps)}"], ["probabilities"], name="end"))
    shape: list[str | int | None] = ["b", 8, 8, 3]
    model = helper.make_model(
        helper.make_graph(
            nodes, "g", [helper.make_tensor_value_info("image", TensorProto.UINT8, shape)],
            [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, shape)], constants,
        )
    )  # fmt: skip
    chain = graph.pixel_chain(model)
    assert chain is not None
    assert (chain.scale, chain.offset) == pytest.approx(expected)
