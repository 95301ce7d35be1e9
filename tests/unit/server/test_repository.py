"""What a scan of the models folder sees, and what follows from it."""

import os
import shutil
from pathlib import Path

import pytest

from server.errors import StartupError
from server.repository import Load, ModelFolder, Scan, Unload, VersionPolicy, next_step, scan, settle
from tests.unit.server.bundle_factory import write_bundle, write_plain

A, B = (("model.onnx", 1, 10, 100),), (("model.onnx", 2, 20, 200),)


def seen(folder: Path) -> dict[str, list[int]]:
    return {name: sorted(model.versions) for name, model in scan(folder).models.items()}


def test_scan_finds_bundles_and_plain_folders(tmp_path: Path) -> None:
    write_bundle(tmp_path, "pets", 1)
    write_bundle(tmp_path, "pets", 12)
    write_plain(tmp_path, "any", 2)
    assert seen(tmp_path) == {"any": [2], "pets": [1, 12]}


@pytest.mark.parametrize("name", ["latest", "0", "007", "-1", "1.5", ".3", "3.partial", "٣", "1" * 19])
def test_folder_whose_name_is_no_version_is_passed_over(tmp_path: Path, name: str) -> None:
    write_plain(tmp_path, "any", 2).rename(tmp_path / "any" / name)
    assert seen(tmp_path) == {"any": []}


def test_hidden_models_files_and_half_written_versions_are_passed_over(tmp_path: Path) -> None:
    write_plain(tmp_path, ".hidden", 1)
    (tmp_path / "README.md").touch()
    write_plain(tmp_path, "any", 1)
    (tmp_path / "any" / "2").mkdir()
    (tmp_path / "any" / "2" / "golden.npz").touch()
    (tmp_path / "any" / "3").touch()
    assert seen(tmp_path) == {"any": [1]}


def test_scan_of_no_folder_raises(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        scan(tmp_path / "none")


def test_stamp_changes_with_the_graph_and_with_the_manifest_only(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path, "pets", 1)
    first = scan(tmp_path)
    (folder / "notes.txt").touch()
    assert scan(tmp_path) == first
    for file in ("manifest.json", "model.onnx"):
        before = scan(tmp_path)
        os.utime(folder / file, ns=(1, 1))
        assert scan(tmp_path).models["pets"].versions != before.models["pets"].versions


def test_policy_file_is_read_with_the_scan(tmp_path: Path) -> None:
    write_plain(tmp_path, "any", 1)
    assert scan(tmp_path).models["any"].policy is None
    (tmp_path / "any" / "policy.json").write_bytes(b'{"default": 1}')
    assert scan(tmp_path).models["any"].policy == b'{"default": 1}'


def test_unreadable_model_keeps_its_last_known_state(tmp_path: Path) -> None:
    write_plain(tmp_path, "any", 1)
    before = scan(tmp_path)
    (tmp_path / "any" / "policy.json").mkdir()  # cannot be read, whoever runs the test
    now = scan(tmp_path, before)
    assert now.models == before.models
    assert now.problems == {"any": f"{tmp_path / 'any'} cannot be read: Is a directory"}
    assert scan(tmp_path).models == {}


def test_model_that_goes_away_during_the_scan_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_plain(tmp_path, "any", 1)
    scandir = os.scandir

    def remove_then_scan(folder: Path) -> object:
        if folder.name == "any":
            monkeypatch.undo()
            shutil.rmtree(folder)
        return scandir(folder)

    monkeypatch.setattr("server.repository.os.scandir", remove_then_scan)
    assert scan(tmp_path) == Scan()


def test_version_that_goes_away_during_the_scan_is_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_plain(tmp_path, "any", 1)
    scandir = os.scandir

    def remove_then_scan(folder: Path) -> object:
        if folder.name == "1":
            monkeypatch.undo()
            shutil.rmtree(folder)
        return scandir(folder)

    monkeypatch.setattr("server.repository.os.scandir", remove_then_scan)
    assert scan(tmp_path).models["any"].versions == {}


def one(**versions: object) -> Scan:
    return Scan({"any": ModelFolder("any", {int(name[1:]): stamp for name, stamp in versions.items()})})  # type: ignore[misc]


def test_new_version_is_believed_when_seen_twice_alike() -> None:
    believed = settle(one(v1=A, v2=A), one(v1=A), one(v1=A))
    assert believed == one(v1=A)
    assert settle(one(v1=A, v2=B), one(v1=A, v2=A), believed) == one(v1=A)  # it is still being copied
    assert settle(one(v1=A, v2=B), one(v1=A, v2=B), believed) == one(v1=A, v2=B)


def test_version_that_is_being_overwritten_keeps_its_old_stamp() -> None:
    assert settle(one(v1=B), one(v1=A), one(v1=A)) == one(v1=A)
    assert settle(one(v1=B), one(v1=B), one(v1=A)) == one(v1=B)


def test_deletion_is_believed_at_once() -> None:
    assert settle(one(), one(v1=A), one(v1=A)) == one()
    assert settle(Scan(), one(v1=A), one(v1=A)) == Scan()


@pytest.mark.parametrize(
    ("text", "picked"),
    [
        ("latest", {9}),
        ("latest:2", {5, 9}),
        ("all", {1, 5, 9}),
        ("1, 5,7", {1, 5}),
        (" 9 ", {9}),
        ("latest:99", {1, 5, 9}),
    ],
)
def test_version_policy_picks(text: str, picked: set[int]) -> None:
    assert VersionPolicy.parse(text).pick([5, 1, 9]) == picked


@pytest.mark.parametrize("text", ["", "latest:0", "latest:x", "all:2", "1,,2", "newest", "-1"])
def test_version_policy_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(StartupError, match="expected 'latest', 'latest:<count>', 'all' or versions"):
        VersionPolicy.parse(text)


@pytest.mark.parametrize("text", ["latest:1", "latest:3", "all", "1,5"])
def test_version_policy_is_spelled_as_it_is_read(text: str) -> None:
    assert str(VersionPolicy.parse(text)) == text


def test_newest_is_loaded_first_then_the_old_one_let_go() -> None:
    available = {1: A, 2: A, 3: A}
    assert next_step(available, {1: A}, {2, 3}, {}) == Load(3, A)
    assert next_step(available, {1: A, 3: A}, {2, 3}, {}) == Load(2, A)
    assert next_step(available, {1: A, 2: A, 3: A}, {2, 3}, {}) == Unload(1)
    assert next_step(available, {2: A, 3: A}, {2, 3}, {}) is None


def test_changed_version_is_loaded_again_once() -> None:
    assert next_step({1: B}, {1: A}, {1}, {}) == Load(1, B)
    assert next_step({1: B}, {1: A}, {1}, {1: B}) is None


def test_rejected_version_waits_for_another_stamp() -> None:
    assert next_step({1: A}, {}, {1}, {1: A}) is None
    assert next_step({1: B}, {}, {1}, {1: A}) == Load(1, B)


def test_last_version_stays_unless_the_model_is_gone() -> None:
    assert next_step({}, {1: A}, set(), {}) is None
    assert next_step({2: A}, {1: A}, {2}, {2: A}) is None
    assert next_step({}, {1: A, 2: A}, set(), {}, present=False) == Unload(1)
    assert next_step({}, {}, set(), {}, present=False) is None
