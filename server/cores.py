"""How many cores this process may really use, and which of them a worker keeps to.

The number is the smaller of affinity and the cgroup's quota; `os.cpu_count()` answers the machine's, which in a
container is neither.
"""

import math
import os
from contextlib import suppress
from pathlib import Path
from typing import Final, Literal

CGROUPS: Final = Path("/sys/fs/cgroup")
TOPOLOGY: Final = Path("/sys/devices/system/cpu")
THREADS: Final = Path("/proc/self/task")

Pinning = Literal["auto", "always", "never"]


def available_cores(cgroups: Path = CGROUPS, own: Path = Path("/proc/self/cgroup")) -> int:
    """Whole cores this process may keep busy, at least 1.

    A quota of 1.5 cores counts as 2: one worker and a half leave nothing idle, one alone would.

    Args:
        cgroups: Where the cgroup file system is mounted.
        own: The file that names this process's cgroups.
    """
    cores = float(len(os.sched_getaffinity(0)))
    return max(1, math.ceil(min([cores, *_quotas(cgroups, own)])))


def own_cores(
    pinning: Pinning, slot: int, workers: int, *, quota_cores: int | None = None, topology: Path = TOPOLOGY
) -> list[int]:
    """Which cores one of several workers keeps to; none where it may run on all.

    Where a scheduler has put two workers on one core, they wait for each other until it looks again, milliseconds
    later. At half of the peak that was most of what a client waited for (docs/performance.md). With a worker for each
    core none has to move.

    Args:
        pinning: `auto` keeps workers apart where each has a core for itself and no quota takes some of it: elsewhere
            other containers have the same cores, and all would begin at the first.
        slot: Which place among the workers it fills, from 0.
        workers: How many there are.
        quota_cores: What `available_cores` says, which is the default.
        topology: Where the system describes its cores.

    Returns:
        Numbers of cores. With fewer workers than cores neighbours: of one package, both threads of a core together.
    """
    cores = sorted(os.sched_getaffinity(0), key=lambda core: _place(topology / f"cpu{core}" / "topology", core))
    alone = workers == len(cores) == (available_cores() if quota_cores is None else quota_cores)
    if pinning == "never" or (pinning == "auto" and not alone):
        return []
    if workers >= len(cores):
        return [cores[slot % len(cores)]]
    return cores[slot * len(cores) // workers : (slot + 1) * len(cores) // workers]


def keep_to(cores: list[int], threads: Path = THREADS) -> None:
    """Keeps every thread of this process, and what they start from now on, to some cores.

    Args:
        cores: Their numbers; of those that are gone nothing is said, and where all are gone nothing is done.
        threads: The folder that has an entry for each thread.
    """
    for thread in threads.iterdir():
        with suppress(OSError):  # it has ended, or none of the cores is left to this process
            os.sched_setaffinity(int(thread.name), cores)


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
