"""The machine that sends the load, as far as the operating system reports it. A remote server's machine is not seen."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

MACHINE = ("cpu", "cores", "gpus")
"""What of it decides how fast it is."""
_CPUINFO, _MEMINFO, _STAT = Path("/proc/cpuinfo"), Path("/proc/meminfo"), Path("/proc/stat")


def describe_hardware() -> dict[str, Any]:
    """CPU, usable cores, memory, GPUs, operating system. Unknown entries are left out."""
    found: dict[str, Any] = {
        "cpu": _first(_CPUINFO, "model name") or platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "os": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }
    if memory := _first(_MEMINFO, "MemTotal"):
        found["memory_gib"] = round(int(memory.split()[0]) / 1024**2, 1)
    if gpus := _gpus():
        found["gpus"] = gpus
    return found


def available_memory() -> int | None:
    """Bytes that new processes can have without swapping; None where the operating system does not report it."""
    found = _first(_MEMINFO, "MemAvailable")
    return int(found.split()[0]) * 1024 if found else None


class CpuMeter:
    """The share of this machine's CPU time that was busy since the last reading, all processes together."""

    def __init__(self) -> None:
        self._last = _cpu_ticks()

    def read(self) -> float | None:
        """None where the operating system does not report it."""
        last, self._last = self._last, _cpu_ticks()
        if last is None or self._last is None:
            return None
        busy, total = self._last[0] - last[0], self._last[1] - last[1]
        return busy / total if total > 0 else None


def process_cpu_s(root: int) -> float:
    """CPU seconds so far of a process and of those below it that still run; 0 where the system does not report them."""
    parents: dict[int, int] = {}
    ticks: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            fields = path.read_text(errors="replace").rpartition(")")[2].split()
            pid = int(path.parent.name)
            parents[pid], ticks[pid] = int(fields[1]), int(fields[11]) + int(fields[12])
    tree = {root}
    while below := {pid for pid, parent in parents.items() if parent in tree} - tree:
        tree |= below
    return sum(ticks.get(pid, 0) for pid in tree) / os.sysconf("SC_CLK_TCK")


def _cpu_ticks() -> tuple[int, int] | None:
    """Busy and total clock ticks of all cores since the machine started."""
    try:
        fields = [int(field) for field in _STAT.read_text().split("\n", 1)[0].split()[1:9]]
    except (OSError, ValueError):
        return None
    idle = fields[3] + fields[4]
    return sum(fields) - idle, sum(fields)


def _first(path: Path, key: str) -> str:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), "")


def _gpus() -> list[str]:
    tool = shutil.which("nvidia-smi")
    if not tool:
        return []
    query = [tool, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        listed = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in listed.splitlines() if line.strip()]
