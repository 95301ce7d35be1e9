"""An export measures its variants on OpenVINO where that is installed, and goes without where it is not."""

from pathlib import Path

import onnxruntime as ort
import pytest

from export.pipeline import Result, create
from export.settings import ExportSettings, Gates
from server import openvino

pytestmark = pytest.mark.slow


def test_every_variant_is_compared_with_keras_on_openvino(exported: Result) -> None:
    if openvino.OPENVINO not in ort.get_available_providers():  # the export has asked for it
        pytest.skip("OpenVINO offers no device here: pip install shoal[openvino], on an Intel processor")
    measured = exported.report["openvino"]
    assert list(measured) == [one.name for one in exported.manifest.variants]
    # Its bfloat16 would differ by some 0.01.
    assert measured["float32"]["comparison"]["max_difference"] < 1e-4
    assert measured["float32"]["reasons"] == []
    assert measured["int8"]["comparison"]["agreement"] > 0.95
    assert all(one["images_per_s"] > 0 for one in measured.values())


def test_without_openvino_nothing_is_measured_on_it(
    trained_runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, roomy_gates: Gates
) -> None:
    monkeypatch.setattr(openvino, "register", lambda _: None)
    monkeypatch.setattr(openvino, "add_device", lambda *_, **__: False)
    settings = ExportSettings(runs=trained_runs, models=tmp_path, variants=("float32",))
    assert create("tiny", "latest", settings, roomy_gates, lambda line: None).report["openvino"] == {}
