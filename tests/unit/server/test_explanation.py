import asyncio
import functools
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import ParamSpec

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.activation_map import add_activation_map, find_head, map_shape
from export.manifest import file_entry
from server.batcher import BatcherOptions
from server.bundle import Bundle, read_bundle
from server.deadline import Deadline
from server.decode_pool import DecodePool
from server.errors import DeadlineExceeded, InvalidInput, ModelNotReady, NoActivationMap, Overloaded
from server.executor import ExecutorOptions
from server.explanation import (
    MAX_UNDER_WAY,
    Explainer,
    ExplainRequest,
    Explanation,
    explain,
    explainer_of,
    find_class,
    heat_of,
)
from server.tensors import Array
from server.versions import LoadOptions, load_version
from tests.unit.server.bundle_factory import read_manifest, write_manifest
from tests.wire.bundles import LABELS, activation_map, expected_probabilities, picture, write_bundle

LONG_AGO = Deadline(0.0)
P = ParamSpec("P")


def on_loop(test: Callable[P, Coroutine[None, None, None]]) -> Callable[P, None]:
    """Runs a test on an event loop of its own."""

    @functools.wraps(test)
    def run(*arguments: P.args, **fixtures: P.kwargs) -> None:
        asyncio.run(test(*arguments, **fixtures))

    return run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_bundle(tmp_path, "grey", 3, explained=True)


@pytest.fixture
def bundle(folder: Path) -> Bundle:
    return read_bundle(folder)


@pytest.fixture
def explainer(bundle: Bundle) -> Explainer:
    made = explainer_of(bundle)
    assert made is not None
    return made


@pytest.fixture
def pool() -> Iterator[DecodePool]:
    made = DecodePool(1, max_pixels=10_000)
    yield made
    made.close()


def is_loaded(explainer: Explainer) -> bool:
    return explainer.loaded  # through a function, because the checker takes an attribute to stay as it was


def gradient() -> Array:
    return np.arange(64, dtype=np.uint8).reshape(1, 8, 8, 1) * 4


@pytest.mark.parametrize(
    ("scores", "heat"),
    [
        ([[-4.0, 0.0], [1.0, 4.0]], [[0.0, 0.0], [0.25, 1.0]]),
        ([[2.0, 3.0], [4.0, 6.0]], [[0.0, 0.25], [0.5, 1.0]]),
        ([[-4.0, -3.0]], [[0.0, 0.0]]),  # nothing speaks for it
        ([[5.0, 5.0]], [[0.0, 0.0]]),  # no place more than another
    ],
)
def test_a_map_is_shares_of_the_strongest_place(scores: list[list[float]], heat: list[list[float]]) -> None:
    made = heat_of(np.array(scores, np.float32))
    assert made.dtype == np.float32
    assert made.tolist() == heat


@pytest.mark.parametrize(("wanted", "index"), [(None, 1), ("bright", 2), ("0", 0), (2, 2), ("dark", 0)])
def test_a_class_is_found_by_label_and_by_number(bundle: Bundle, wanted: str | int | None, index: int) -> None:
    assert find_class(wanted, bundle, np.array([0.1, 0.7, 0.2])) == index


@pytest.mark.parametrize("wanted", ["", "3", -1, 3, "Bright", "²", "9" * 30])
def test_a_class_that_is_none_is_refused_with_what_there_is(bundle: Bundle, wanted: str | int) -> None:
    with pytest.raises(InvalidInput, match=r"a label of 'grey' \(such as 'dark'\) or a number from 0 to 2"):
        find_class(wanted, bundle, np.array([0.1, 0.7, 0.2]))


def test_a_label_that_reads_as_a_number_is_the_label(folder: Path) -> None:
    manifest = read_manifest(folder)
    manifest.labels[:] = ["2", "1", "0"]
    write_manifest(folder, manifest)
    swapped = read_bundle(folder)
    assert find_class("2", swapped, np.zeros(3)) == 0
    assert find_class(2, swapped, np.zeros(3)) == 2


@on_loop
async def test_the_graph_is_loaded_by_the_first_request_and_freed_at_the_end(explainer: Explainer) -> None:
    assert not is_loaded(explainer)
    maps = await explainer.maps(gradient())
    assert is_loaded(explainer)
    np.testing.assert_allclose(maps.probabilities, expected_probabilities(float(gradient().mean())), atol=1e-5)
    for index in range(len(LABELS)):
        np.testing.assert_allclose(maps.scores[..., index], activation_map(gradient()[0], index), atol=1e-4)
    assert maps.infer_s > 0
    await explainer.close()
    assert not is_loaded(explainer)


@on_loop
async def test_only_so_many_wait_for_a_map(explainer: Explainer) -> None:
    waiting = [asyncio.create_task(explainer.maps(gradient())) for _ in range(MAX_UNDER_WAY)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded, match=f"at most {MAX_UNDER_WAY} requests at a time"):
        await explainer.maps(gradient())
    await asyncio.gather(*waiting)
    await explainer.maps(gradient())  # there is room again
    await explainer.close()


@on_loop
async def test_a_picture_whose_turn_comes_too_late_is_not_computed(explainer: Explainer) -> None:
    with pytest.raises(DeadlineExceeded):
        await explainer.maps(gradient(), LONG_AGO)
    await explainer.maps(gradient())
    await explainer.close()


@on_loop
async def test_a_caller_who_leaves_while_the_graph_is_loaded_harms_nobody(explainer: Explainer) -> None:
    leaving = [asyncio.create_task(explainer.maps(gradient())) for _ in range(MAX_UNDER_WAY)]
    await asyncio.sleep(0)
    for task in leaving:
        task.cancel()
    ended = await asyncio.gather(*leaving, return_exceptions=True)
    assert all(isinstance(end, asyncio.CancelledError) for end in ended)
    assert (await explainer.maps(gradient())).scores.shape == (8, 8, 3)
    await explainer.close()


@on_loop
async def test_a_file_that_is_not_the_verified_one_is_not_loaded(folder: Path, explainer: Explainer) -> None:
    path = folder / "model.explain.onnx"
    right = path.read_bytes()
    path.write_bytes(right.replace(b"brightness", b"Brightness"))
    with pytest.raises(ModelNotReady, match="not the file that was verified"):
        await explainer.maps(gradient())
    path.unlink()
    with pytest.raises(ModelNotReady, match="cannot be read"):
        await explainer.maps(gradient())
    path.write_bytes(right)
    await explainer.maps(gradient())
    await explainer.close()


@on_loop
async def test_a_graph_without_the_promised_output_is_refused(folder: Path) -> None:
    manifest = read_manifest(folder)
    manifest.explanation.output.name = "heat"
    write_manifest(folder, manifest)
    explainer = explainer_of(read_bundle(folder))
    assert explainer is not None
    with pytest.raises(ModelNotReady, match=r"'probabilities' and 'heat' .* the graph has activation_map, prob"):
        await explainer.maps(gradient())
    assert not is_loaded(explainer)


def test_a_method_that_is_not_known_here_is_none(folder: Path) -> None:
    manifest = read_manifest(folder)
    manifest.explanation.method = "something newer"
    write_manifest(folder, manifest)
    assert explainer_of(read_bundle(folder)) is None


async def ask(bundle: Bundle, pool: DecodePool, wanted: str | None = None) -> Explanation:
    explainer = explainer_of(bundle)
    try:
        return await explain(bundle, explainer, ExplainRequest(picture(250), wanted=wanted), pool, lambda: 0.0)
    finally:
        if explainer is not None:
            await explainer.close()


@on_loop
async def test_an_answer_is_of_the_most_probable_class_or_the_wanted_one(bundle: Bundle, pool: DecodePool) -> None:
    best = await ask(bundle, pool)
    assert (best.model, best.version, best.index, best.label) == ("grey", 3, 2, "bright")
    assert best.probability == pytest.approx(expected_probabilities(250)[2], abs=1e-5)
    assert best.heat.shape == (8, 8)
    assert (await ask(bundle, pool, wanted="dark")).label == "dark"


@on_loop
async def test_a_bundle_without_a_map_says_so_and_what_to_do(tmp_path: Path, pool: DecodePool) -> None:
    with pytest.raises(NoActivationMap, match=r"'plain' version 1 brings no activation map.*occlusion"):
        await ask(read_bundle(write_bundle(tmp_path, "plain", 1)), pool)


@on_loop
async def test_a_version_owns_its_graph_until_it_is_retired(folder: Path) -> None:
    options = LoadOptions(ExecutorOptions(max_batch_rows=2), BatcherOptions(max_batch_rows=2))
    model = await load_version(folder, (), options)
    assert model.explainer is not None
    assert not is_loaded(model.explainer)  # nobody has asked
    with model.lease():
        await model.explainer.maps(gradient())
    assert is_loaded(model.explainer)
    await model.retire()
    assert not is_loaded(model.explainer)


@on_loop
async def test_what_export_writes_is_what_is_read_here(folder: Path) -> None:
    """Export's own addition to a network that ends as residual networks do, and a picture with a bright corner."""
    explained = exported(np.array([[4.0, -4.0]], np.float32), np.array([-1.0, 1.0], np.float32))
    path = folder / "model.explain.onnx"
    path.write_bytes(explained.SerializeToString())
    manifest = read_manifest(folder)
    manifest.explanation.graph.CopyFrom(file_entry(path))
    manifest.explanation.output.shape[:] = map_shape(explained)
    write_manifest(folder, manifest)
    explainer = explainer_of(read_bundle(folder))
    assert explainer is not None
    assert explainer.shape == (2, 2)
    pixels = np.zeros((1, 8, 8, 1), np.uint8)
    pixels[0, :4, 4:] = 255
    maps = await explainer.maps(pixels)
    await explainer.close()
    assert heat_of(maps.scores[..., 0]).tolist() == [[0.0, 1.0], [0.0, 0.0]]
    powers = np.exp(maps.scores.mean(axis=(0, 1)))
    np.testing.assert_allclose(maps.probabilities, powers / powers.sum(), atol=1e-6)


def exported(kernel: Array, bias: Array) -> onnx.ModelProto:
    """Mean of each 4 × 4 block, global average pooling, dense, softmax; and the map, as export adds it."""
    nodes = [
        helper.make_node("Transpose", ["image"], ["first"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["first"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["pixels", "scale"], ["scaled"]),
        helper.make_node("AveragePool", ["scaled"], ["features"], kernel_shape=[4, 4], strides=[4, 4]),
        helper.make_node("GlobalAveragePool", ["features"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"], axis=1),
        helper.make_node("Gemm", ["flat", "kernel", "bias"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    constants = {"scale": np.array(1 / 255, np.float32), "kernel": kernel, "bias": bias}
    graph = helper.make_graph(
        nodes,
        "corners",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", 8, 8, 1])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 2])],
        [numpy_helper.from_array(value, key) for key, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    head = find_head(model)
    assert head is not None
    return add_activation_map(model, head)
