"""Bundles on disk: never half-written, never overwritten, one writer at a time."""

import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from export import bundle
from export.errors import ExportError
from protos import bundle_pb2


def test_nothing_is_visible_before_publish(tmp_path: Path) -> None:
    with bundle.staging(tmp_path, "m") as stage:
        stage.write("a", b"1")
        assert bundle.versions(tmp_path, "m") == []
        assert stage.folder.name.startswith(".")
        folder = stage.publish()
        assert bundle.versions(tmp_path, "m") == [1]
    assert (folder / "a").read_bytes() == b"1"
    assert [path.name for path in (tmp_path / "m").iterdir()] == ["1"]


def test_a_failure_removes_what_was_staged_and_keeps_older_versions(tmp_path: Path) -> None:
    with bundle.staging(tmp_path, "m") as stage:
        stage.publish()
    with pytest.raises(IsADirectoryError), bundle.staging(tmp_path, "m") as stage:
        stage.write(".", b"1")
    assert [path.name for path in (tmp_path / "m").iterdir()] == ["1"]


def test_what_a_killed_export_left_is_invisible_and_removed_by_the_next(tmp_path: Path) -> None:
    left = tmp_path / "m" / f"{bundle.PARTIAL}1"
    left.mkdir(parents=True)
    (left / "model.onnx").write_bytes(b"half")
    assert bundle.versions(tmp_path, "m") == []
    with bundle.staging(tmp_path, "m") as stage:
        assert list(stage.folder.iterdir()) == []
        stage.publish()
    assert [path.name for path in (tmp_path / "m").iterdir()] == ["1"]


@given(st.sets(st.integers(0, 40), max_size=6))
def test_the_next_version_is_above_all_others(tmp_path_factory: pytest.TempPathFactory, known: set[int]) -> None:
    models = tmp_path_factory.mktemp("models")
    for version in known:
        (models / "m" / str(version)).mkdir(parents=True)
    with bundle.staging(models, "m") as stage:
        assert stage.version == max(known, default=0) + 1


def test_a_second_export_says_that_it_waits_and_then_goes_on(tmp_path: Path) -> None:
    said: list[str] = []
    waiting, entered = threading.Event(), threading.Event()

    def say(line: str) -> None:
        said.append(line)
        waiting.set()

    def second() -> None:
        with bundle.exclusive(tmp_path, "m", say):
            entered.set()

    thread = threading.Thread(target=second)
    with bundle.exclusive(tmp_path, "m", said.append):
        thread.start()
        assert waiting.wait(10)
        assert not entered.is_set()
    thread.join(10)
    assert entered.is_set()
    assert said == ["another export of m is running; waiting for it to finish"]


def test_another_name_does_not_wait(tmp_path: Path) -> None:
    said: list[str] = []
    with bundle.exclusive(tmp_path, "m", said.append), bundle.exclusive(tmp_path, "n", said.append):
        assert said == []


def test_a_manifest_comes_back_as_it_was_written(tmp_path: Path) -> None:
    manifest = bundle_pb2.Manifest(
        schema=1,
        name="größe",
        version=2**40,
        labels=["ja", "nein"],
        variants=[bundle_pb2.Variant(name="int8", accuracy=0.1)],
    )  # fmt: skip
    (tmp_path / "manifest.json").write_bytes(bundle.manifest_json(manifest))
    assert bundle.read_manifest(tmp_path) == manifest
    assert '"max_abs_difference"' not in (tmp_path / "manifest.json").read_text()
    assert "größe" in (tmp_path / "manifest.json").read_text()


@pytest.mark.parametrize("text", [None, "{", '{"nonsense": 1}'])
def test_a_bad_manifest_is_one_clear_error(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(ExportError, match=r"manifest\.json"):
        bundle.read_manifest(tmp_path)


def test_arrays_are_written_the_same_way_every_time(tmp_path: Path) -> None:
    with bundle.staging(tmp_path, "m") as stage:
        first = stage.write_npz("a.npz", {"x": np.arange(5)}).read_bytes()
        assert stage.write_npz("b.npz", {"x": np.arange(5)}).read_bytes() == first
