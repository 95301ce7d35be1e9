"""CIFAR and MNIST as they are published: every form of one set gives the same data, and nothing in a pickle is run."""

import gzip
import io
import os
import pickle
import pickletools
import struct
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from server import images
from training.data import idx, pickles
from training.data.catalogue import Catalogue, Pixels
from training.data.class_names import CIFAR_10, CIFAR_100
from training.data.loading import load
from training.data.reading import decode, survey
from training.data.sources import catalogue_of
from training.errors import TrainingError
from training.settings import TrainSettings


def planes(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 3072), dtype=np.uint8)


def python_2(value: Mapping[str, object]) -> bytes:
    """Pickles as Python 2 did: protocol 2, texts and raw array data as byte strings, NumPy under its old name.

    Python 3 cannot write `str` of Python 2 (the opcodes STRING), so the array is spelt out here, opcode by opcode.
    """
    out = io.BytesIO()
    out.write(b"\x80\x02}(")
    for key, entry in value.items():
        out.write(_text(key.encode()) + _entry(entry))
    out.write(b"u.")
    return out.getvalue()


def _text(text: bytes) -> bytes:
    return b"U" + bytes([len(text)]) + text if len(text) < 256 else b"T" + struct.pack("<I", len(text)) + text


def _entry(entry: object) -> bytes:
    if isinstance(entry, np.ndarray):
        shape = b"".join(b"J" + struct.pack("<i", side) for side in entry.shape)
        kind = b"cnumpy\ndtype\n" + b"(" + _text(b"u1") + b"K\x00K\x01tR(K\x03" + _text(b"|") + b"NNNJ\xff\xff\xff\xff"
        kind += b"J\xff\xff\xff\xffK\x00tb"
        made = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00t" + _text(b"b") + b"tR"
        return made + b"(K\x01(" + shape + b"t" + kind + b"\x89" + _text(entry.tobytes()) + b"tb"
    if isinstance(entry, list):
        return b"](" + b"".join(_entry(one) for one in entry) + b"e"
    if isinstance(entry, int):
        return b"J" + struct.pack("<i", entry)
    assert isinstance(entry, str)
    return _text(entry.encode())


def cifar_10() -> dict[str, tuple[list[int], np.ndarray]]:
    names = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
    return {name: ([*range(10)], planes(10, seed)) for seed, name in enumerate(names)}


def as_binary(root: Path) -> Path:
    root.mkdir()
    for name, (labels, pixels) in cifar_10().items():
        (root / f"{name}.bin").write_bytes(np.column_stack([np.array(labels, dtype=np.uint8), pixels]).tobytes())
    (root / "batches.meta.txt").write_text("\n".join(CIFAR_10) + "\n\n")
    return root


def as_python(root: Path, dump: Callable[[Mapping[str, object]], bytes]) -> Path:
    root.mkdir()
    for name, (labels, pixels) in cifar_10().items():
        (root / name).write_bytes(dump({"batch_label": "a batch", "labels": labels, "data": pixels}))
    (root / "batches.meta").write_bytes(dump({"label_names": list(CIFAR_10), "num_vis": 3072}))
    return root


def python_3(value: Mapping[str, object]) -> bytes:
    return pickle.dumps(dict(value))


def protocol_2(value: Mapping[str, object]) -> bytes:
    return pickle.dumps(dict(value), protocol=2)


def archived(root: Path, mode: str) -> Path:
    path = root.with_suffix(f".tar.{mode}")
    with tarfile.open(path, f"w:{mode}") as archive:  # type: ignore[call-overload]
        archive.add(root, "cifar-10-batches")
    return path


def test_python_2_pickles_of_these_tests_are_what_they_say() -> None:
    data = python_2({"labels": [1], "data": planes(1, 0)})
    opcodes = {opcode.name for opcode, _, _ in pickletools.genops(data)}
    assert {"GLOBAL", "REDUCE", "BUILD", "BINSTRING", "SHORT_BINSTRING"} <= opcodes
    assert np.array_equal(pickle.loads(data, encoding="latin1")["data"], planes(1, 0))


def test_every_form_of_cifar_10_is_the_same_data(tmp_path: Path) -> None:
    forms = [as_binary(tmp_path / "binary")]
    forms += [as_python(tmp_path / dump.__name__, dump) for dump in (python_2, python_3, protocol_2)]
    forms += [archived(forms[0], "gz"), archived(forms[1], "xz")]
    catalogues = [catalogue_of(str(form)) for form in forms]
    assert {catalogue.labels for catalogue in catalogues} == {CIFAR_10}
    assert len({survey(catalogue).fingerprint for catalogue in catalogues}) == 1
    assert [catalogue.form for catalogue in catalogues[:2]] == ["CIFAR-10, binary", "CIFAR-10, Python"]
    assert [catalogue.source for catalogue in catalogues] == [
        "binary", "python_2", "python_3", "protocol_2", "binary", "python_2",
    ]  # fmt: skip


def test_pixels_and_labels_of_cifar_10_are_where_they_belong(tmp_path: Path) -> None:
    data = load(TrainSettings.parse({"data": str(as_binary(tmp_path / "binary")), "validation_fraction": 0.2}))
    assert (len(data.train.labels), len(data.validation.labels), len(data.test.labels)) == (40, 10, 10)
    assert data.image.shape == (32, 32, 3)
    red, green, blue = cifar_10()["test_batch"][1][7].reshape(3, 32, 32)
    row = data.test.rows[data.test.labels.tolist().index(7)]
    assert np.array_equal(row, np.stack([red, green, blue], axis=2))
    assert data.record["form"] == "CIFAR-10, binary"


@pytest.mark.parametrize("inner", ["", "cifar-100-python"])
def test_cifar_100_in_python_form(tmp_path: Path, inner: str) -> None:
    folder = tmp_path / "cifar100" / inner
    folder.mkdir(parents=True)
    for seed, name in enumerate(("train", "test")):
        labels = {"fine_labels": [*range(100)], "coarse_labels": [label // 5 for label in range(100)]}
        (folder / name).write_bytes(python_2({"data": planes(100, seed), **labels}))
    names = [f"class {index}" for index in range(100)]
    (folder / "meta").write_bytes(python_2({"fine_label_names": names, "coarse_label_names": names[:20]}))
    catalogue = catalogue_of(str(tmp_path / "cifar100"))
    assert catalogue.labels == tuple(names)
    assert [item.label for item in catalogue.of("test")] == [*range(100)]
    assert np.array_equal(planar(catalogue, "test", 42), planes(100, 1)[42])


def test_cifar_100_in_binary_form_learns_the_fine_label(tmp_path: Path) -> None:
    root = tmp_path / "cifar100"
    root.mkdir()
    fine = np.arange(100, dtype=np.uint8)
    for seed, name in enumerate(("train.bin", "test.bin")):
        (root / name).write_bytes(np.column_stack([fine // 5, fine, planes(100, seed)]).tobytes())
    catalogue = catalogue_of(str(root))
    assert catalogue.labels == CIFAR_100  # the published names, as the file that names them is not there
    assert [item.label for item in catalogue.of("train")] == [*range(100)]
    assert np.array_equal(planar(catalogue, "train", 3), planes(100, 0)[3])


def planar(catalogue: Catalogue, split: str, index: int) -> np.ndarray:
    content = catalogue.of(split)[index].content
    assert isinstance(content, Pixels)
    return content.row.transpose(2, 0, 1).ravel()


class Harm:
    def __init__(self, *call: object) -> None:
        self.call = call

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return self.call[0], self.call[1:]


@pytest.mark.parametrize("protocol", range(6))
def test_a_malicious_pickle_is_refused_and_does_nothing(tmp_path: Path, protocol: int) -> None:
    root = as_python(tmp_path / "cifar", python_3)
    trace = tmp_path / "trace"
    (root / "data_batch_3").write_bytes(pickle.dumps({"data": Harm(os.mkdir, str(trace))}, protocol=protocol))
    pickle.loads((root / "data_batch_3").read_bytes())
    assert trace.is_dir()  # it does harm when it is read as a pickle
    trace.rmdir()
    with pytest.raises(TrainingError, match=r"data_batch_3, received the name (posix|os)\.mkdir; download the data"):
        catalogue_of(str(root))
    assert not trace.exists()


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"data": np.array([object()])}, "arrays of 'O8'"),
        ({"data": Harm(eval, "1 + 1")}, r"the name (builtins|__builtin__)\.eval"),
        ({"data": Harm(np.load, "x.npy")}, "the name numpy"),
        ([1, 2], "a list instead of a dict"),
        ({"data": np.dtype("u1")}, "a _Type"),
    ],
)
def test_what_else_a_pickle_may_hold_is_refused(value: object, words: str) -> None:
    with pytest.raises(TrainingError, match=words):
        pickles.read(pickle.dumps(value, protocol=2), "a file")


def test_a_forged_array_state_is_refused() -> None:
    whole = pickle.dumps({"data": np.zeros((2, 3072), dtype=np.uint8)}, protocol=2)
    forged = whole.replace(b"M\x00\x0c", b"M\xff\xff")  # 2 rows of 65,535 pixels in 6,144 bytes
    assert forged != whole
    with pytest.raises(TrainingError, match="cannot reshape array of size 6144"):
        pickles.read(forged, "a file")


def test_any_cut_of_a_pickle_is_refused() -> None:
    whole = python_2({"labels": [1, 2], "data": np.zeros((2, 3072), dtype=np.uint8)})
    for end in (*range(0, 200, 7), len(whole) - 1):
        with pytest.raises(TrainingError, match="expected a pickled dict"):
            pickles.read(whole[:end], "a file")


def test_missing_and_damaged_cifar_files_are_named(tmp_path: Path) -> None:
    root = as_binary(tmp_path / "cifar")
    whole = (root / "data_batch_2.bin").read_bytes()
    (root / "data_batch_2.bin").write_bytes(whole[:-1])
    with pytest.raises(TrainingError, match=r"records of 3,073 bytes .* in .*data_batch_2\.bin, received 30,729 bytes"):
        catalogue_of(str(root))
    (root / "data_batch_2.bin").unlink()
    with pytest.raises(TrainingError, match=r"expected CIFAR-10, binary .*, received no data_batch_2\.bin;"):
        catalogue_of(str(root))
    (root / "data_batch_2.bin").write_bytes(bytes([11]) + whole[1:])
    with pytest.raises(TrainingError, match=r"labels of 0 to 9 \(10 classes\) in the train split .*received 0 to 11"):
        catalogue_of(str(root))


def test_labels_that_do_not_match_their_pictures(tmp_path: Path) -> None:
    root = as_python(tmp_path / "cifar", python_3)
    (root / "test_batch").write_bytes(python_3({"labels": [0, 1, 2], "data": planes(10, 0)}))
    with pytest.raises(TrainingError, match=r"expected one whole number per picture .* \[10\], received int64\[3\]"):
        catalogue_of(str(root))
    (root / "test_batch").write_bytes(python_3({"labels": ["cat"] * 10, "data": planes(10, 0)}))
    with pytest.raises(TrainingError, match=r"'labels' or 'fine_labels' as a list of whole numbers in .*test_batch"):
        catalogue_of(str(root))


def test_a_damaged_archive_is_named(tmp_path: Path) -> None:
    archive = archived(as_binary(tmp_path / "cifar"), "gz")
    archive.write_bytes(archive.read_bytes()[:-100])
    with pytest.raises(TrainingError, match=r"cannot read .*cifar\.tar\.gz .*; download it again"):
        catalogue_of(str(archive))


def test_an_archive_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("a")
    with pytest.raises(TrainingError, match=r"expected CIFAR's or MNIST's files in .*, received none; unpack it"):
        catalogue_of(str(archived(tmp_path / "notes", "gz")))


def idx_file(values: np.ndarray, kind: int = 8) -> bytes:
    return bytes([0, 0, kind, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape) + values.tobytes()


def as_idx(root: Path, mark: str = "-", *, zipped: bool = False) -> Path:
    root.mkdir()
    for seed, (part, count) in enumerate((("train", 40), ("t10k", 20))):
        pixels = np.random.default_rng(seed).integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = np.arange(count, dtype=np.uint8) % 10
        for name, values in (("images", pixels), ("labels", labels)):
            data, end = idx_file(values), ""
            if zipped:
                data, end = gzip.compress(data), ".gz"
            (root / f"{part}-{name}{mark}idx{values.ndim}-ubyte{end}").write_bytes(data)
    return root


def test_mnist_in_every_spelling(tmp_path: Path) -> None:
    plain, zipped = as_idx(tmp_path / "a"), as_idx(tmp_path / "b", zipped=True)
    dotted, archive = as_idx(tmp_path / "c", "."), archived(zipped, "gz")
    catalogues = [catalogue_of(str(path)) for path in (plain, zipped, dotted, archive)]
    assert len({survey(catalogue).fingerprint for catalogue in catalogues}) == 1
    data = load(TrainSettings.parse({"data": str(plain), "validation_fraction": 0.25}))
    assert data.labels == tuple("0123456789")
    assert (data.image.shape, len(data.train.labels), len(data.test.labels)) == ((28, 28, 1), 30, 20)
    expected = np.random.default_rng(1).integers(0, 256, (20, 28, 28), dtype=np.uint8)
    order = [int(item.name.removesuffix(".png")) for item in data.test.items]
    assert np.array_equal(data.test.rows[..., 0], expected[order])
    assert data.test.labels.tolist() == [number % 10 for number in order]


def test_a_missing_idx_file_is_named(tmp_path: Path) -> None:
    root = as_idx(tmp_path / "mnist")
    (root / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(TrainingError, match=r"expected t10k-labels-idx1-ubyte \(or .*\.gz\) in .*mnist, received none"):
        catalogue_of(str(root))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "received nothing"),
        (idx_file(np.zeros((2, 3), np.uint8)), "begins with 0 0 8 3.*received 0 0 8 2"),
        (idx_file(np.zeros((2, 3, 3), np.uint8), kind=13), "received 0 0 13 3"),
        (idx_file(np.zeros((2, 3, 3), np.uint8))[:-1], "expected 18 bytes for 2x3x3 .* received 17"),
        (idx_file(np.zeros((2, 3, 3), np.uint8)) + b"x", "received 19"),
        (bytes([0, 0, 8, 3]) + b"\xff" * 12, "expected 79,228,162,458,924,105,385,300,197,375 bytes"),
        (gzip.compress(idx_file(np.zeros((2, 3, 3), np.uint8)), mtime=0)[:-9], "cannot unzip"),
    ],
)
def test_damaged_idx_files(data: bytes, words: str) -> None:
    with pytest.raises(TrainingError, match=words):
        idx.read(data, "a file", 3)


def test_pictures_of_arrays_are_png_files_too(tmp_path: Path) -> None:
    for root in (as_binary(tmp_path / "cifar"), as_idx(tmp_path / "mnist")):
        catalogue = catalogue_of(str(root))
        item = catalogue.of("test")[3]
        assert isinstance(item.content, Pixels)
        with Image.open(io.BytesIO(item.read())) as picture:
            assert picture.format == "PNG"
            assert np.array_equal(np.asarray(picture), item.content.row)
        height, width, *channels = item.content.row.shape
        spec = images.ImageSpec(height, width, channels[0] if channels else 1)
        assert np.array_equal(decode([item], spec, "")[0], images.decode(item.read(), spec))
        other = images.ImageSpec(20, 24, 1)
        assert np.array_equal(decode([item], other, "")[0], images.decode(item.read(), other))
