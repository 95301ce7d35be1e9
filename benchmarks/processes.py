"""A server's processes: which they are, what memory they hold, what CPU time they used."""

import os
from pathlib import Path


def children(pid: int) -> list[int]:
    """Direct children of a process."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += [int(child) for child in (task / "children").read_text().split()]
    return found


def worker_pids(pid: int) -> list[int]:
    """The workers of a server with several: forked from a child of the supervisor that has imported all for them."""
    return [worker for nursery in children(pid) for worker in children(nursery)]


def family(pid: int) -> list[int]:
    """A process and everything it started."""
    found = [pid]
    for child in children(pid):
        found += family(child)
    return found


def family_rss_bytes(pid: int) -> int:
    """Resident memory of a process and everything it started; pages they share count for each."""
    pages = sum(int(Path(f"/proc/{member}/statm").read_text().split()[1]) for member in family(pid))
    return pages * os.sysconf("SC_PAGE_SIZE")


def family_pss_bytes(pid: int) -> int:
    """Memory of a process and everything it started, with shared pages divided among those that share them."""
    total = 0
    for member in family(pid):
        for line in Path(f"/proc/{member}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) * 1024
    return total


def cpu_s(pid: int) -> float:
    """User and system time of one process, in seconds."""
    return _stat_cpu_s(Path(f"/proc/{pid}/stat"))


def _stat_cpu_s(stat: Path) -> float:
    fields = stat.read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def family_cpu_s(pid: int) -> float:
    """User and system time of a process and everything it started, in seconds."""
    return sum(cpu_s(member) for member in family(pid))


def family_native_cpu_s(pid: int) -> float:
    """User and system time of threads that are not Python's, of a process and everything it started, in seconds.

    Libraries in C++ and Rust name their threads (`grpc-native-io`); Python's, up to 3.13, have the process's own name.
    """
    return sum(_native_cpu_s(member) for member in family(pid))


def _native_cpu_s(pid: int) -> float:
    own = Path(f"/proc/{pid}/comm").read_text()
    threads = [task for task in Path(f"/proc/{pid}/task").iterdir() if (task / "comm").read_text() != own]
    return sum(_stat_cpu_s(task / "stat") for task in threads)


def machine_busy_s() -> tuple[float, float]:
    """Seconds that all cores together were busy, and idle, since the start."""
    fields = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    ticks = os.sysconf("SC_CLK_TCK")
    idle = fields[3] + fields[4]
    return (sum(fields) - idle) / ticks, idle / ticks
