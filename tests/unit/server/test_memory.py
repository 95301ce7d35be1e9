import ctypes
import re
import subprocess
import sys
from pathlib import Path

import pytest

# glibc itself says how many heaps there are, after 16 threads have each allocated something.
PROGRAM = """
import ctypes, sys, threading
from server.memory import limit_arenas

if sys.argv[2] == "limited":
    limit_arenas()
libc = ctypes.CDLL(None)
libc.malloc.restype = libc.fopen.restype = ctypes.c_void_p
everyone = threading.Barrier(16)

def allocate():
    everyone.wait()
    for _ in range(100):
        libc.malloc(ctypes.c_size_t(5_000))
    everyone.wait()

threads = [threading.Thread(target=allocate) for _ in range(16)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
file = ctypes.c_void_p(libc.fopen(sys.argv[1].encode(), b"w"))
libc.malloc_info(0, file)
libc.fclose(file)
"""


def heaps(folder: Path, how: str) -> int:
    report = folder / f"{how}.xml"
    subprocess.run([sys.executable, "-c", PROGRAM, str(report), how], check=True, timeout=30)
    return len(re.findall(r"<heap nr=", report.read_text()))


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_info"), reason="this is not glibc")
def test_threads_share_two_heaps(tmp_path: Path) -> None:
    assert heaps(tmp_path, "limited") <= 2 < heaps(tmp_path, "free")
