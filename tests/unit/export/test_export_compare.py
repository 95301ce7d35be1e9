"""compare: two versions side by side, and what is unknown is said to be."""

import json
from pathlib import Path
from typing import Any

import pytest

from export.__main__ import main
from export.comparison import compare
from tests.unit.export.small_bundles import write_small


def report(accuracies: list[float | None], rate: float) -> dict[str, Any]:
    measured = {"recipe": "tf2onnx", "comparison": {"class_accuracy": accuracies}}
    return {
        "reference_accuracy": 0.9,
        "variants": {"float32": measured},
        "training": {"learning_rate": rate, "seed": 1, "model_settings": {"dropout": 0.2}},
    }


@pytest.fixture
def models(tmp_path: Path) -> Path:
    write_small(tmp_path, "m", 1, report=report([0.5, 0.75], 0.1), dataset={"fingerprint": "sha256:1"})
    write_small(tmp_path, "m", 2, report=report([0.5, None], 0.2), dataset={"fingerprint": "sha256:2"}, parameters=150)
    write_small(tmp_path, "m", 3)
    return tmp_path


def test_every_measure_has_both_values_and_the_change(models: Path) -> None:
    compared = compare(models / "m" / "1", models / "m" / "2")
    rows = {row.what: row for row in (*compared.measures, *compared.classes, *compared.origins)}
    assert (rows["parameters"].one, rows["parameters"].other, rows["parameters"].change) == (100, 150, 50)
    assert rows["accuracy, float32"].change == pytest.approx(0.001)
    assert rows["images_per_s, float32"].change == 1000
    assert (rows["cat"].change, rows["dog"].one, rows["dog"].other) == (0, 0.75, None)
    assert (rows["data fingerprint"].one, rows["data fingerprint"].other) == ("sha256:1", "sha256:2")
    assert (rows["training: learning_rate"].one, rows["training: learning_rate"].other) == (0.1, 0.2)
    assert "training: seed" not in rows  # the same in both
    assert rows["recipe, float32"].one == "tf2onnx"


def test_a_bundle_without_a_report_is_unknown_not_zero(models: Path) -> None:
    compared = compare(models / "m" / "2", models / "m" / "3")
    rows = {row.what: row for row in (*compared.measures, *compared.classes)}
    assert rows["cat"].other is None
    assert rows["accuracy, Keras"].change is None


def test_the_table_and_the_json_tell_the_same(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = ["--models", str(models)]
    assert main(["compare", "m", "1", "2", *folder]) == 0
    shown = capsys.readouterr().out
    assert "+0.10 points" in shown
    assert "× 2.00" in shown
    assert "unknown" in shown
    assert main(["compare", "m", "1", "latest", "--json", *folder]) == 0
    assert json.loads(capsys.readouterr().out)["versions"] == [1, 3]
    assert main(["compare", "m", "1", "7", *folder]) == 2
