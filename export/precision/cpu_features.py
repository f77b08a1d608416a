"""Whether this CPU multiplies INT8 in one instruction, without which INT8 is hardly faster than FP32."""

from __future__ import annotations

import platform
from pathlib import Path

INSTRUCTIONS = ("amx_int8", "avx512_vnni", "avx_vnni", "asimddp", "i8mm")
"""Names in /proc/cpuinfo of the multiplications of 8-bit numbers into 32-bit sums, x86's and Arm's."""


def found(cpuinfo: Path = Path("/proc/cpuinfo")) -> list[str]:
    """The INSTRUCTIONS that this CPU has; none where the system does not report them."""
    try:
        text = cpuinfo.read_text(encoding="utf-8")
    except OSError:
        return []
    flags = {word for line in text.splitlines() if line.startswith(("flags", "Features")) for word in line.split()}
    return [name for name in INSTRUCTIONS if name in flags]


def sentence(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """A sentence for a person about the speed of INT8 on this CPU."""
    names = found(cpuinfo)
    if names:
        return f"this CPU multiplies INT8 natively ({', '.join(names)})"
    return f"this CPU ({platform.machine()}) has no VNNI or the like: INT8 saves memory here and little time, if any"
