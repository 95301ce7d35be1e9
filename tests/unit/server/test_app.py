import json
import os
import socket
from pathlib import Path

import pytest

from server import __main__ as entry
from server.announcement import Announcement, announce
from server.app import INLINE_ALONE_S, INLINE_S, _models_options
from server.cli import read_settings
from server.errors import StartupError
from server.sockets import bind, reserve_shared


def test_a_bound_port_is_nobody_elses() -> None:
    with bind("127.0.0.1", 0, flag="--http-port") as mine:
        mine.listen()
        port = mine.getsockname()[1]
        with pytest.raises(StartupError, match=f"--grpc-port: expected a free port on 127.0.0.1, received {port}"):
            bind("127.0.0.1", port, flag="--grpc-port")


def test_a_port_can_be_taken_again_at_once() -> None:
    with bind("127.0.0.1", 0, flag="x") as first:
        first.listen()
        port = first.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client:
            first.accept()[0].close()
            client.recv(1)
    bind("127.0.0.1", port, flag="x").close()


@pytest.mark.parametrize("host", ["203.0.113.1", "not a host"])
def test_an_address_that_is_not_ours(host: str) -> None:
    with pytest.raises(StartupError, match="expected"):
        bind(host, 0, flag="--http-port")


def test_a_shared_port_is_shared_by_those_who_say_so_only() -> None:
    with reserve_shared("127.0.0.1", 0, flag="--grpc-port") as reserved:
        port = reserved.getsockname()[1]
        with socket.socket() as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            other.bind(("127.0.0.1", port))
        with pytest.raises(StartupError, match="--http-port"):
            bind("127.0.0.1", port, flag="--http-port")


def test_the_file_of_ports_appears_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = read_settings(["--host", "0.0.0.0", "--ports-file", str(tmp_path / "ports.json")])
    announce(settings, Announcement("1.2", "pets version 3", has_example=True), 81, 82)
    assert [path.name for path in tmp_path.iterdir()] == ["ports.json"]
    assert json.loads((tmp_path / "ports.json").read_text()) == {"http": 81, "grpc": 82, "pid": os.getpid()}
    said = capsys.readouterr().out
    assert "pets version 3" in said
    assert "http://127.0.0.1:81/" in said
    assert "curl -s http://127.0.0.1:81/example | curl -F file=@- http://127.0.0.1:81/predict" in said


def test_without_an_example_another_line_is_given_to_paste(capsys: pytest.CaptureFixture[str]) -> None:
    announce(read_settings(["--host", "::1"]), Announcement("1.2", "table version 1", has_example=False), 81, 82)
    said = capsys.readouterr().out
    assert "curl http://[::1]:81/model-info" in said
    assert "/example" not in said


def test_a_user_error_is_one_line_on_stderr_and_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert entry.main(["--http-port", "x"]) == 2
    assert capsys.readouterr().err == "error: --http-port: expected a whole number, received 'x'\n"


def test_several_faults_are_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    assert entry.main(["--http-port", "x", "--grpc-port", "y"]) == 2
    assert [line[:7] for line in capsys.readouterr().err.splitlines()] == ["error: "] * 2


@pytest.mark.parametrize(
    ("flags", "cores", "expected_s"),
    [
        ([], 2, INLINE_ALONE_S),
        (["--workers", "2"], 2, INLINE_ALONE_S),
        (["--workers", "1"], 1, INLINE_ALONE_S),
        (["--workers", "1"], 2, INLINE_S),
        (["--providers", "openvino,cpu"], 2, INLINE_ALONE_S),
        (["--providers", "cuda,cpu"], 2, INLINE_S),
        (["--inline-batch-ms", "2.5"], 2, 0.0025),
        (["--workers", "1", "--inline-batch-ms", "0"], 2, 0.0),
    ],
)
def test_longer_batches_run_on_the_loop_where_no_core_is_to_spare(
    flags: list[str], cores: int, expected_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.app.available_cores", lambda: cores)
    assert _models_options(read_settings(flags)).load.executor.inline_s == expected_s
