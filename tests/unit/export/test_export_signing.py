"""Keys, signatures, and what a server that asks for them lets in."""

import json
import shutil
import stat
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from export import signing
from export.__main__ import main
from export.errors import ExportError
from server.bundle import read_bundle
from server.errors import BundleError
from server.signatures import read_public_keys
from tests.unit.export.small_bundles import write_small
from tests.unit.server.bundle_factory import graph, weights, write_bundle, write_plain
from tests.unit.server.models_harness import LOAD, OPTIONS, Harness, run


@pytest.fixture
def key(tmp_path: Path) -> Path:
    assert main(["keygen", str(tmp_path / "release.key")]) == 0
    return tmp_path / "release.key"


@pytest.fixture
def stranger(tmp_path: Path) -> Path:
    signing.generate_keys(tmp_path / "stranger.key")
    return tmp_path / "stranger.key"


def sign(folder: Path, key: Path) -> None:
    signing.sign(folder, signing.read_private_key(key))


def public(key: Path) -> Path:
    return key.with_name(f"{key.name}.pub")


def test_only_the_owner_can_read_a_new_key_and_none_is_overwritten(key: Path) -> None:
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    before = key.read_bytes()
    with pytest.raises(ExportError, match="expected no file at"):
        signing.generate_keys(key)
    assert key.read_bytes() == before


def test_another_tool_can_check_a_signature(tmp_path: Path, key: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    folder = write_small(tmp_path / "models", "m", 1)
    sign(folder, key)
    command = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", str(public(key)), "-rawin"]
    command += ["-in", str(folder / "manifest.json"), "-sigfile", str(folder / "manifest.sig")]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    (folder / "manifest.json").write_bytes((folder / "manifest.json").read_bytes() + b" ")
    assert subprocess.run(command, capture_output=True, check=False).returncode != 0


def test_sign_refuses_a_bundle_whose_files_are_not_those_that_were_verified(
    tmp_path: Path, key: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = write_small(tmp_path / "models", "m", 1)
    flags = ["--models", str(tmp_path / "models")]
    assert main(["sign", "m", "--key", str(key), *flags]) == 0
    (folder / "manifest.sig").unlink()
    (folder / "model.onnx").write_bytes(b"the graph of version 2")
    assert main(["sign", "m", "--key", str(key), *flags]) == 2
    assert "it is not the file that was verified" in capfd.readouterr().err
    assert not (folder / "manifest.sig").exists()


def test_what_is_no_private_key_is_one_clear_error(tmp_path: Path, key: Path) -> None:
    with pytest.raises(ExportError, match="unencrypted PEM private key"):
        signing.read_private_key(public(key))
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = other.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (tmp_path / "rsa.key").write_bytes(pem)
    with pytest.raises(ExportError, match="Ed25519 private key"):
        signing.read_private_key(tmp_path / "rsa.key")


def test_trusted_keys_come_from_a_file_of_several_or_a_folder(tmp_path: Path, key: Path, stranger: Path) -> None:
    both = tmp_path / "both.pem"
    both.write_bytes(public(key).read_bytes() + public(stranger).read_bytes())
    assert len(read_public_keys(both)) == 2
    folder = tmp_path / "keys"
    folder.mkdir()
    for one in (key, stranger):
        shutil.copy(public(one), folder)
    shutil.copy(key, folder)  # a private one beside them is not looked at
    assert len(read_public_keys(folder)) == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read: No such file"),
        ("", "expected a PEM public key"),
        ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "cannot be read"),
    ],
)
def test_what_is_no_public_key_is_one_clear_error(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "some.pub"
    if content is not None:
        path.write_text(content)
    with pytest.raises(BundleError, match=message):
        read_public_keys(path)


def change_manifest(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"labels": ["dog", "cat", "frog"]}))


def change_graph(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(graph(weights(9)))


def move_from_another_model(folder: Path) -> None:
    name = json.loads((folder / "manifest.json").read_text())
    assert name["name"] == "pets"
    shutil.rmtree(folder)
    shutil.copytree(folder.parent / "1", folder)  # signed, but as version 1


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda folder: (folder / "manifest.sig").unlink(), "expected a signed bundle"),
        (lambda folder: (folder / "manifest.sig").write_bytes(b"0" * 64), "by one of the 1 trusted keys, it is not"),
        (lambda folder: (folder / "manifest.sig").write_bytes(b""), "by one of the 1 trusted keys, it is not"),
        (lambda folder: sign(folder, folder.parents[1] / "stranger.key"), "by one of the 1 trusted keys, it is not"),
        (change_manifest, "by one of the 1 trusted keys, it is not"),
        (change_graph, "it is not the file that was verified"),
        (move_from_another_model, "it is signed as pets version 1"),
    ],
)
def test_a_server_that_asks_for_signatures_refuses_and_the_old_version_goes_on(
    tmp_path: Path, key: Path, stranger: Path, damage: Callable[[Path], object], reason: str
) -> None:
    models = tmp_path / "models"
    sign(write_bundle(models, "pets", 1), key)
    shutil.copy(stranger, models / "stranger.key")
    options = replace(OPTIONS, load=replace(LOAD, trusted_keys=public(key)))

    async def test(harness: Harness) -> None:
        folder = write_bundle(models, "pets", 2)
        sign(folder, key)
        damage(folder)
        await harness.look()
        assert await harness.ask() == 1
        assert harness.states() == {1: "ready", 2: "failed"}
        assert reason in harness.reason(2)
        assert [event.reason for event in harness.events if event.kind == "failed"] == [harness.reason(2)]

    run(models, test, options)


def test_a_good_signature_is_served_and_a_late_one_too_and_by_a_new_key(
    tmp_path: Path, key: Path, stranger: Path
) -> None:
    models, keys = tmp_path / "models", tmp_path / "keys"
    keys.mkdir()
    shutil.copy(public(key), keys)
    sign(write_bundle(models, "pets", 1), key)
    options = replace(OPTIONS, load=replace(LOAD, trusted_keys=keys))

    async def test(harness: Harness) -> None:
        folder = write_bundle(models, "pets", 2)
        await harness.look()
        assert harness.states() == {1: "ready", 2: "failed"}
        sign(folder, key)
        await harness.look()
        assert await harness.ask() == 2
        shutil.copy(public(stranger), keys)  # the next release is signed with the next key
        sign(write_bundle(models, "pets", 3), stranger)
        await harness.look()
        assert await harness.ask() == 3

    run(models, test, options)


def test_a_folder_without_a_manifest_is_refused_where_signatures_are_asked_for(tmp_path: Path, key: Path) -> None:
    folder = write_plain(tmp_path / "models", "m", 1)
    assert read_bundle(folder).manifest is None
    with pytest.raises(BundleError, match="has no manifest"):
        read_bundle(folder, public(key))
