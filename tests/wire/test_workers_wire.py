"""Several workers under one supervisor, as real processes."""

import contextlib
import json
import os
import signal
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from benchmarks.processes import children, worker_pids
from benchmarks.scrape import sample
from protos import classifier_pb2 as pb
from protos import classifier_pb2_grpc as pb_grpc
from tests.wire.bundles import picture, write_bundle
from tests.wire.http_client import Http
from tests.wire.server_process import ServerProcess, run_server, run_to_end

WITHIN_S = 30


@pytest.fixture
def models(tmp_path: Path) -> Path:
    write_bundle(tmp_path / "models", "grey", 1)
    return tmp_path / "models"


@pytest.fixture
def server(models: Path, tmp_path: Path) -> Iterator[ServerProcess]:
    with run_server(models, tmp_path / "server", "--workers", "2", "--latency-budget-ms", "5000") as process:
        yield process


def wait_until(condition: Callable[[], bool], what: str) -> None:
    give_up_s = time.monotonic() + WITHIN_S
    while not holds(condition):
        assert time.monotonic() < give_up_s, f"not within {WITHIN_S} s: {what}"
        time.sleep(0.05)  # another process is what we wait for


def holds(condition: Callable[[], bool]) -> bool:
    try:
        return condition()
    except ConnectionError:  # given to a worker that has just been killed
        return False


def metrics(server: ServerProcess) -> str:
    with urllib.request.urlopen(f"{server.url}/metrics", timeout=20) as response:
        return str(response.read().decode())


def workers_of(server: ServerProcess) -> list[int]:
    return worker_pids(server.process.pid)


def predict(server: ServerProcess) -> int:
    with Http(server.http_port) as http:
        return http.predict(picture(200), "image/png").status


def predict_or_lose(server: ServerProcess) -> int:
    try:
        return predict(server)
    except ConnectionError:
        return 0


@pytest.mark.slow
def test_every_worker_serves_and_the_metrics_are_those_of_all(server: ServerProcess) -> None:
    assert len(workers_of(server)) == 2
    assert [predict(server) for _ in range(20)] == [200] * 20
    text = metrics(server)
    assert sample(text, "shoal_requests_total", protocol="http") == 20
    by_worker = [sample(text, "shoal_worker_requests_total", slot=slot) for slot in ("0", "1")]
    assert sum(by_worker) == 20
    assert min(by_worker) >= 1
    assert sample(text, "shoal_workers") == 2


@pytest.mark.slow
def test_new_connections_go_to_the_worker_with_the_fewest(server: ServerProcess) -> None:
    connections = [Http(server.http_port) for _ in range(8)]
    for connection in connections:
        connection._connection.connect()
    try:
        wait_until(lambda: shares(server) == [4, 4], "four connections each")
    finally:
        for connection in connections:
            connection._connection.close()
    wait_until(lambda: sum(shares(server)) == 0, "closed connections are forgotten")


def shares(server: ServerProcess) -> list[float]:
    """Connections of each worker, without the one that asks."""
    text = metrics(server)
    held = sorted(sample(text, "shoal_connections", slot=slot) for slot in ("0", "1"))
    return [held[0], held[1] - 1]


@pytest.mark.slow
def test_they_stay_even_after_a_crash_and_many_connections(server: ServerProcess) -> None:
    for _ in range(100):
        predict(server)
    os.kill(workers_of(server)[0], signal.SIGKILL)
    wait_until(lambda: sample(metrics(server), "shoal_worker_restarts_total") == 1, "the crash is noticed")
    wait_until(lambda: sample(metrics(server), "shoal_workers") == 2, "two workers")
    for _ in range(100):
        predict(server)
    wait_until(lambda: sum(shares(server)) == 0, "closed connections are forgotten")
    test_new_connections_go_to_the_worker_with_the_fewest(server)


@pytest.mark.slow
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="two workers keep apart on two cores or more")
@pytest.mark.parametrize("what", ["loop", "all"])
def test_each_worker_keeps_to_its_cores_and_what_writes_predictions_to_none(
    what: str, models: Path, tmp_path: Path
) -> None:
    everywhere = os.sched_getaffinity(0)
    flags = ["--workers", "2", "--pin-workers", what, "--prediction-log", f"sqlite:///{tmp_path}/log.db"]
    with run_server(models, tmp_path / "server", *flags) as server:
        first, second = workers_of(server)
        kept = os.sched_getaffinity(first)
        assert kept.isdisjoint(os.sched_getaffinity(second))
        assert kept | os.sched_getaffinity(second) == everywhere
        write_bundle(models, "grey", 2)  # has threads that begin after the workers'
        loaded = partial(sample, name="shoal_model_events_total", event="ready")
        wait_until(lambda: loaded(metrics(server)) == 4, "version 2 in both")
        assert predict(server) == 200
        for worker in (first, second):
            place = everywhere if what == "loop" else os.sched_getaffinity(worker)
            wait_until(lambda: places_of_others(worker) == {frozenset(place)}, "the other threads' place")  # noqa: B023
        (writer,) = [child for worker in (first, second) for child in children(worker)]
        wait_until(lambda: os.sched_getaffinity(writer) == everywhere, "the writer runs where it can")
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: sample(metrics(server), "shoal_workers") == 2, "two workers")
        (successor,) = set(workers_of(server)) - {first, second}
        assert os.sched_getaffinity(successor) == kept


def places_of_others(pid: int) -> set[frozenset[int]]:
    """Cores that the threads of a process may run on, without its first one's."""
    threads = {int(task.name) for task in Path(f"/proc/{pid}/task").iterdir()} - {pid}
    return {frozenset(os.sched_getaffinity(thread)) for thread in threads}


@pytest.mark.slow
def test_a_killed_worker_comes_back_and_the_other_serves_meanwhile(server: ServerProcess) -> None:
    victim = workers_of(server)[0]
    os.kill(victim, signal.SIGKILL)
    answers = [predict_or_lose(server) for _ in range(10)]
    assert answers.count(200) >= 9, answers  # one may have been given to the dying worker
    wait_until(lambda: sample(metrics(server), "shoal_workers") == 2, "two workers")
    assert victim not in workers_of(server)
    assert sample(metrics(server), "shoal_worker_restarts_total") == 1
    assert "worker ended" in server.log


@pytest.mark.slow
def test_workers_come_back_though_what_they_are_forked_from_was_killed_too(server: ServerProcess) -> None:
    (nursery,), victim = children(server.process.pid), workers_of(server)[0]
    os.kill(nursery, signal.SIGKILL)
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: len(workers_of(server)) == 1, "a worker of another nursery")
    wait_until(lambda: sample(metrics(server), "shoal_workers") == 2, "both serve")
    assert sample(metrics(server), "shoal_worker_restarts_total") == 1
    assert children(server.process.pid) != [nursery]


@pytest.mark.slow
def test_the_supervisor_outlives_all_of_its_workers_and_what_they_are_forked_from(server: ServerProcess) -> None:
    (nursery,) = children(server.process.pid)
    for process in [nursery, *workers_of(server)]:
        os.kill(process, signal.SIGKILL)
    wait_until(lambda: children(server.process.pid) not in ([], [nursery]), "another nursery")
    wait_until(lambda: len(workers_of(server)) == 2, "both workers")
    wait_until(lambda: sample(metrics(server), "shoal_workers") == 2, "both serve")
    assert len(children(server.process.pid)) == 1


@pytest.mark.slow
def test_forked_workers_name_requests_differently(server: ServerProcess) -> None:
    prefixes = set()
    for _ in range(8):
        with Http(server.http_port) as http:
            prefixes.add(http.predict(picture(9), "image/png").headers["x-request-id"].split("-")[0])
    assert len(prefixes) == 2


def files_of(worker: int) -> dict[int, str]:
    found = {}
    for file in Path(f"/proc/{worker}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed since
            found[int(file.name)] = str(file.readlink())
    return found


@pytest.mark.slow
def test_the_supervisor_hears_of_a_death_before_any_client(server: ServerProcess) -> None:
    """Linux closes a killed process's files from the highest number down: the link has to be above all connections."""
    links = {
        line.split()[6] for line in Path("/proc/net/unix").read_text().splitlines()[1:] if line.split()[4] == "0005"
    }
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(Http(server.http_port)) for _ in range(8)]
        assert [connection.get("/health/live").status for connection in connections] == [200] * 8
        for worker in workers_of(server):
            files = files_of(worker)
            sockets = [number for number, target in sorted(files.items()) if target.startswith("socket:")]
            assert files[sockets[-1]].removeprefix("socket:[").removesuffix("]") in links
            assert len(sockets) > 4


@pytest.mark.slow
def test_a_silent_worker_is_no_worker(server: ServerProcess) -> None:
    frozen = workers_of(server)[1]
    os.kill(frozen, signal.SIGSTOP)
    wait_until(lambda: frozen not in workers_of(server), "the frozen worker is replaced")
    wait_until(lambda: len(workers_of(server)) == 2, "two workers")


@pytest.mark.slow
def test_a_rolling_restart_fails_no_request(server: ServerProcess) -> None:
    before, outcomes, stop = set(workers_of(server)), Counter[int](), threading.Event()

    def ask() -> None:
        while not stop.is_set():
            outcomes[predict(server)] += 1

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        server.signal(signal.SIGHUP)
        wait_until(lambda: len(workers_of(server)) == 2 and not before & set(workers_of(server)), "two new workers")
    finally:
        stop.set()
        thread.join()
    assert outcomes.keys() == {200}
    assert sample(metrics(server), "shoal_worker_restarts_total") == 0


@pytest.mark.slow
def test_a_new_version_reaches_every_worker(server: ServerProcess, models: Path) -> None:
    write_bundle(models, "grey", 2)

    def versions() -> set[int]:
        found = set()
        for _ in range(6):
            with Http(server.http_port) as http:
                found.add(json.loads(http.predict(picture(9), "image/png").body)["version"])
        return found

    wait_until(lambda: versions() == {2}, "version 2 answers everywhere")


@pytest.mark.slow
def test_grpc_is_served_by_all_on_one_port(server: ServerProcess) -> None:
    for _ in range(8):
        with server.channel(**{"grpc.use_local_subchannel_pool": 1}) as channel:
            request = pb.ClassifyRequest(encoded=pb.EncodedImages(images=[picture(200)]))
            assert len(pb_grpc.ClassifierStub(channel).Classify(request, timeout=10).predictions) == 1


@pytest.mark.slow
def test_sigterm_stops_all_and_leaves_nobody(server: ServerProcess) -> None:
    everyone = workers_of(server)
    server.signal(signal.SIGTERM)
    assert server.wait() == 0
    assert not [pid for pid in everyone if Path(f"/proc/{pid}").exists()]


@pytest.mark.slow
def test_workers_end_when_their_supervisor_is_killed(server: ServerProcess) -> None:
    everyone = workers_of(server)
    server.signal(signal.SIGKILL)
    wait_until(lambda: not any(alive(pid) for pid in everyone), "the workers end too")


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.slow
def test_workers_that_cannot_start_say_why_once(tmp_path: Path) -> None:
    done = run_to_end("--models", str(tmp_path / "none"), "--workers", "3", "--http-port", "0", "--grpc-port", "0")
    assert done.returncode == 2
    assert done.stderr.count("expected a folder of models") == 1
