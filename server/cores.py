"""How many cores this process may really use: the smaller of its affinity and its cgroup's quota.

`os.cpu_count()` answers the machine's, which in a container is neither.
"""

import math
import os
from pathlib import Path
from typing import Final

CGROUPS: Final = Path("/sys/fs/cgroup")


def available_cores(cgroups: Path = CGROUPS, own: Path = Path("/proc/self/cgroup")) -> int:
    """Whole cores this process may keep busy, at least 1.

    A quota of 1.5 cores counts as 2: one worker and a half leave nothing idle, one alone would.

    Args:
        cgroups: Where the cgroup file system is mounted.
        own: The file that names this process's cgroups.
    """
    cores = float(len(os.sched_getaffinity(0)))
    return max(1, math.ceil(min([cores, *_quotas(cgroups, own)])))


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
