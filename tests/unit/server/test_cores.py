import os
from pathlib import Path

import pytest

from server.cores import available_cores


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
