"""Which variant is served, and what keeps a version from being served at all."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from server.errors import StartupError
from server.models import ModelsOptions
from tests.unit.server.bundle_factory import graph, read_manifest, weights, write_bundle, write_manifest, write_plain
from tests.unit.server.models_harness import LOAD, OPTIONS, Harness, run

SLOW = 60  # matrix products of 256 × 256: some 20 times the tiny graph's own work, in every batch size


def asked_for(variant: str) -> ModelsOptions:
    return replace(OPTIONS, load=replace(LOAD, variant=variant))


def noisy(seed: int) -> NDArray[np.float32]:
    """The weights of a version as a quantizer might leave them: near enough for its classes."""
    return weights(seed) + np.random.default_rng(9).normal(0, 0.001, weights(seed).shape).astype(np.float32)


def test_named_variant_is_served(tmp_path: Path) -> None:
    write_bundle(tmp_path, "pets", 1, variants={"float32": graph(weights(1)), "int8": graph(noisy(1), work=SLOW)})

    async def test(harness: Harness) -> None:
        assert harness.models.choose("pets").variant == "int8"
        assert [state.variant for state in harness.models.index()] == ["int8"]

    run(tmp_path, test, asked_for("int8"))


def test_named_variant_that_is_missing_is_an_error(tmp_path: Path) -> None:
    write_bundle(tmp_path, "pets", 1)

    async def test(harness: Harness) -> None:
        with pytest.raises(StartupError, match=r"expected a variant 'int8' in .*, it has float32"):
            await harness.models.start()

    run(tmp_path, test, asked_for("int8"), start=False)


@pytest.mark.slow
@pytest.mark.parametrize("fast", ["float32", "int8"])
def test_auto_serves_the_variant_that_measures_fastest_here(tmp_path: Path, fast: str) -> None:
    work = {"float32": SLOW, "int8": SLOW, fast: 0}
    write_bundle(
        tmp_path,
        "pets",
        1,
        variants={
            "float32": graph(weights(1), work=work["float32"]),
            "int8": graph(noisy(1), work=work["int8"]),
        },
    )

    async def test(harness: Harness) -> None:
        model = harness.models.choose("pets")
        assert (model.variant, model.note) == (fast, "")

    run(tmp_path, test)


def test_auto_passes_over_a_variant_that_answers_wrongly_and_says_so(tmp_path: Path) -> None:
    write_bundle(tmp_path, "pets", 1, variants={"float32": graph(weights(1), work=SLOW), "int8": graph(weights(7))})

    async def test(harness: Harness) -> None:
        assert harness.models.choose("pets").variant == "float32"
        assert await harness.ask() == 1
        assert "pictures from variant 'int8'" in harness.reason(1)
        assert "pictures from variant 'int8'" in harness.events[-1].reason

    run(tmp_path, test)


def test_auto_passes_over_a_variant_that_cannot_be_loaded(tmp_path: Path) -> None:
    write_bundle(tmp_path, "pets", 1, variants={"int8": b"no graph", "float32": graph(weights(1))})

    async def test(harness: Harness) -> None:
        assert harness.models.choose("pets").variant == "float32"
        assert harness.reason(1).startswith("variant 'int8' refused: ")

    run(tmp_path, test)


def test_auto_passes_over_a_variant_with_other_outputs(tmp_path: Path) -> None:
    other = graph(weights(1), output="scores")
    write_bundle(tmp_path, "pets", 1, variants={"int8": other, "float32": graph(weights(1), work=SLOW)})

    async def test(harness: Harness) -> None:
        assert harness.models.choose("pets").variant == "float32"
        assert "variant 'int8' refused: expected outputs probabilities FP32[-1, 3]" in harness.reason(1)

    run(tmp_path, test)


def test_auto_with_no_sound_variant_names_every_reason(tmp_path: Path) -> None:
    write_bundle(tmp_path, "pets", 1, variants={"int8": b"no graph", "float32": graph(weights(7))})

    async def test(harness: Harness) -> None:
        with pytest.raises(StartupError, match=r"variant 'int8' refused: .*; expected the golden probabilities"):
            await harness.models.start()

    run(tmp_path, test, start=False)


def test_auto_serves_the_only_graph_of_a_plain_folder(tmp_path: Path) -> None:
    write_plain(tmp_path, "any", 1)

    async def test(harness: Harness) -> None:
        assert harness.models.choose("any").variant == "model"

    run(tmp_path, test)


def spoil(folder: Path) -> None:
    """Other weights under a digest that fits: only the golden pictures can tell."""
    data = graph(weights(99))
    (folder / "model.onnx").write_bytes(data)
    manifest = read_manifest(folder)
    manifest.variants[0].sha256, manifest.variants[0].size_bytes = hashlib.sha256(data).hexdigest(), len(data)
    write_manifest(folder, manifest)


def truncate(folder: Path) -> None:
    data = (folder / "model.onnx").read_bytes()
    (folder / "model.onnx").write_bytes(data[: len(data) // 2])


def swap_answers(folder: Path) -> None:
    """A golden set of another order of classes, as when the labels were sorted otherwise."""
    with np.load(folder / "golden.npz") as old:
        arrays = {name: old[name] for name in old.files}
    arrays["probabilities"] = arrays["probabilities"][:, ::-1]
    np.savez(folder / "golden.npz", **arrays)
    manifest = read_manifest(folder)
    manifest.golden.sha256 = hashlib.sha256((folder / "golden.npz").read_bytes()).hexdigest()
    write_manifest(folder, manifest)


def other_schema(folder: Path) -> None:
    manifest = read_manifest(folder)
    manifest.schema = 2
    write_manifest(folder, manifest)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (spoil, "expected the golden probabilities to within 0.0001"),
        (swap_answers, "expected the golden probabilities to within 0.0001"),
        (truncate, "bytes in"),
        (other_schema, "expected schema 1"),
        (lambda folder: (folder / "golden.npz").unlink(), "is in the manifest but cannot be read"),
        (lambda folder: (folder / "manifest.json").write_text("{"), "manifest.json cannot be read"),
    ],
)
def test_bad_new_version_leaves_the_old_one_in_place(
    tmp_path: Path, damage: Callable[[Path], object], reason: str
) -> None:
    write_bundle(tmp_path, "pets", 1)

    async def test(harness: Harness) -> None:
        damage(write_bundle(tmp_path, "pets", 2))
        await harness.look()
        assert await harness.ask() == 1
        assert harness.states() == {1: "ready", 2: "failed"}
        assert reason in harness.reason(2)
        assert harness.events[-1].kind == "failed"
        assert harness.events[-1].reason == harness.reason(2)

    run(tmp_path, test)


def test_bad_version_is_tried_again_only_when_its_folder_changes(tmp_path: Path) -> None:
    write_bundle(tmp_path, "pets", 1)

    async def test(harness: Harness) -> None:
        folder = write_bundle(tmp_path, "pets", 2)
        sound = (folder / "model.onnx").read_bytes()
        truncate(folder)
        for _ in range(5):
            await harness.look()
        assert harness.kinds(2) == ["loading", "failed"]
        (folder / "model.onnx").write_bytes(sound)
        await harness.look()
        assert await harness.ask() == 2
        assert harness.states() == {1: "unloaded", 2: "ready"}

    run(tmp_path, test)


def test_overwriting_a_version_with_a_bad_one_leaves_it_serving(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path, "pets", 1)

    async def test(harness: Harness) -> None:
        spoil(folder)
        await harness.look()
        assert await harness.ask() == 1
        assert harness.states() == {1: "ready"}
        assert "expected the golden probabilities" in harness.reason(1)

    run(tmp_path, test)


def test_overwriting_the_newest_version_with_a_bad_one_brings_no_older_one_back(tmp_path: Path) -> None:
    write_bundle(tmp_path, "pets", 1)
    folder = write_bundle(tmp_path, "pets", 2)

    async def test(harness: Harness) -> None:
        spoil(folder)
        await harness.look()
        assert await harness.ask() == 2
        assert harness.states() == {1: "unloaded", 2: "ready"}

    run(tmp_path, test)


def test_graph_without_golden_pictures_is_served(tmp_path: Path) -> None:
    write_bundle(tmp_path, "pets", 1, golden_rows=0)

    async def test(harness: Harness) -> None:
        assert await harness.ask() == 1

    run(tmp_path, test)


def test_graph_that_answers_the_golden_pictures_with_another_shape_is_refused(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path, "pets", 1, golden_rows=5)
    manifest = read_manifest(folder)
    manifest.ClearField("labels")
    manifest.ClearField("outputs")
    with np.load(folder / "golden.npz") as old:
        arrays = {name: old[name] for name in old.files}
    arrays["probabilities"] = arrays["probabilities"][:, :2]
    np.savez(folder / "golden.npz", **arrays)
    manifest.golden.sha256 = hashlib.sha256((folder / "golden.npz").read_bytes()).hexdigest()
    write_manifest(folder, manifest)

    async def test(harness: Harness) -> None:
        with pytest.raises(StartupError, match=r"expected answers of shape \[5, 2\] .*, received \[5, 3\]"):
            await harness.models.start()

    run(tmp_path, test, start=False)
