import hashlib
import hmac
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from server import auth_keys
from server.__main__ import main
from server.auth import Caller
from server.auth_keys import KeyFile, make_key, read_keys
from server.errors import StartupError


@pytest.fixture
def keys() -> dict[str, str]:
    """Three keys by name, and their lines."""
    return dict(make_key(name, ["predict"]) for name in ("a", "b", "c"))


@pytest.fixture
def path(tmp_path: Path, keys: dict[str, str]) -> Path:
    file = tmp_path / "keys"
    file.write_text("\n".join(keys.values()))
    return file


def test_a_key_is_known_by_its_hash_alone(path: Path, keys: dict[str, str]) -> None:
    file = KeyFile(path)
    assert [file.check(key) and file.check(key).name for key in keys] == ["key:a", "key:b", "key:c"]  # type: ignore[union-attr]
    for key in keys:
        assert key not in path.read_text()


def test_a_key_has_256_random_bits_and_a_name_to_find_it_by_where_it_leaked() -> None:
    made = {make_key("x", ["predict"])[0] for _ in range(100)}
    assert len(made) == 100
    assert all(key.startswith("shoal_") and len(key) == len("shoal_") + 43 for key in made)


@pytest.mark.parametrize("which", [0, 1, 2, None])
def test_every_stored_key_is_compared_in_constant_time_whichever_is_sent(
    path: Path, keys: dict[str, str], which: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[tuple[bytes, bytes]] = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return hmac.compare_digest(one, other)

    class Watched:
        compare_digest = staticmethod(compare)

    monkeypatch.setattr(auth_keys, "hmac", Watched)
    sent = "shoal_unknown" if which is None else list(keys)[which]
    KeyFile(path).check(sent)
    stored = [bytes.fromhex(line.split(":")[2]) for line in keys.values()]
    # All of them, in their order, each time against the whole hash: nothing depends on what was sent.
    assert compared == [(hashlib.sha256(sent.encode()).digest(), digest) for digest in stored]


@pytest.mark.parametrize("sent", ["", "shoal_", "\ud800", "ключ", "x" * 10_000])
def test_whatever_is_sent_is_no_fault(path: Path, sent: str) -> None:
    assert KeyFile(path).check(sent) is None


def test_comments_and_blank_lines_say_nothing(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(f"# who\n\n  {make_key('a', ['admin', 'predict'])[1]}  \n")
    (stored,) = read_keys(tmp_path / "keys")
    assert stored.caller.name == "key:a"
    assert stored.caller.scopes == {"admin", "predict"}


@pytest.mark.parametrize(
    "spoil",
    [
        lambda line: line.replace("sha256", "md5"),
        lambda line: line.replace(":predict", ":everything"),
        lambda line: line.replace(":predict", ":"),
        lambda line: line[:-30],
        lambda line: line + ":more",
        lambda line: line.replace("a:", "a b:", 1),
        lambda line: line + "\n" + line,
        lambda line: "shoal_a-key-itself-by-mistake",
    ],
)
def test_a_line_that_is_none_is_said_with_its_number_and_never_quoted(
    tmp_path: Path, spoil: Callable[[str], str]
) -> None:
    key, line = make_key("a", ["predict"])
    (tmp_path / "keys").write_text("# first\n" + spoil(line))
    with pytest.raises(StartupError, match=r"--api-keys: .*keys, line [23]: expected ") as error:
        read_keys(tmp_path / "keys")
    assert line.split(":")[2] not in str(error.value)
    assert "by-mistake" not in str(error.value)
    assert key not in str(error.value)


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="--api-keys: expected a file that can be read"):
        KeyFile(tmp_path / "none")


def test_a_changed_file_is_read_again_and_a_broken_one_is_not_believed(path: Path, keys: dict[str, str]) -> None:
    file = KeyFile(path)
    first, *others = keys
    assert not file.refresh()
    path.write_text("\n".join(keys[key] for key in others))
    assert file.refresh()
    assert file.check(first) is None
    path.write_text("nonsense")
    assert not file.refresh()
    assert file.check(others[0]) is not None
    path.unlink()
    assert not file.refresh()
    assert file.check(others[0]) is not None


def test_the_command_adds_a_line_and_shows_the_key_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "keys"
    assert main(["keys", "new", "ci", "--scopes", "predict,metrics", "--file", str(file)]) == 0
    key = capsys.readouterr().out.strip()
    found = KeyFile(file).check(key)
    assert found is not None
    assert found == Caller("key:ci", frozenset({"predict", "metrics"}))
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    file.write_text(file.read_text().rstrip())  # an editor may leave no line end
    assert main(["keys", "new", "other", "--file", str(file)]) == 0
    assert len(read_keys(file)) == 2


def test_the_command_prints_both_where_no_file_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", "new", "ci"]) == 0
    key, line = (text.split()[1] for text in capsys.readouterr().out.splitlines())
    assert line == f"ci:sha256:{hashlib.sha256(key.encode()).hexdigest()}:predict"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["keys"], "error: the following arguments are required: action, name; usage: python -m server keys new"),
        (["keys", "old", "x"], "error: argument action: invalid choice: 'old'"),
        (["keys", "new", "a b"], "error: expected a name of 1 to 64 letters"),
        (
            ["keys", "new", "x", "--scopes", "all"],
            "error: --scopes: expected scopes of predict, feedback, admin, metrics, received all",
        ),
        (["keys", "new", "x", "--file", "/nowhere/keys"], "error: --file: expected a file that can be written"),
    ],
)
def test_a_wrong_call_is_told_in_one_line(given: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(given) == 2
    told = capsys.readouterr().err
    assert told.startswith(message)
    assert told.count("\n") == 1


def test_a_name_is_given_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(tmp_path / "keys")
    assert main(["keys", "new", "ci", "--file", file]) == 0
    assert main(["keys", "new", "ci", "--file", file]) == 2
    assert "expected a new name, received 'ci'" in capsys.readouterr().err
