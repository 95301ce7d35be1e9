import os
import subprocess
import sys
from pathlib import Path

import pytest

from server.cores import Pinning, available_cores, own_cores


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
    ("pinning", "workers", "quota_cores", "expected"),
    [
        ("auto", 8, 8, [[0], [4], [1], [5], [2], [6], [3], [7]]),
        ("auto", 8, 4, [[]] * 8),  # a quota: elsewhere others have the same cores
        ("auto", 2, 2, [[]] * 2),
        ("auto", 2, 8, [[]] * 2),
        ("always", 2, 2, [[0, 4, 1, 5], [2, 6, 3, 7]]),
        ("always", 3, 8, [[0, 4], [1, 5, 2], [6, 3, 7]]),
        ("always", 9, 8, [[0], [4], [1], [5], [2], [6], [3], [7], [0]]),
        ("never", 8, 8, [[]] * 8),
    ],
)
def test_workers_keep_to_neighbouring_cores_of_their_own(
    pinning: Pinning,
    workers: int,
    quota_cores: int,
    expected: list[list[int]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(8)))
    topology = two_packages(tmp_path)
    found = [own_cores(pinning, slot, workers, quota_cores=quota_cores, topology=topology) for slot in range(workers)]
    assert found == expected


def test_where_the_system_does_not_describe_its_cores_their_numbers_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {7, 3, 5})
    assert [own_cores("auto", slot, 3, quota_cores=3, topology=tmp_path) for slot in range(3)] == [[3], [5], [7]]


def test_every_thread_keeps_to_the_cores_and_so_do_those_they_start() -> None:
    code = """
import os, threading
from server.cores import keep_to

go, seen = threading.Event(), []
def look():
    go.wait()
    seen.append(os.sched_getaffinity(0))
before = threading.Thread(target=look)
before.start()
core = max(os.sched_getaffinity(0))
keep_to([core])
go.set()
before.join()
after = threading.Thread(target=look)
after.start()
after.join()
keep_to([100_000])  # there is none of that number
assert seen == [{core}, {core}], seen
assert os.sched_getaffinity(0) == {core}
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)
