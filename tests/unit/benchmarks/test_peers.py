"""Other servers beside ours: their settings, what they do with a request, and one of them measured for real."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmarks import photos
from benchmarks.payloads import Target, encoded, infer_request
from benchmarks.peer_servers import Peer, free_ports, read_peers, serve_peer
from benchmarks.peers_run import BESIDE, COLUMNS, reason
from benchmarks.pictures import golden_pictures, newest_bundle
from benchmarks.processes import family
from protos import inference_pb2

ROOT = Path(__file__).resolve().parents[3]
BUNDLE = newest_bundle(ROOT / "models", "digits")
PEERS = read_peers()


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_what_the_settings_name_is_there(peer: Peer) -> None:
    (module,) = re.findall(r"benchmarks\.peers\.(\w+)", " ".join(peer.command))
    assert (ROOT / "benchmarks" / "peers" / f"{module}.py").exists()
    locked = (ROOT / "requirements" / f"{peer.environment}.txt").read_text()
    for package in (peer.package, "onnxruntime", "numpy"):
        assert re.search(rf"^{package}(\[\w+\])?==", locked, re.MULTILINE), package
    assert set(peer.columns) <= set(COLUMNS) - set(BESIDE)
    assert peer.protocol in {"plain", "msgpack", "v2", "v2-json"}


def test_all_peers_run_the_same_engine() -> None:
    locks = [(ROOT / "requirements" / f"{name}.txt").read_text() for name in {peer.environment for peer in PEERS}]
    versions = {re.findall(r"^onnxruntime==(\S+)", lock, re.MULTILINE)[0] for lock in locks}
    ours = re.findall(r"^onnxruntime==(\S+)", (ROOT / "requirements" / "all.txt").read_text(), re.MULTILINE)
    assert versions == set(ours)


def test_peers_are_chosen_by_the_beginning_of_their_names() -> None:
    assert {peer.name.split(",")[0] for peer in read_peers("triton,mosec")} == {"Triton", "mosec"}
    with pytest.raises(ValueError, match=r"--peers: expected some of mosec, Triton, .*; received 'nope'"):
        read_peers("mosec,nope")


@pytest.mark.parametrize("kind", ["jpeg", "png"])
def test_pictures_are_sent_as_the_format_that_the_column_says(kind: str) -> None:
    starts = {"jpeg": b"\xff\xd8", "png": b"\x89PNG"}
    files = encoded(golden_pictures(BUNDLE), kind)
    assert files
    assert all(file.startswith(starts[kind]) for file in files)


def test_every_form_of_a_request_is_the_same_row_for_a_peer(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks.peers.classifier import Classifier  # noqa: PLC0415  loads ONNX Runtime

    pictures = golden_pictures(BUNDLE)
    target = Target("", "", 0, "v2", "digits")
    tensor = inference_pb2.ModelInferRequest.FromString(infer_request(target, pictures))
    pixels = np.frombuffer(tensor.raw_input_contents[0], np.uint8).reshape(tuple(tensor.inputs[0].shape))
    bodies = {"binary": pixels.tobytes(), "json": json.dumps({"data": pixels.tolist()}).encode()}
    monkeypatch.setenv("PEER_GRAPH", str(BUNDLE / "model.int8.onnx"))
    for payload, body in bodies.items():
        monkeypatch.setenv("PEER_PAYLOAD", payload)
        assert np.array_equal(Classifier().read(body), pixels[0])
    monkeypatch.setenv("PEER_PAYLOAD", "picture")
    by_pillow = Classifier()
    monkeypatch.setenv("PEER_DECODE", "shoal")
    rows = [classifier.read(encoded(pictures, "png")[0]) for classifier in (by_pillow, Classifier())]
    assert np.array_equal(rows[0], rows[1])
    assert by_pillow.classify(rows)[0] == by_pillow.classify(rows)[1]


@pytest.mark.parametrize("peer", [peer for peer in PEERS if "--workers" in peer.command], ids=lambda peer: peer.name)
def test_who_is_told_how_many_processes_to_start_is_told_one_for_each_core(peer: Peer) -> None:
    assert peer.command[peer.command.index("--workers") + 1] == "{cores}"


def test_photographs_are_batched_for_mosec_as_for_ours() -> None:
    assert photos.server_flags("--workers 1", 4)[-4:] == ["--max-batch-rows", "4", "--workers", "1"]
    assert {variables["PEER_BATCH"] for _, _, variables in photos._mosecs(4)} == {"4"}
    assert "--max-batch-rows" not in photos.server_flags("", None)
    assert not any("PEER_BATCH" in variables for _, _, variables in photos._mosecs(None))
    with pytest.raises(ValueError, match="say --batch-rows, which mosec gets too"):
        photos.server_flags("--max-batch-rows 4", None)


@pytest.mark.slow
def test_grpcio_has_a_process_for_each_core_on_one_port() -> None:
    with free_ports(1) as (port,):
        pass
    command = [sys.executable, "-m", "benchmarks.peers.grpcio_server", "--grpc-port", str(port), "--workers", "2"]
    environment = os.environ | {"PEER_GRAPH": str(BUNDLE / "model.int8.onnx"), "PEER_PAYLOAD": "binary"}
    with subprocess.Popen(command, cwd=ROOT, env=environment) as process:
        try:
            give_up_s = time.monotonic() + 30
            while len(listeners(port)) < 2 and time.monotonic() < give_up_s:
                assert process.poll() is None
                time.sleep(0.05)
            assert len(listeners(port)) == 2
        finally:
            for member in reversed(family(process.pid)):
                os.kill(member, signal.SIGKILL)


def listeners(port: int) -> list[str]:
    """The sockets that listen on a port: as many as processes, where they share it."""
    tables = [Path("/proc/net", name).read_text().splitlines()[1:] for name in ("tcp", "tcp6")]  # gRPC's are IPv6's
    rows = [line.split() for line in [*tables[0], *tables[1]]]
    return [row[9] for row in rows if row[1].endswith(f":{port:04X}") and row[3] == "0A"]


def test_a_peer_that_is_not_installed_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="run make bench-peers"), serve_peer(PEERS[0], BUNDLE, "jpeg"):
        pass


def test_why_a_peer_was_left_out_is_short_and_names_no_folder_of_this_machine() -> None:
    said = reason(
        RuntimeError(f"it does not listen; its last words: {Path.cwd()}/a.py {'x ' * 500} {Path.home()}/b.py")
    )
    assert said.startswith("it does not listen; its last words: a.py x")
    assert said.endswith("x ~/b.py")
    assert len(said) < 410


@pytest.fixture
def measure(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`python -m benchmarks peers`, with this environment's Python in place of the peers'."""
    python = tmp_path / ".venv-peers" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "benchmarks", "peers", "--models", str(ROOT / "models"), "--model", "digits"]
        command += ["--out", str(tmp_path / "peers.json"), "--rounds", "1", "--seconds", "0.3", "--connections", "4"]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        return subprocess.run(
            [*command, *words], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=120
        )

    return run


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("h2load") is None, reason="h2load is not installed (Debian: nghttp2-client)")
def test_a_peer_is_measured_beside_ours_and_what_does_not_start_is_told(
    measure: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    done = measure("--peers", "grpcio,mlserver", "--columns", "grpc")
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((tmp_path / "peers.json").read_text())
    (row,) = result["peers"]
    assert (row["name"], row["column"], row["connections"]) == ("grpcio, thread pool", "grpc", 4)
    assert row["per_s"] > 0
    assert row["ours_faster"] == [row["ours_per_s"] / row["per_s"]]
    assert row["cpu_us"] > 10  # a call costs more than nothing: the right processes were watched
    assert "run make bench-peers" in result["left_out"]["MLServer, grpc"]
    assert "left out: MLServer, grpc" in done.stdout
    again = measure("--peers", "grpcio", "--columns", "grpc", "--resume")
    assert again.returncode == 0, again.stdout + again.stderr
    assert "per s" not in again.stdout
    assert json.loads((tmp_path / "peers.json").read_text())["peers"] == [row]


def test_a_column_that_does_not_exist_is_one_line(measure: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    done = measure("--columns", "telepathy")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith("error: --columns: expected some of jpeg")
