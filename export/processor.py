"""What the processor at hand does with int8.

x86 without VNNI multiplies bytes in pairs and adds the two products in 16 bits (`vpmaddubsw`). Two of 255 × 127 are
64,770, which becomes 32,767: answers are wrong, and differently so for each order of the channels. With weights of 7
bits, -64 to 64, two products are 32,640 at most. ONNX Runtime's documentation advises the same (`reduce_range`).
"""

import platform
import re
from pathlib import Path
from typing import Final

_CPUINFO: Final = Path("/proc/cpuinfo")
_X86: Final = ("x86_64", "AMD64", "i686")
_WIDE_SUMS: Final = frozenset({"avx512_vnni", "avx_vnni", "amx_int8"})  # products add up in 32 bits
_STEPS, _FEWER_STEPS = 127, 64


def saturates() -> bool:
    """Tells whether sums of int8 products saturate here; where the system does not tell, that they do not."""
    if platform.machine() not in _X86 or not _CPUINFO.exists():
        return False
    flags = re.findall(r"(?m)^flags\s*:(.*)$", _CPUINFO.read_text("utf-8", "replace"))
    return bool(flags) and _WIDE_SUMS.isdisjoint(flags[0].split())


def weight_steps() -> int:
    """Returns the largest int8 weight of a graph that is made here."""
    return _FEWER_STEPS if saturates() else _STEPS
