"""Where each microsecond goes: stacks belong to stages, stages are code that there is, and they add up to the whole."""

import argparse
import ast
import os
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from benchmarks import stages as command
from benchmarks.processes import family_native_cpu_s
from benchmarks.render_tables import stages as render_stages
from benchmarks.sampler import Samples, install
from benchmarks.stage_table import NATIVE, REST, STAGES, Place, count, rounded, split, stacks

ROOT = Path(__file__).resolve().parents[3]
SITE = "/x/.venv/lib/python3.11/site-packages"
# Two processes of one server, as a supervisor and its workers are: each samples itself.
SERVER = """
import os
from pathlib import Path

def spin():
    while "in spin" not in Path({folder!r}, str(os.getpid())).read_text():
        sum(range(10_000))

child = os.fork()
spin()
if child:
    os.waitpid(child, 0)
"""


def written(*frames: str) -> str:
    """A sample as faulthandler writes it: file and function, innermost first."""
    told = [f'  File "{file}", line 7 in {function}\n' for file, function in (frame.split() for frame in frames)]
    return "Stack (most recent call first):\n" + "".join(told)


LOOP = ("/x/python3.11/asyncio/runners.py run", "/x/shoal/server/__main__.py main")
HOT = ("/x/shoal/server/transports/http_connection.py data_received", *LOOP)


@pytest.mark.parametrize(
    ("frames", "stage"),
    [
        ((f"{SITE}/onnxruntime/capi/session.py run", "/x/shoal/server/executor.py _timed_run"), "inference"),
        (LOOP, "event loop: wake, read, turn"),
        (HOT, "HTTP: head and task"),
        (("/x/shoal/server/transports/request_ids.py request_id_of", *HOT), "HTTP: head and task"),
        (("/x/shoal/server/png.py _unpack", "/x/shoal/server/service.py _decode", *LOOP), "decoding the picture"),
        (("/x/python3.11/weakref.py add", "/x/shoal/server/batcher.py _enqueue", *LOOP), "batcher"),
        (("/x/shoal/server/transports/codecs/plain.py encode_response", *LOOP), "building the answer"),
        (("/x/shoal/server/transports/codecs/plain.py decode_request", *LOOP), "reading what is asked"),
        (("/x/shoal/server/transports/http_connection.py _end", *LOOP), "writing the answer"),
        (
            ("/x/python3.11/threading.py wait", "/x/shoal/server/predictions/observer.py _work"),
            "metrics, log, drift",
        ),
        ((f"{SITE}/pygrpc_native/aio.py _on_events", *LOOP), "gRPC: calls, protobuf"),
        (("/x/python3.11/threading.py wait", "/x/shoal/server/nothing.py work"), REST),
        (("/x/shoal/server/nothing.py work", *LOOP), REST),
        (("/x/shoal/server/nothing.py work", "/x/shoal/server/own_thread.py _work"), REST),
        (("/x/shoal/server/own_thread.py _work", "/x/python3.11/threading.py run"), "to a thread and back"),
        (("/x/otherserver/batcher.py submit",), REST),
        ((), REST),
    ],
)
def test_a_stack_belongs_to_its_innermost_frame_that_has_a_stage(frames: tuple[str, ...], stage: str) -> None:
    assert count(written(*frames)) == {stage: 1}


def test_every_sample_is_counted_once() -> None:
    text = "cut off\n" + written(*LOOP) + written() + written(*HOT) + written(*LOOP)
    assert [len(stack) for stack in stacks(text)] == [2, 0, 3, 2]
    assert count(text) == {"event loop: wake, read, turn": 2, "HTTP: head and task": 1, REST: 1}


def test_the_stages_add_up_to_the_cpu_time_and_what_has_no_row_is_shown() -> None:
    found = split({"inference": 60, "batcher": 30, REST: 10}, 0.2, 250.0)
    assert sum(found.values()) == pytest.approx(250.0)
    told = {name: us for name, us in found.items() if us}
    assert told == pytest.approx({"inference": 120.0, "batcher": 60.0, NATIVE: 50.0, REST: 20.0})
    assert list(found) == [stage.name for stage in STAGES]


def test_no_sample_at_all_says_what_to_do() -> None:
    with pytest.raises(ValueError, match=r"expected samples of the server's stacks, received none: run it where"):
        split({}, 0.0, 100.0)


@pytest.mark.parametrize(
    ("values", "whole"),
    [([0.5, 0.5, 1.0], [1, 0, 1]), ([1.4, 1.4, 1.4], [2, 1, 1]), ([0.0, 99.6, 0.7], [0, 99, 1]), ([], [])],
)
def test_whole_microseconds_add_up_too(values: list[float], whole: list[int]) -> None:
    assert rounded(values) == whole
    assert sum(whole) == round(sum(values))


def places() -> Iterator[tuple[str, Place]]:
    for stage in STAGES:
        for place in stage.places:
            yield stage.name, place


@cache
def functions_of(file: Path) -> set[str]:
    tree = ast.parse(file.read_text())
    named = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    return named | ({"<lambda>"} if any(isinstance(node, ast.Lambda) for node in ast.walk(tree)) else set())


@pytest.mark.parametrize(("stage", "place"), [pytest.param(*each, id=f"{each[0]}-{each[1].path}") for each in places()])
def test_a_place_of_a_stage_is_code_that_there_is(stage: str, place: Place) -> None:
    homes = [ROOT, Path(sysconfig.get_path("purelib")), Path(sysconfig.get_path("stdlib"))]
    found = [home / place.path for home in homes if (home / place.path).exists()]
    assert found, f"{stage}: there is no {place.path} any more"
    if place.functions:
        assert set(place.functions) <= functions_of(found[0])


def test_no_code_belongs_to_two_stages() -> None:
    files = {file: functions_of(file) for file in (ROOT / "server").rglob("*.py")}
    for file, functions in files.items():
        for function in functions:
            holding = {stage for stage, place in places() if place.holds((str(file), function))}
            assert len(holding) <= 1, f"{function} of {file} is in {holding}"


def test_every_stage_says_why_and_only_the_last_two_have_no_code() -> None:
    assert len({stage.name for stage in STAGES}) == len(STAGES)
    assert all(stage.why and "|" not in stage.why and not stage.why.endswith(".") for stage in STAGES)
    assert [stage.name for stage in STAGES if not stage.places] == [NATIVE, REST]


def test_the_table_adds_up_and_has_the_engine_beside_it() -> None:
    parts = split({"inference": 1, "batcher": 1, REST: 1}, 0.0, 100.0)
    column = {name: {"us": us, "rounds": [us - 2, us + 2] if us else [0]} for name, us in parts.items()}
    engine = {"1": {"us": 90.2, "rounds": [80.0, 99.6]}}
    lines = render_stages(
        {"stages": {"png": {"cpu_us": {"us": 100.0, "rounds": [100]}, "stages": column}}, "engine": engine}
    )
    cells = [line.split(" | ") for line in lines]
    assert cells[0] == ["| stage", "PNG upload, µs", "why |"]
    assert [row[1] for row in cells[2:] if not row[1].startswith("0")] == [
        *("34 (31–35)", "33 (31–35)", "33 (31–35)", "100", "90 (80–100)")
    ]
    assert cells[-2][0] == "| **all**"
    assert cells[-3][0] == f"| {REST}"
    assert all(len(row) == 3 for row in cells)


def test_every_process_of_a_server_writes_the_stacks_that_used_its_cpu_time(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": install(tmp_path)}
    samples = Samples(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", SERVER.format(folder=str(tmp_path / "samples"))],
        env=environment, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert len(list((tmp_path / "samples").iterdir())) == 2
    text = samples.new()
    assert {stack[-1][1] for stack in stacks(text) if any(function == "spin" for _, function in stack)} == {"<module>"}
    assert text.count("in spin") >= 2
    assert samples.new() == ""


def test_threads_with_names_of_their_own_are_no_python() -> None:
    before_s, ended = family_native_cpu_s(os.getpid()), threading.Event()

    def work() -> None:
        Path(f"/proc/self/task/{threading.get_native_id()}/comm").write_text("grpc-native-io")
        while not ended.is_set():
            sum(range(10_000))

    thread = threading.Thread(target=work)
    thread.start()
    tries = 0
    while family_native_cpu_s(os.getpid()) < before_s + 0.02 and tries < 500:
        ended.wait(0.001)
        tries += 1
    ended.set()
    thread.join()
    assert tries < 500


def test_an_unknown_kind_of_request_is_refused_before_a_server_starts() -> None:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    with pytest.raises(ValueError, match="--columns: expected some of jpeg, png, json, binary, grpc, stream"):
        command.run_command(parser.parse_args(["--columns", "png,hair"]))
