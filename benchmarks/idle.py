"""Memory of the server's process tree at idle, and the time until it is ready, with all bundled models loaded."""

from __future__ import annotations

import time
from pathlib import Path

import psutil

from benchmarks.row import Row, from_repetitions
from fathom.console.options import default_config_name
from server import TritonServer


def measure(repository: Path, *, repetitions: int = 3) -> list[Row]:
    """Resident memory (shared pages counted once per process, as `ps` does) and seconds to readiness."""
    resident, proportional, ready = [], [], []
    for _ in range(repetitions):
        start = time.monotonic()
        with TritonServer(repository, config_name=default_config_name(repository), stop_timeout_s=0) as server:
            ready.append(time.monotonic() - start)
            time.sleep(2)
            root = psutil.Process(server.pid)
            tree = [root, *root.children(recursive=True)]
            resident.append(sum(process.memory_info().rss for process in tree) / 1e9)
            proportional.append(sum(process.memory_full_info().pss for process in tree) / 1e9)
            detail = f"{len(tree)} processes"
    return [
        from_repetitions("idle server tree, resident", resident, unit="GB", wanted="<= 1.5", detail=detail),
        from_repetitions("idle server tree, proportional", proportional, unit="GB", detail="shared pages divided"),
        from_repetitions(
            "seconds until ready", ready, unit="s", wanted="<= 15", detail="all bundled models, warmed up"
        ),
    ]
