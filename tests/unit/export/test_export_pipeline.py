"""Real conversions of a really trained model: what is in a bundle, and what never gets into one."""

import hashlib
import json
import resource
import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, numpy_helper

from export import bundle, convert, quantize, signing, verify
from export.__main__ import main
from export.check import check_bundle
from export.errors import ExportError, GateFailed
from export.exporter import FILES
from export.pipeline import Result, create
from export.run_folder import find_run
from export.settings import ExportSettings, Gates
from server.images import ImageSpec, decode

pytestmark = pytest.mark.slow


def export(runs: Path, models: Path, gates: Gates | None = None, **settings: Any) -> Result:
    chosen = ExportSettings(runs=runs, models=models, **{"pixel_groups": "off"} | settings)
    return create("tiny", "latest", chosen, gates or Gates(), print)


def spoiled(model: ModelProto, ending: str, factor: float) -> ModelProto:
    tensor = next(one for one in model.graph.initializer if one.name.endswith(ending))
    tensor.CopyFrom(numpy_helper.from_array((numpy_helper.to_array(tensor) * factor).astype(np.float32), tensor.name))
    return model


def test_the_manifest_tells_the_truth_about_every_file(exported: Result) -> None:
    manifest = bundle.read_manifest(exported.folder)
    assert manifest == exported.manifest
    assert [one.name for one in manifest.variants] == ["float32", "int8"]
    hashes = {one.file: one.sha256 for one in manifest.variants} | {manifest.golden.file: manifest.golden.sha256}
    hashes[manifest.sbom.file] = manifest.sbom.sha256
    assert len(hashes) == 4
    for name, expected in hashes.items():
        assert hashlib.sha256((exported.folder / name).read_bytes()).hexdigest() == expected
    assert [one.size_bytes for one in manifest.variants] == [
        (exported.folder / one.file).stat().st_size for one in manifest.variants
    ]
    assert {path.name for path in exported.folder.iterdir()} == {
        "model.onnx", "model.int8.onnx", "manifest.json", "export.json", "golden.npz", "sbom.cdx.json",
    }  # fmt: skip


def test_the_manifest_names_the_model_as_the_run_does(exported: Result) -> None:
    manifest = exported.manifest
    assert (manifest.schema, manifest.name, manifest.version) == (1, "tiny", 1)
    assert (manifest.inputs[0].name, manifest.inputs[0].datatype) == ("image", "UINT8")
    assert list(manifest.inputs[0].shape) == [-1, 8, 8, 1]
    assert (manifest.outputs[0].name, list(manifest.outputs[0].shape)) == ("probabilities", [-1, 10])
    assert list(manifest.labels) == [str(digit) for digit in range(10)]
    assert manifest.preprocessing.resize == "bilinear-antialias"
    assert manifest.training.run == "1"
    assert manifest.dataset.rows["train"] == 1_400
    assert set(manifest.tools) >= {"keras", "onnx", "onnxruntime", "tf2onnx"}


def test_the_written_files_answer_like_keras(exported: Result, trained_runs: Path, keras_model: Any) -> None:
    holdout = find_run(trained_runs, "tiny").rows("holdout")
    reference = convert.predict(keras_model, holdout.pixels)
    for variant in exported.manifest.variants:
        session = verify.open_session(str(exported.folder / variant.file))
        comparison = verify.compare(verify.answer(session, holdout.pixels), reference, holdout.labels)
        assert comparison.accuracy == variant.accuracy
        assert comparison.agreement == variant.agreement
        assert comparison.max_difference == pytest.approx(variant.max_abs_difference, abs=1e-6)
        assert comparison.rows == variant.measured_rows == len(holdout)
    assert exported.manifest.variants[0].accuracy == (reference.argmax(1) == holdout.labels).mean()
    assert exported.manifest.variants[0].max_abs_difference < 1e-5


@pytest.mark.parametrize("batch", [1, 3, 17])
def test_every_variant_takes_any_batch(exported: Result, batch: int) -> None:
    pixels = np.random.default_rng(batch).integers(0, 256, (batch, 8, 8, 1), np.uint8)
    for variant in exported.manifest.variants:
        session = verify.open_session(str(exported.folder / variant.file))
        assert (session.get_inputs()[0].shape, session.get_outputs()[0].shape) == (["batch", 8, 8, 1], ["batch", 10])
        (probabilities,) = session.run(["probabilities"], {"image": pixels})
        assert probabilities.shape == (batch, 10)
        assert np.allclose(probabilities.sum(1), 1, atol=1e-5)


def test_the_golden_set_replays_from_encoded_bytes(exported: Result) -> None:
    with np.load(exported.folder / "golden.npz") as golden:
        data, offsets, expected = golden["encoded"].tobytes(), golden["offsets"], golden["probabilities"]
        labels = golden["labels"]
    assert exported.manifest.golden.images == len(offsets) - 1 == len(labels) == 16  # 4 samples, 12 hold-out rows
    files = [data[start:end] for start, end in pairwise(offsets)]
    pixels = np.stack([decode(file, ImageSpec(8, 8, 1)) for file in files])
    answers = verify.answer(verify.open_session(str(exported.folder / "model.onnx")), pixels)
    assert np.abs(answers - expected).max() < 1e-5
    assert (expected.argmax(1) == labels).mean() > 0.6  # of 16; by chance it would be 0.1


def test_the_graphs_are_clean(exported: Result) -> None:
    model = onnx.load(exported.folder / "model.onnx")
    kinds = [node.op_type for node in model.graph.node]
    assert "BatchNormalization" not in kinds
    assert kinds.count("Transpose") == 1  # before the flatten; one grey channel needs none at the input
    assert not {"Shape", "Gather", "Slice", "Concat"} & set(kinds)
    assert [(one.domain, one.version) for one in model.opset_import] == [("", 17)]
    assert {one.key: one.value for one in model.metadata_props} == {"shoal.name": "tiny", "shoal.run": "1"}


def test_the_same_run_gives_the_same_bytes_and_the_next_version(
    exported: Result, trained_runs: Path, roomy_gates: Gates
) -> None:
    start = exported.report["variants"]["int8"]["recipe"]
    first_layer = "float32" if start.startswith(quantize.FIRST_FLOAT) else "int8"
    groups = "on" if start.endswith("pixels in groups") else "off"
    models = exported.folder.parents[1]
    again = export(trained_runs, models, roomy_gates, first_layer=first_layer, pixel_groups=groups)
    assert again.folder == exported.folder.parent / "2"
    for name in ("model.onnx", "model.int8.onnx", "golden.npz"):
        assert (again.folder / name).read_bytes() == (exported.folder / name).read_bytes(), name
    shutil.rmtree(again.folder)


def test_a_spoiled_scale_keeps_int8_out_and_says_why(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = quantize.quantize
    monkeypatch.setattr(quantize, "quantize", lambda *given: spoiled(honest(*given), "DequantizeLinear_0.scale", 8.0))
    result = export(
        runs, tmp_path / "models", calibration="minmax", first_layer="float32", sensitivity=False, qat_epochs=0
    )
    assert [one.name for one in result.manifest.variants] == ["float32"]
    assert not (result.folder / "model.int8.onnx").exists()
    (refused,) = bundle.read_report(result.folder)["refused"]
    assert refused["variant"] == "int8"
    assert any("agreement" in reason for reason in refused["reasons"])


def test_what_is_gated_is_the_file_that_was_written(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, roomy_gates: Gates
) -> None:
    honest = bundle.Staging.write

    def damage(stage: bundle.Staging, name: str, data: bytes) -> Path:
        if name == "model.int8.onnx":
            data = spoiled(onnx.load_from_string(data), "DequantizeLinear_0.scale", 8.0).SerializeToString()
        return honest(stage, name, data)

    monkeypatch.setattr(bundle.Staging, "write", damage)
    result = export(runs, tmp_path / "models", roomy_gates, first_layer="float32")
    assert [one.name for one in result.manifest.variants] == ["float32"]
    assert not (result.folder / "model.int8.onnx").exists()
    assert [one["variant"] for one in result.report["refused"]] == ["int8"]


def test_a_variant_that_no_method_brings_through_is_tried_by_all(runs: Path, tmp_path: Path) -> None:
    result = export(runs, tmp_path / "models", Gates(min_speedup=1e6), first_layer="float32")
    tried = [one["recipe"] for one in result.report["tried"] if one["variant"] == "int8"]
    assert tried == [f"first-float, {method}" for method in ("minmax", "percentile", "entropy")]
    assert [one.name for one in result.manifest.variants] == ["float32"]


@pytest.mark.parametrize(("groups", "ending"), [("on", ", pixels in groups"), ("off", "")])
def test_pixels_are_in_groups_where_that_is_asked_for(
    runs: Path, tmp_path: Path, roomy_gates: Gates, groups: str, ending: str
) -> None:
    way = {"first_layer": "int8", "calibration": "minmax", "variants": ("float32", "int8")}
    result = export(runs, tmp_path / "models", roomy_gates, pixel_groups=groups, **way)
    tried = [one["recipe"] for one in result.report["tried"] if one["variant"] == "int8"]
    assert (tried[0], result.report["variants"]["int8"]["recipe"]) == (f"pixels-int8, minmax{ending}",) * 2


def test_a_spoiled_float32_writes_nothing(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = convert.to_onnx
    monkeypatch.setattr(
        convert, "to_onnx", lambda *given, **named: spoiled(honest(*given, **named), "Conv_1.weight", 1.5)
    )
    with pytest.raises(GateFailed, match=r"difference of a probability: expected at most 0\.0001"):
        export(runs, tmp_path / "models")
    assert not (tmp_path / "models" / "tiny").exists()


def test_a_crash_between_two_files_leaves_nothing_visible(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*given: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(bundle.Staging, "write_npz", crash)
    with pytest.raises(KeyboardInterrupt):
        export(runs, tmp_path / "models", variants="float32")
    assert bundle.names(tmp_path / "models") == []
    assert not (tmp_path / "models" / "tiny").exists()


def edit_json(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("run.json", lambda facts: facts["preprocessing"].update(scale=1 / 127.5), "expected pixels × 0.00784314"),
        ("run.json", lambda facts: facts["labels"].append("ten"), r"one output \[n, 11\]"),
        ("run.json", lambda facts: facts["preprocessing"].update(resize="nearest"), "expected resize"),
        ("run.json", lambda facts: facts["labels"].reverse(), "expected the labels of run.json in the order of"),
        ("metrics.json", lambda facts: facts["test"].update(accuracy=0.5), "not of one run"),
        ("metrics.json", lambda facts: facts["test"]["classes"][3].update(recall=0.1), "of class '3' in metrics.json"),
    ],
)
def test_a_run_folder_that_contradicts_itself_is_refused(
    runs: Path, tmp_path: Path, file: str, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    edit_json(runs / "tiny" / "1" / file, change)
    with pytest.raises(ExportError, match=message):
        export(runs, tmp_path / "models")
    assert bundle.names(tmp_path / "models") == []


def test_a_damaged_model_is_one_clear_error(runs: Path, tmp_path: Path) -> None:
    path = runs / "tiny" / "1" / "model.keras"
    path.write_bytes(path.read_bytes()[:2_000])
    with pytest.raises(ExportError, match=r"model\.keras cannot be loaded"):
        export(runs, tmp_path / "models")


def test_float32_alone_when_asked(runs: Path, tmp_path: Path) -> None:
    result = export(runs, tmp_path / "models", variants="float32", golden_images=2)
    assert [path.name for path in sorted(result.folder.glob("*.onnx"))] == ["model.onnx"]
    assert result.manifest.golden.images == 4  # all samples that the run kept
    assert result.report["refused"] == []
    assert FILES["float32"] == result.manifest.variants[0].file


def test_what_was_measured_is_in_the_report(exported: Result) -> None:
    report = bundle.read_report(exported.folder)
    accuracies = report["variants"]["float32"]["comparison"]["class_accuracy"]
    assert len(accuracies) == 10
    assert np.mean(accuracies) == pytest.approx(exported.manifest.variants[0].accuracy, abs=0.02)
    assert report["calibration_drift"]["psi"] < 0.1
    assert report["duration_s"] > 0
    assert report["peak_memory_bytes"] > 10**8
    assert report["training"]["epochs"] == 6


def test_calibration_rows_of_other_pictures_keep_int8_out(runs: Path, tmp_path: Path) -> None:
    path = runs / "tiny" / "1" / "calibration.npz"
    with np.load(path) as archive:
        arrays = dict(archive)
    np.savez(path, rows=255 - arrays["rows"], labels=arrays["labels"])  # the negatives
    result = export(runs, tmp_path / "models")
    assert [one.name for one in result.manifest.variants] == ["float32"]
    (refused,) = result.report["refused"]
    assert refused["variant"] == "int8"
    assert "calibration drift: expected a stability index of at most 0.25" in refused["reasons"][0]


def test_the_layer_that_hurts_is_found_and_left_in_float32(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, roomy_gates: Gates
) -> None:
    honest = quantize.quantize

    def hurt(prepared: ModelProto, rows: Any, recipe: quantize.Recipe) -> ModelProto:
        made = honest(prepared, rows, recipe)
        weight = next((one.name for one in made.graph.initializer if one.dims[:] == [16, 8, 3, 3]), "")
        users = [node for node in made.graph.node if weight and node.op_type == "DequantizeLinear"]
        scales = [node.input[1] for node in users if node.input[0] == weight]
        return spoiled(made, scales[0], 8.0) if scales else made  # none where that layer is float32

    monkeypatch.setattr(quantize, "quantize", hurt)
    result = export(runs, tmp_path / "models", roomy_gates, calibration="minmax", first_layer="int8")
    assert [one.name for one in result.manifest.variants] == ["float32", "int8"]
    assert result.report["variants"]["int8"]["recipe"] == "pixels-int8, minmax, Conv_1 in float32"
    gains = result.report["sensitivity"]
    assert next(iter(gains)) == "Conv_1"
    assert gains["Conv_1"] > 10 * max(gain for layer, gain in gains.items() if layer != "Conv_1")


def test_a_variant_that_is_too_large_is_refused(runs: Path, tmp_path: Path, roomy_gates: Gates) -> None:
    gates = roomy_gates.model_copy(update={"max_size_ratio": 0.1})
    result = export(runs, tmp_path / "models", gates, first_layer="float32", calibration="minmax")
    (refused,) = result.report["refused"]
    assert "size as a multiple of float32's: expected at most 0.1" in refused["reasons"][0]
    assert [one["recipe"] for one in result.report["tried"] if one["variant"] == "int8"] == ["first-float, minmax"]


def test_float16_answers_like_keras_and_is_half_as_large(exported_pooled: Result) -> None:
    variants = {one.name: one for one in exported_pooled.manifest.variants}
    half = variants["float16"]
    assert half.max_abs_difference < 0.01
    assert half.size_bytes < 0.8 * variants["float32"].size_bytes
    model = onnx.load(exported_pooled.folder / half.file)
    weights = [one for one in model.graph.initializer if len(one.dims) > 1]
    assert {one.data_type for one in weights} == {onnx.TensorProto.FLOAT16}
    assert model.graph.output[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT


def test_a_signed_export_can_be_asked_for(runs: Path, tmp_path: Path) -> None:
    signing.generate_keys(tmp_path / "key")
    result = export(runs, tmp_path / "models", variants="float32", sign_key=tmp_path / "key")
    assert check_bundle(result.folder, tmp_path / "key.pub") == result.manifest


def test_a_disk_that_takes_no_more_is_one_clear_error(
    runs: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    create_it = ["create", "--name", "tiny", "--runs", str(runs), "--models", str(tmp_path / "models")]
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16_384, before[1]))  # the write fails as on a full disk, half way
    try:
        assert main([*create_it, "--variants", "float32"]) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert capfd.readouterr().err.endswith("model.onnx: File too large\n")
    assert not (tmp_path / "models" / "tiny").exists()
