"""copy and pull: the same bytes arrive, checked, at once, and nothing is overwritten."""

import shutil
import uuid
from pathlib import Path

import fsspec
import pytest

from export import bundle, signing, transfer
from export.__main__ import main
from export.errors import ExportError
from tests.unit.export.small_bundles import write_small


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = write_small(tmp_path / "models", "m", 3, report={"schema": 1})
    signing.generate_keys(tmp_path / "key")
    signing.sign(folder, signing.read_private_key(tmp_path / "key"))
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("scheme", ["", "file://", "memory://"])
def test_a_bundle_comes_back_as_it_went(tmp_path: Path, source: Path, scheme: str) -> None:
    place = f"{scheme}{tmp_path if scheme != 'memory://' else '/' + uuid.uuid4().hex}/elsewhere"
    keys = ["--trusted-keys", str(tmp_path / "key.pub")]
    assert main(["copy", "m/latest", place, "--models", str(source.parents[1]), *keys]) == 0
    assert main(["pull", f"{place}/m/3", "--models", str(tmp_path / "here"), *keys]) == 0
    assert contents(tmp_path / "here" / "m" / "3") == contents(source)
    assert "manifest.sig" in contents(source)


def test_the_same_bundle_again_is_no_error_and_another_one_is(
    tmp_path: Path, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    here = ["--models", str(tmp_path / "here")]
    assert main(["pull", str(source), *here]) == 0
    assert main(["pull", str(source), *here]) == 0
    assert "is there already" in capsys.readouterr().out
    other = write_small(tmp_path / "other", "m", 3, labels=["frog"])
    with pytest.raises(ExportError, match="versions are never overwritten"):
        transfer.pull(str(other), tmp_path / "here", None, print)
    with pytest.raises(ExportError, match="versions are never overwritten"):
        transfer.push(other, str(tmp_path / "here"))
    assert contents(tmp_path / "here" / "m" / "3") == contents(source)


def test_what_was_changed_on_the_way_does_not_arrive(tmp_path: Path, source: Path) -> None:
    (source / "model.onnx").write_bytes(b"the graph of version 4")
    with pytest.raises(ExportError, match="it is not the file that was verified"):
        transfer.pull(str(source), tmp_path / "here", None, print)
    assert bundle.names(tmp_path / "here") == []
    with pytest.raises(ExportError, match="it is not the file that was verified"):
        transfer.push(source, str(tmp_path / "there"))
    assert not (tmp_path / "there").exists()


def test_an_unsigned_bundle_does_not_arrive_where_keys_are_given(tmp_path: Path, source: Path) -> None:
    (source / "manifest.sig").unlink()
    with pytest.raises(ExportError, match="expected a signed bundle"):
        transfer.pull(str(source), tmp_path / "here", tmp_path / "key.pub", print)
    assert bundle.names(tmp_path / "here") == []


def test_the_manifest_arrives_last(tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[str] = []
    system = fsspec.filesystem("file")
    honest = system.put_file

    def put_file(here: str, there: str) -> None:
        sent.append(Path(there).name)
        honest(here, there)

    monkeypatch.setattr(system, "put_file", put_file)
    transfer.push(source, str(tmp_path / "there"))
    assert sent[-1] == "manifest.json"
    assert set(sent) == {path.name for path in source.iterdir()}


def test_a_manifest_cannot_lead_out_of_the_bundle(tmp_path: Path, source: Path) -> None:
    text = (source / "manifest.json").read_text().replace('"model.onnx"', '"../../model.onnx"')
    (source / "manifest.json").write_text(text)
    with pytest.raises(ExportError, match="expected the manifest to name files inside the bundle"):
        transfer.pull(str(source), tmp_path / "here", None, print)


def test_a_bundle_under_another_number_is_refused(tmp_path: Path, source: Path) -> None:
    shutil.copytree(source, tmp_path / "moved" / "m" / "4")
    with pytest.raises(ExportError, match="its manifest says m version 3"):
        transfer.pull(str(tmp_path / "moved" / "m" / "4"), tmp_path / "here", None, print)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["copy", "m", "x"], "expected NAME/VERSION"),
        (["copy", "m/9", "x"], "expected version latest or one of [3]"),
        (["copy", "m/3", "nonsense://x"], "that fsspec can open"),
        (["pull", "nowhere"], "expected a URL that ends in NAME/VERSION"),
        (["pull", "nowhere/m/3"], "expected a bundle with a file"),
    ],
)
def test_bad_words_are_one_line(
    source: Path, arguments: list[str], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, "--models", str(source.parents[1])]) == 2
    error = capfd.readouterr().err
    assert message in error
    assert error.count("\n") == 1
