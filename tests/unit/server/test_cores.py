import os
import subprocess
import sys
from pathlib import Path

import pytest

from server.cores import available_cores, have_a_core_each, own_cores


@pytest.fixture
def many_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(16)))


def write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


@pytest.mark.usefixtures("many_cores")
@pytest.mark.parametrize(
    ("quota", "cores"),
    [("max 100000", 16), ("200000 100000", 2), ("150000 100000", 2), ("50000 100000", 1), ("9900000 100000", 16)],
)
def test_version_2_quota_counts_whole_cores(tmp_path: Path, quota: str, cores: int) -> None:
    write(tmp_path / "fs", cpu__max=quota)
    write(tmp_path, own="0::/\n")
    assert available_cores(tmp_path / "fs", tmp_path / "own") == cores


@pytest.mark.usefixtures("many_cores")
def test_the_tightest_quota_on_the_way_up_wins(tmp_path: Path) -> None:
    write(tmp_path / "fs" / "pods" / "one", cpu__max="800000 100000")
    write(tmp_path / "fs" / "pods", cpu__max="300000 100000")
    write(tmp_path, own="0::/pods/one\n")
    assert available_cores(tmp_path / "fs", tmp_path / "own") == 3


@pytest.mark.usefixtures("many_cores")
@pytest.mark.parametrize(("quota_us", "cores"), [("400000", 4), ("-1", 16)])
def test_version_1_quota_is_read_too(tmp_path: Path, quota_us: str, cores: int) -> None:
    write(tmp_path / "fs" / "cpu" / "docker", cpu__cfs_quota_us=quota_us, cpu__cfs_period_us="100000")
    write(tmp_path, own="4:cpu,cpuacct:/docker\n2:memory:/docker\n")
    assert available_cores(tmp_path / "fs", tmp_path / "own") == cores


def test_affinity_counts_where_there_is_no_cgroup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {3, 5, 7})
    assert available_cores(tmp_path, tmp_path / "missing") == 3


def two_packages(folder: Path) -> Path:
    """Eight numbers as Linux gives them: first one thread of each core, package by package, then the other ones."""
    for core in range(8):
        write(folder / f"cpu{core}" / "topology", physical_package_id=f"{core // 2 % 2}\n", core_id=f"{core % 2}\n")
    return folder


@pytest.mark.parametrize(
    ("workers", "expected"),
    [
        (8, [[0], [4], [1], [5], [2], [6], [3], [7]]),
        (2, [[0, 4, 1, 5], [2, 6, 3, 7]]),
        (3, [[0, 4], [1, 5, 2], [6, 3, 7]]),
        (9, [[0], [4], [1], [5], [2], [6], [3], [7], [0]]),
    ],
)
def test_workers_have_neighbouring_cores_for_themselves(
    workers: int, expected: list[list[int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(8)))
    topology = two_packages(tmp_path)
    assert [own_cores(slot, workers, topology) for slot in range(workers)] == expected


def test_where_the_system_does_not_describe_its_cores_their_numbers_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {7, 3, 5})
    assert [own_cores(slot, 3, tmp_path) for slot in range(3)] == [[3], [5], [7]]


@pytest.mark.parametrize(
    ("workers", "quota_cores", "each"), [(8, 8, True), (8, 4, False), (2, 2, False), (2, 8, False)]
)
def test_a_quota_or_a_core_to_spare_leaves_the_cores_to_the_scheduler(
    workers: int, quota_cores: int, *, each: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(8)))
    assert have_a_core_each(workers, quota_cores) is each


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="there is no other core to keep away from")
def test_a_thread_keeps_to_its_cores_and_roams_among_those_of_the_others() -> None:
    code = """
import os, threading
from server.cores import keep_all_to, keep_to, roam

def in_a_thread(function):
    seen = []
    def work():
        function()
        seen.append(os.sched_getaffinity(0))
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return seen[0]

every = os.sched_getaffinity(0)
end = threading.Event()
other = threading.Thread(target=end.wait)
other.start()
keep_to({max(every)})
keep_to({100_000})  # there is none of that number
assert os.sched_getaffinity(0) == {max(every)}
assert os.sched_getaffinity(other.native_id) == every
assert in_a_thread(lambda: None) == {max(every)}
assert in_a_thread(roam) == every
keep_all_to({min(every)})
assert os.sched_getaffinity(0) == os.sched_getaffinity(other.native_id) == {min(every)}
assert in_a_thread(roam) == {min(every)}
end.set()
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)
