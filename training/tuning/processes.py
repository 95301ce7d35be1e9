"""Who works on a trial: names of machines and processes, and what each worker gets of the machine."""

import hashlib
import os
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Final

_PROC: Final = Path("/proc")
_STARTED: Final = 19  # of the fields after the name in /proc/<pid>/stat; see proc(5), field 22
_DEAD: Final = ("Z", "X")


def host() -> str:
    """Names this machine for people; another one, and its own containers, may have the same name."""
    return socket.gethostname()


def machine() -> str:
    """Names what process numbers mean something in: this machine since its start, and the container in it, if any.

    Returns:
        The host's name and a digest of its boot and of the namespace of process numbers, where the system tells them.
    """
    told = f"{host()} {_boot()} {_namespace()}"
    return f"{host()}-{hashlib.sha256(told.encode()).hexdigest()[:16]}"


def own() -> str:
    """Names this process so that no later process has the same name: its number and when it began."""
    return name(os.getpid())


def name(pid: int) -> str:
    """Names a process; its beginning is left out where the system does not tell."""
    facts = _facts(pid)
    return f"{pid}:{facts[_STARTED]}" if facts else f"{pid}:"


def _boot() -> str:
    try:
        return (_PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _namespace() -> str:
    try:
        return str((_PROC / "self/ns/pid").readlink())
    except OSError:
        return ""


def is_alive(process: str) -> bool:
    """Tells whether a process of this machine, and of its container, still works.

    Args:
        process: As `name` wrote it.
    """
    number, _, started = process.partition(":")
    if not number.isdigit():
        return False
    if started:
        facts = _facts(int(number))
        return bool(facts) and facts[_STARTED] == started and facts[0] not in _DEAD
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _facts(pid: int) -> list[str]:
    try:
        stat = (_PROC / str(pid) / "stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return []
    return stat.rpartition(")")[2].split()


def gpus() -> list[str]:
    """Lists the GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them; without importing TensorFlow."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [one for one in visible.split(",") if one and one != "-1"]
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    command = [program, "--query-gpu=index", "--format=csv,noheader"]
    listed = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 (its path, no words of a user)
    return listed.stdout.split() if listed.returncode == 0 else []


def cores() -> int:
    """Counts the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads(workers: int) -> int:
    """Returns each worker's share of the cores, at least one."""
    return max(1, cores() // workers)
