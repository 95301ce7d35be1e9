"""Models as other tools export them, with no manifest: several inputs and every datatype."""

from pathlib import Path

import onnx
from onnx import TensorProto, helper

Tensor = tuple[str, str, list[str | int | None]]  # name, datatype, shape

DATATYPES = {
    "BOOL": TensorProto.BOOL,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64,
    "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "FP16": TensorProto.FLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "BYTES": TensorProto.STRING,
}


def write_models(models: Path) -> None:
    """Writes `sum`, `wide`, `fixed` and one `echo_<datatype>` for each datatype.

    `sum` is the pair of INT32[-1, 16] whose sum and difference Triton's own examples ask for; `wide` answers 2,000
    numbers for one; `fixed` takes no rows but one INT64[2, 3]; an echo answers BYTES or numbers [-1, 2] as they came.
    """
    pair: list[Tensor] = [("INPUT0", "INT32", ["n", 16]), ("INPUT1", "INT32", ["n", 16])]
    results: list[Tensor] = [("OUTPUT0", "INT32", ["n", 16]), ("OUTPUT1", "INT32", ["n", 16])]
    nodes = [("Add", ["INPUT0", "INPUT1"], "OUTPUT0"), ("Sub", ["INPUT0", "INPUT1"], "OUTPUT1")]
    _write(models, "sum", pair, results, nodes)
    tile = ("Tile", ["x", "repeats"], "y")
    _write(models, "wide", [("x", "FP32", ["n", 1])], [("y", "FP32", ["n", 2000])], [tile], repeats=[1, 2000])
    _write(models, "fixed", [("x", "INT64", [2, 3])], [("y", "INT64", [2, 3])], [("Neg", ["x"], "y")])
    for name in DATATYPES:
        _write(models, f"echo_{name}", [("x", name, ["n", 2])], [("y", name, ["n", 2])], [("Identity", ["x"], "y")])


def _write(
    models: Path,
    name: str,
    inputs: list[Tensor],
    outputs: list[Tensor],
    nodes: list[tuple[str, list[str], str]],
    **constants: list[int],
) -> None:
    graph = helper.make_graph(
        [helper.make_node(kind, sources, [target]) for kind, sources, target in nodes],
        name,
        [helper.make_tensor_value_info(tensor, DATATYPES[kind], shape) for tensor, kind, shape in inputs],
        [helper.make_tensor_value_info(tensor, DATATYPES[kind], shape) for tensor, kind, shape in outputs],
        [helper.make_tensor(key, TensorProto.INT64, [len(value)], value) for key, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    folder = models / name / "1"
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
