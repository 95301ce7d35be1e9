"""Windows, references and the population stability index; and export's side of the same counts."""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray
from prometheus_client.core import Metric

from export.reference import build_reference
from protos.bundle_pb2 import Manifest
from server.drift import MAX_CLASS_BINS, DriftMonitor, Window, read_reference
from server.looks import looks_of
from server.predictions.answers import Answered
from server.psi import LEAST_ROWS_PER_BIN, psi
from server.tensors import InferRequest, TensorSpec
from server.versions import LoadedModel

GENERATOR = np.random.default_rng(1)
CLASSES = 4


@dataclass(eq=False)
class FakeVersion:
    """As much of a loaded version as the monitor looks at."""

    bundle: Any
    name: str = "pets"
    version: int = 1
    outputs: tuple[TensorSpec, ...] = (TensorSpec("probabilities", "FP32", (-1, CLASSES)),)
    image_input: str = "image"


def pixels(rows: int, low: int = 0, high: int = 256) -> NDArray[np.uint8]:
    levels = GENERATOR.integers(low, high, (rows, 1, 1, 1))
    noise = GENERATOR.integers(-20, 21, (rows, 6, 6, 1))
    return np.asarray(np.clip(levels + noise, 0, 255), np.uint8)


def shares(rows: int, classes: int = CLASSES) -> NDArray[np.float32]:
    scores = GENERATOR.normal(0, 3, (rows, classes))
    exponents = np.exp(scores)
    return np.asarray(exponents / exponents.sum(axis=1, keepdims=True), np.float32)


def manifest(rows: int = 5000, classes: int = CLASSES) -> Manifest:
    labels = [f"class {number}" for number in range(classes)]
    return Manifest(labels=labels, reference=build_reference(pixels(rows), shares(rows, classes)))


def version(described: Manifest | None) -> LoadedModel:
    return cast(LoadedModel, FakeVersion(SimpleNamespace(manifest=described)))


def answered(model: LoadedModel, probabilities: NDArray[np.float32], rows: Any = None) -> Answered:
    inputs = {} if rows is None else {"image": rows}
    outputs = {"probabilities": probabilities}
    return Answered(0.0, InferRequest(), model, (), inputs, outputs, 0.01, len(probabilities))


def indices(monitor: DriftMonitor) -> dict[str, float]:
    families: dict[str, Metric] = {family.name: family for family in monitor.collect()}
    return {sample.labels["feature"]: sample.value for sample in families["shoal_drift_psi"].samples}


def feed(monitor: DriftMonitor, model: LoadedModel, rows: int, *, low: int = 0, high: int = 256) -> None:
    monitor.watch([answered(model, shares(8), pixels(8, low, high)) for _ in range(rows // 8)])


def test_the_index_is_that_of_the_formula() -> None:
    assert psi([50, 30, 20], [50, 30, 20]) == 0
    q, p = np.array([100.5, 300.5]) / 401, np.array([200.5, 200.5]) / 401
    assert psi([100, 300], [200, 200]) == pytest.approx(((p - q) * np.log(p / q)).sum())
    assert psi([100, 0], [0, 100]) < float("inf")


@pytest.mark.parametrize("sizes", [[3, 4, 2], [10], [25], [1] * 33, [7, 0, 13]])
def test_a_window_counts_the_latest_values_alone(sizes: list[int]) -> None:
    window, seen = Window(5, 10), []
    for size in sizes:
        values = GENERATOR.integers(0, 5, size)
        seen += values.tolist()
        window.add(values)
        assert window.counts.tolist() == np.bincount(seen[-10:], minlength=5).tolist()


def test_brightness_and_contrast_are_mean_and_deviation() -> None:
    rows = GENERATOR.integers(0, 256, (5, 7, 3, 3), np.uint8)
    brightness, contrast = looks_of(rows)
    np.testing.assert_allclose(brightness, rows.reshape(5, -1).mean(axis=1))
    np.testing.assert_allclose(contrast, rows.reshape(5, -1).std(axis=1))


def test_export_counts_every_hold_out_row_once() -> None:
    reference = manifest(5000).reference
    assert reference.rows == sum(reference.classes) == 5000
    for histogram in (reference.confidence, reference.brightness, reference.contrast):
        assert sum(histogram.counts) == 5000
        assert len(histogram.counts) == len(histogram.edges) + 1
        assert list(histogram.edges) == sorted(set(histogram.edges))
    assert all(400 <= count <= 600 for count in reference.brightness.counts)  # tenths


def test_what_looks_as_the_hold_out_did_has_not_drifted() -> None:
    model = version(manifest())
    monitor = DriftMonitor(2000, lambda: [model])
    feed(monitor, model, 2000)
    found = indices(monitor)
    assert found.keys() == {"classes", "confidence", "brightness", "contrast"}
    assert max(found.values()) < 0.1


@pytest.mark.parametrize(
    ("change", "drifted"),
    [
        ("dark", "brightness"),
        ("flat", "contrast"),
        ("one class", "classes"),
        ("unsure", "confidence"),
    ],
)
def test_each_feature_sees_its_own_change(change: str, drifted: str) -> None:
    model = version(manifest())
    monitor = DriftMonitor(2000, lambda: [model])
    for _ in range(250):
        told, rows = shares(8), pixels(8)
        if change == "dark":
            rows = pixels(8, 0, 60)
        elif change == "flat":
            rows = np.broadcast_to(rows[:, :1, :1], rows.shape).copy()
        elif change == "one class":
            told = -np.sort(-told, axis=1)
        else:
            told = np.asarray((told + 3) / (1 + 3 * CLASSES), np.float32)
        monitor.watch([answered(model, told, rows)])
    assert indices(monitor)[drifted] > 0.25


def test_a_change_is_forgotten_once_it_is_out_of_the_window() -> None:
    model = version(manifest())
    monitor = DriftMonitor(1000, lambda: [model])
    feed(monitor, model, 1000, low=0, high=60)
    assert indices(monitor)["brightness"] > 0.25
    feed(monitor, model, 1000)
    assert indices(monitor)["brightness"] < 0.1


def test_too_few_rows_tell_nothing() -> None:
    model = version(manifest())
    monitor = DriftMonitor(1000, lambda: [model])
    least = LEAST_ROWS_PER_BIN * CLASSES
    monitor.watch([answered(model, shares(least - 1))])
    assert indices(monitor) == {}
    monitor.watch([answered(model, shares(1))])
    assert indices(monitor).keys() == {"classes"}


@pytest.mark.parametrize("described", [None, Manifest(labels=["a", "b"])])
def test_a_bundle_of_before_is_not_watched(described: Manifest | None) -> None:
    model = version(described)
    monitor = DriftMonitor(1000, lambda: [model])
    feed(monitor, model, 800)
    assert all(not family.samples for family in monitor.collect())


def test_many_classes_share_bins() -> None:
    reference = read_reference(manifest(classes=2 * MAX_CLASS_BINS + 1))
    assert reference is not None
    assert len(reference.counts["classes"]) == len(reference.bins["classes"]) == MAX_CLASS_BINS
    assert reference.counts["classes"].sum() == 5000
    assert reference.bins["classes"][0] == "0 modulo 50"


def test_answers_and_inputs_of_other_shapes_are_passed_over() -> None:
    model = version(manifest())
    monitor = DriftMonitor(1000, lambda: [model])
    rows = np.zeros((200, 6, 6, 1), np.float32)
    monitor.watch([answered(model, shares(200, 7), rows)])
    assert indices(monitor) == {}


def test_versions_that_were_let_go_are_forgotten() -> None:
    loaded = [version(manifest())]
    monitor = DriftMonitor(1000, lambda: loaded)
    feed(monitor, loaded[0], 800)
    loaded.clear()
    assert indices(monitor) == {}
    assert len(monitor._watched) == 0
