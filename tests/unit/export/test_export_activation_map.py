"""The class-activation map adds up to the probabilities, and only networks that have one get one."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from export import activation_map, convert, explain, verify
from export.activation_map import MAP, add_activation_map, difference_from_probabilities, find_head
from export.exporter import Exporter
from export.graph import constants
from export.pipeline import Result
from export.run_folder import find_run
from export.settings import ExportSettings, Gates
from server.bundle import read_bundle

pytestmark = pytest.mark.slow


def pooled(keras: Any, *, bias: bool = True, channels: int = 3, between: tuple[Any, ...] = ()) -> Any:
    keras.utils.set_random_seed(3)
    layers = keras.layers
    body = [layers.Rescaling(1 / 255), layers.Conv2D(5, 3, activation="relu", strides=2), *between]
    head = [layers.GlobalAveragePooling2D(), layers.Dropout(0.2), layers.Dense(4, use_bias=bias, activation="softmax")]
    return keras.Sequential([layers.Input((9, 11, channels)), *body, *head])


@pytest.mark.parametrize("bias", [True, False])
def test_the_map_adds_up_to_the_probabilities(keras: Any, bias: bool) -> None:  # noqa: FBT001
    model = pooled(keras, bias=bias)
    graph = convert.to_onnx(model, opset=17)
    head = find_head(graph)
    assert head is not None
    before = graph.SerializeToString()
    explained = add_activation_map(graph, head)
    assert graph.SerializeToString() == before
    assert activation_map.map_shape(explained) == [-1, 4, 5, 4]
    assert [output.name for output in explained.graph.output] == ["probabilities", MAP]
    pixels = np.random.default_rng(0).integers(0, 256, (7, 9, 11, 3), np.uint8)
    probabilities, maps = verify.open_session(explained.SerializeToString()).run(None, {"image": pixels})
    assert maps.shape == (7, 4, 5, 4)
    assert np.abs(probabilities - convert.predict(model, pixels)).max() < 1e-5
    assert difference_from_probabilities(maps, probabilities) < 1e-5


def test_a_place_counts_where_its_features_are(keras: Any) -> None:
    graph = convert.to_onnx(pooled(keras), opset=17)
    head = find_head(graph)
    assert head is not None
    session = verify.open_session(add_activation_map(graph, head).SerializeToString())
    pixels = np.full((2, 9, 11, 3), 90, np.uint8)
    pixels[1, :2, :2] = 200  # only the first place sees these
    flat, spot = session.run([MAP], {"image": pixels})[0]
    changed = np.abs(spot - flat).sum(-1)
    assert changed[0, 0] > 0
    assert np.count_nonzero(changed) == 1


def test_a_network_with_another_end_has_none(keras: Any, keras_model: Any) -> None:
    assert find_head(convert.to_onnx(keras_model, opset=17)) is None  # it flattens
    layers = keras.layers
    for between in ([layers.Dense(6, activation="relu")], [layers.Dense(6, activation="tanh")]):
        body = [layers.Conv2D(5, 3), layers.GlobalAveragePooling2D(), *between]
        model = keras.Sequential([layers.Input((9, 9, 3)), *body, layers.Dense(4, activation="softmax")])
        assert find_head(convert.to_onnx(model, opset=17)) is None


class OneFolder:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, name: str, data: bytes) -> Path:
        (self.folder / name).write_bytes(data)
        return self.folder / name


def test_a_map_that_does_not_add_up_is_not_written(
    keras: Any, trained_runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = pooled(keras)
    graph = convert.to_onnx(model, opset=17)
    run = find_run(trained_runs, "tiny")
    holdout = type(run.rows("holdout"))(
        np.random.default_rng(0).integers(0, 256, (20, 9, 11, 3), np.uint8), np.zeros(20, np.int64)
    )
    reference = convert.predict(model, holdout.pixels)
    exporter = Exporter(run, ExportSettings(), Gates(), lambda _: None, holdout, reference)
    stage: Any = OneFolder(tmp_path)
    described = explain.write_explanation(exporter, stage, graph)
    assert described is not None
    assert (described.method, list(described.output.shape)) == ("cam", [-1, 4, 5, 4])
    honest = add_activation_map

    def spoiled(model: onnx.ModelProto, head: activation_map.Head) -> onnx.ModelProto:
        return honest(model, activation_map.Head(head.features, head.axes, head.kernel[:, ::-1], head.bias))

    monkeypatch.setattr(explain, "add_activation_map", spoiled)
    assert explain.write_explanation(exporter, stage, graph) is None
    assert "difference of a map's sum" in exporter.refusals["explain"][0]
    assert not (tmp_path / "model.explain.onnx").exists()


def test_the_server_finds_it_in_the_manifest_and_no_variant_is_one(
    exported_pooled: Result,
) -> None:
    bundle = read_bundle(exported_pooled.folder)
    assert bundle.explanation is not None
    assert bundle.explanation.path == exported_pooled.folder / "model.explain.onnx"
    assert "explain" not in {variant.name for variant in bundle.variants}
    described = exported_pooled.manifest.explanation
    assert (described.output.name, list(described.output.shape)) == (MAP, [-1, 2, 2, 10])
    assert constants(onnx.load(bundle.explanation.path))
