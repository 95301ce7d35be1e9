"""How much memory decoded pictures may take."""

import os
from pathlib import Path
from typing import Final

# TensorFlow holds a copy of the rows it gathers from, and the model needs memory too.
SHARE: Final = 1 / 3
_CGROUP: Final = Path("/sys/fs/cgroup")
_MEMINFO: Final = Path("/proc/meminfo")


def limit_bytes(asked_mb: str) -> int:
    """Returns how many bytes of decoded pictures to hold in memory.

    Args:
        asked_mb: Megabytes (10^6 bytes), or "auto" for a third of what is free now.
    """
    return int(available_bytes() * SHARE) if asked_mb == "auto" else int(asked_mb) * 10**6


def available_bytes(meminfo: Path = _MEMINFO, cgroup: Path = _CGROUP) -> int:
    """Returns what this process may still take: the machine's free memory, or less where a container is limited.

    Args:
        meminfo: Linux' account of the machine's memory.
        cgroup: The container's own (control groups, version 2).
    """
    try:
        fields = dict(line.split(":", 1) for line in meminfo.read_text(encoding="ascii").splitlines())
        free = int(fields["MemAvailable"].split()[0]) * 1024
    except OSError:  # no Linux
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min(free, _left_in_container_bytes(cgroup, free))


def _left_in_container_bytes(cgroup: Path, unlimited: int) -> int:
    try:
        limit = (cgroup / "memory.max").read_text(encoding="ascii").strip()
        used = int((cgroup / "memory.current").read_text(encoding="ascii"))
        counted = dict(line.split() for line in (cgroup / "memory.stat").read_text(encoding="ascii").splitlines())
    except OSError:  # not in a container
        return unlimited
    if limit == "max":
        return unlimited
    return max(0, int(limit) - used + int(counted.get("inactive_file", 0)))  # cached files make room when asked
