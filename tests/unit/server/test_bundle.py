"""What a bundle on disk may be, and what is said of one that is not."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from protos.bundle_pb2 import Manifest
from server.bundle import Bundle, read_bundle
from server.errors import BundleError
from server.golden import check_answers, decode_golden, fewest_agreements, read_golden
from server.images import ImageSpec
from tests.unit.server.bundle_factory import (
    LABELS,
    graph,
    pictures,
    probabilities,
    read_manifest,
    weights,
    write_bundle,
    write_manifest,
    write_plain,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_bundle(tmp_path, "pets", 3, variants={"float32": graph(weights(3)), "int8": graph(weights(4))})


def edit(folder: Path, change: Callable[[Manifest], object]) -> None:
    manifest = read_manifest(folder)
    change(manifest)
    write_manifest(folder, manifest)


def test_bundle_is_read_as_it_was_written(folder: Path) -> None:
    bundle = read_bundle(folder)
    assert (bundle.name, bundle.version, bundle.labels) == ("pets", 3, LABELS)
    assert (bundle.image, bundle.image_input) == (ImageSpec(4, 4, 3), "image")
    assert [(variant.name, variant.path.name) for variant in bundle.variants] == [
        ("float32", "model.onnx"),
        ("int8", "model.int8.onnx"),
    ]
    assert bundle.variant("int8").sha256 == hashlib.sha256(graph(weights(4))).hexdigest()


def test_the_folder_names_the_model_and_the_version(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "animals").mkdir()
    bundle = read_bundle(folder.rename(tmp_path / "animals" / "7"))
    assert (bundle.name, bundle.version) == ("animals", 7)


def test_plain_folder_serves_tensors_only(tmp_path: Path) -> None:
    bundle = read_bundle(write_plain(tmp_path, "any", 1))
    assert (bundle.manifest, bundle.labels, bundle.image, bundle.image_input) == (None, (), None, "")
    assert [(variant.name, variant.sha256) for variant in bundle.variants] == [("model", None)]
    assert bundle.variant("int8") is bundle.variants[0]
    assert read_golden(bundle) is None


def test_manifest_without_preprocessing_takes_no_pictures(folder: Path) -> None:
    edit(folder, lambda manifest: manifest.ClearField("preprocessing"))
    bundle = read_bundle(folder)
    assert (bundle.image, bundle.image_input) == (None, "")
    assert read_golden(bundle) is None


def test_fields_of_a_later_release_are_passed_over(folder: Path) -> None:
    fields = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**fields, "colour": "blue"}))
    assert read_bundle(folder).version == 3


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated graph": (lambda f: (f / "model.onnx").write_bytes(graph(weights(3))[:-100]), r"expected \d+ bytes in"),
    "other graph of the same size": (lambda f: (f / "model.onnx").write_bytes(graph(weights(9))), "expected sha256"),
    "no graph": (lambda f: (f / "model.int8.onnx").unlink(), "cannot be read: No such file"),
    "other golden set": (lambda f: (f / "golden.npz").write_bytes(b"x"), "golden.npz, found .* not the file"),
    "no json": (lambda f: (f / "manifest.json").write_text("{"), "manifest.json cannot be read"),
    "a list": (lambda f: (f / "manifest.json").write_text("[]"), "expected schema 1 in .*, received None"),
    "schema 2": (lambda f: edit(f, lambda m: setattr(m, "schema", 2)), "expected schema 1 in .*, received 2"),
    "wrong type": (
        lambda f: (f / "manifest.json").write_text('{"schema": 1, "labels": 3}'),
        "manifest.json is no manifest",
    ),
    "no variants": (lambda f: edit(f, lambda m: m.ClearField("variants")), "at least one variant"),
    "a variant twice": (lambda f: edit(f, lambda m: setattr(m.variants[1], "name", "float32")), "each variant once"),
    "a file elsewhere": (
        lambda f: edit(f, lambda m: setattr(m.variants[0], "file", "../2/model.onnx")),
        "expected the name of a file inside",
    ),
    "no digest": (lambda f: edit(f, lambda m: setattr(m.variants[0], "sha256", "")), r"\(none given\)"),
    "a label twice": (lambda f: edit(f, lambda m: m.labels.__setitem__(0, "dog")), "each label once"),
    "a label short": (lambda f: edit(f, lambda m: m.labels.pop()), "expected 3 labels .* received 2"),
    "other resize": (lambda f: edit(f, lambda m: setattr(m.preprocessing, "resize", "crop")), "'bilinear-antialias'"),
    "two channels": (lambda f: edit(f, lambda m: setattr(m.preprocessing, "channels", 2)), r"1 \(greyscale\) or 3"),
    "other size": (lambda f: edit(f, lambda m: setattr(m.preprocessing, "height", 5)), r"shape \[n, 5, 4, 3\]"),
    "unknown type": (lambda f: edit(f, lambda m: setattr(m.inputs[0], "datatype", "BF16")), "received 'BF16'"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_bundle_is_refused_with_what_is_wrong(folder: Path, name: str) -> None:
    damage, message = BROKEN[name]
    damage(folder)
    with pytest.raises(BundleError, match=message):
        read_bundle(folder)


def test_empty_folder_is_no_bundle(tmp_path: Path) -> None:
    (tmp_path / "pets" / "1").mkdir(parents=True)
    with pytest.raises(BundleError, match=r"expected manifest.json or model.onnx in .*, found neither"):
        read_bundle(tmp_path / "pets" / "1")


def test_version_has_to_be_a_number(folder: Path) -> None:
    with pytest.raises(BundleError, match="whole number"):
        read_bundle(folder.rename(folder.parent / "final"))


def test_variant_that_is_missing_is_named_beside_those_that_are_there(folder: Path) -> None:
    with pytest.raises(BundleError, match=r"expected a variant 'float16' in .*, it has float32, int8"):
        read_bundle(folder).variant("float16")


def test_golden_pictures_decode_to_the_rows_they_were(folder: Path) -> None:
    bundle = read_bundle(folder)
    golden = read_golden(bundle)
    assert golden is not None
    assert golden.tolerance == 1e-4
    np.testing.assert_array_equal(decode_golden(bundle, golden), pictures(16))
    np.testing.assert_array_equal(golden.probabilities, probabilities(weights(3), pictures(16)))


def rewrite_golden(folder: Path, **arrays: object) -> Bundle:
    with np.load(folder / "golden.npz") as old:
        np.savez(folder / "golden.npz", **{**{name: old[name] for name in old.files}, **arrays})
    digest = hashlib.sha256((folder / "golden.npz").read_bytes()).hexdigest()
    edit(folder, lambda manifest: setattr(manifest.golden, "sha256", digest))
    return read_bundle(folder)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"offsets": np.array([0, 10, 5])}, "expected offsets that divide"),
        ({"offsets": np.array([0])}, "expected offsets that divide"),
        ({"encoded": np.zeros(5, dtype=np.int64)}, "expected offsets that divide"),
        ({"probabilities": np.zeros((16, 2), dtype=np.float32)}, r"shape \[16, 3\] in .*, received \[16, 2\]"),
        ({"probabilities": np.zeros((15, 3), dtype=np.float32)}, r"shape \[16, 3\] in .*, received \[15, 3\]"),
        ({"probabilities": np.array(["a"], dtype=object)}, "cannot be read"),
    ],
)
def test_golden_arrays_have_to_fit_each_other(folder: Path, arrays: dict[str, object], message: str) -> None:
    bundle = rewrite_golden(folder, **arrays)
    with pytest.raises(BundleError, match=message):
        read_golden(bundle)


def test_golden_file_that_is_no_picture_is_refused(folder: Path) -> None:
    bundle = rewrite_golden(folder, encoded=np.zeros(16, dtype=np.uint8), offsets=np.arange(17))
    golden = read_golden(bundle)
    assert golden is not None
    with pytest.raises(BundleError, match=r"a golden picture of .* cannot be decoded"):
        decode_golden(bundle, golden)


def test_float32_has_to_stay_within_the_tolerance(folder: Path) -> None:
    bundle = read_bundle(folder)
    golden = read_golden(bundle)
    assert golden is not None
    check_answers(bundle, bundle.variant("float32"), golden, golden.probabilities + np.float32(0.00009))
    with pytest.raises(BundleError, match=r"to within 0.0001 from variant 'float32' of .*, received a difference"):
        check_answers(bundle, bundle.variant("float32"), golden, golden.probabilities + np.float32(0.00011))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_no_variant_may_answer_what_is_no_number(folder: Path, value: float) -> None:
    bundle = read_bundle(folder)
    golden = read_golden(bundle)
    assert golden is not None
    received = golden.probabilities.copy()
    received[3, 1] = value
    for variant in bundle.variants:
        with pytest.raises(BundleError, match=r"expected finite probabilities"):
            check_answers(bundle, variant, golden, received)


@pytest.mark.parametrize(
    ("count", "agreement", "rows", "fewest"),
    [
        (32, 0.985, 1000, 27),
        (32, 1.0, 1000, 30),
        (32, 1.0, 10**6, 32),
        (16, 0.985, 1000, 12),
        (32, 0.1, 1000, 0),
        (1, 0.985, 1000, 0),
        (0, 0.9, 1000, 0),
    ],
)
def test_small_samples_are_asked_for_little(count: int, agreement: float, rows: int, fewest: int) -> None:
    assert fewest_agreements(count, agreement, rows) == fewest
    wrong = 1 - (agreement * rows + 1) / (rows + 2)
    shares = np.random.default_rng(0).binomial(count, wrong, 200_000) > count - fewest
    assert shares.mean() < 3e-4  # sound bundles that are refused, by simulation


def test_other_variants_have_to_agree_as_often_as_chance_explains(tmp_path: Path) -> None:
    folder = write_bundle(
        tmp_path, "pets", 1, variants={"int8": graph(weights(1))}, agreement=0.985, measured_rows=1000
    )
    bundle = read_bundle(folder)
    golden = read_golden(bundle)
    assert golden is not None
    received = golden.probabilities.copy()
    received[:4] = np.roll(received[:4], 1, axis=1)
    check_answers(bundle, bundle.variants[0], golden, received)
    received[4] = np.roll(received[4], 1)
    with pytest.raises(BundleError, match=r"at least 12 of 16 pictures .*, received 11"):
        check_answers(bundle, bundle.variants[0], golden, received)
