"""How many cores this process may really use, and which of them a worker keeps to.

The number is the smaller of affinity and the cgroup's quota; `os.cpu_count()` answers the machine's, which in a
container is neither.
"""

import math
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final, Literal

CGROUPS: Final = Path("/sys/fs/cgroup")
TOPOLOGY: Final = Path("/sys/devices/system/cpu")
THREADS: Final = Path("/proc/self/task")

Pinning = Literal["auto", "loop", "all", "never"]


def available_cores(cgroups: Path = CGROUPS, own: Path = Path("/proc/self/cgroup")) -> int:
    """Whole cores this process may keep busy, at least 1.

    A quota of 1.5 cores counts as 2: one worker and a half leave nothing idle, one alone would.

    Args:
        cgroups: Where the cgroup file system is mounted.
        own: The file that names this process's cgroups.
    """
    cores = float(len(os.sched_getaffinity(0)))
    return max(1, math.ceil(min([cores, *_quotas(cgroups, own)])))


def own_cores(slot: int, workers: int, topology: Path = TOPOLOGY) -> list[int]:
    """Which cores one of several workers has for itself.

    Args:
        slot: Which place among the workers it fills, from 0.
        workers: How many there are.
        topology: Where the system describes its cores.

    Returns:
        Their numbers: one where there is a worker for each core or more of them, else neighbours, of one package and
        with both threads of a core together.
    """
    cores = sorted(os.sched_getaffinity(0), key=lambda core: _place(topology / f"cpu{core}" / "topology", core))
    if workers >= len(cores):
        return [cores[slot % len(cores)]]
    return cores[slot * len(cores) // workers : (slot + 1) * len(cores) // workers]


def have_a_core_each(workers: int, quota_cores: int | None = None) -> bool:
    """Whether there is a worker for each core, and no quota takes some of the cores' time.

    With a quota other containers have the same cores, and all would begin at the first.

    Args:
        workers: How many there are.
        quota_cores: What `available_cores` says, which is the default.
    """
    quota_cores = available_cores() if quota_cores is None else quota_cores
    return workers == len(os.sched_getaffinity(0)) == quota_cores


def keep_to(cores: Iterable[int]) -> None:
    """Keeps the calling thread, and what it starts from now on, to some cores.

    Where a scheduler has put the event loops of two workers on one core, they wait for each other until it looks again,
    milliseconds later: at half of the peak that was most of what a client waited for (docs/performance.md).

    Args:
        cores: Their numbers. Where all of them are gone, nothing is done.
    """
    _keep(0, cores)


def keep_all_to(cores: Iterable[int]) -> None:
    """Keeps every thread of this process, and what they start from now on, to some cores; see `keep_to`."""
    for thread in THREADS.iterdir():
        _keep(int(thread.name), cores)


def roam() -> None:
    """Lets the calling thread run where any thread of this process may; one that the event loop starts could not."""
    _keep(0, set[int]().union(*(_cores_of(int(thread.name)) for thread in THREADS.iterdir())))


def _cores_of(thread: int) -> set[int]:
    try:
        return os.sched_getaffinity(thread)
    except ProcessLookupError:  # it has ended
        return set()


def _keep(thread: int, cores: Iterable[int]) -> None:
    with suppress(OSError):  # it has ended, or none of the cores is left to this process
        os.sched_setaffinity(thread, cores)


def _place(folder: Path, core: int) -> tuple[int, int, int]:
    try:
        return int((folder / "physical_package_id").read_text()), int((folder / "core_id").read_text()), core
    except (OSError, ValueError):
        return 0, core, core


def _quotas(cgroups: Path, own: Path) -> list[float]:
    """The quotas of this process's cgroup and all above it, in cores."""
    found = []
    for folder in _folders(cgroups, own):
        found += [_quota_v2(folder / "cpu.max"), _quota_v1(folder)]
    return [quota for quota in found if quota is not None]


def _folders(cgroups: Path, own: Path) -> list[Path]:
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return [cgroups]
    folders = [cgroups, cgroups / "cpu"]
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        root = cgroups / "cpu" if controllers else cgroups
        parts = Path(path.lstrip("/"))
        folders += [root / parent for parent in [parts, *parts.parents]]
    return folders


def _quota_v2(file: Path) -> float | None:
    """In version 2: `<quota µs> <period µs>`, or `max <period>` where there is none."""
    try:
        quota, period = file.read_text().split()
    except (OSError, ValueError):
        return None
    return None if quota == "max" else int(quota) / int(period)


def _quota_v1(folder: Path) -> float | None:
    try:
        quota = int((folder / "cpu.cfs_quota_us").read_text())
        period = int((folder / "cpu.cfs_period_us").read_text())
    except (OSError, ValueError):
        return None
    return quota / period if quota > 0 else None
