"""The keeper of one tritonserver: a small process that ends it when its owner is gone, however the owner died.

Run as `python supervisor.py OWNER_PID RUN_DIR SHM_PREFIX COMMAND...` with a pipe from the owner on standard input. The
line `stop N` on it asks for a drain of at most N seconds; the end of the pipe, or a new parent, means that the owner
died. The owner starts it in a session of its own, so that a Ctrl-C or a kill of the owner's process group does not
reach it. In every case no process of the server, no shared-memory file and no run directory is left. Standard library
only.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

SHARED_MEMORY = Path("/dev/shm")
POLL_S = 0.2
PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> int:
    """Start the server, wait for its end or its owner's, clean up.

    Returns the server's exit status: 128 and the signal's number, as a shell does, where a signal ended it.
    """
    owner, run_dir, shm_prefix, command = int(arguments[0]), Path(arguments[1]), arguments[2], arguments[3:]
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    libc = ctypes.CDLL(None)

    def before_exec() -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)

    with (run_dir / "triton.log").open("ab") as log:
        server = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            preexec_fn=before_exec,  # safe: this process has one thread
            process_group=0,
        )
    drain_s = _wait(server, owner)
    if drain_s is not None:
        _stop(server, drain_s)
    _kill_group(server.pid)
    status = server.wait()
    remove_shared_memory(shm_prefix)
    if os.getppid() != owner:  # an owner that lives still wants to read the log
        shutil.rmtree(run_dir, ignore_errors=True)
    return status if status >= 0 else 128 - status


def _wait(server: subprocess.Popen[bytes], owner: int) -> float | None:
    """Seconds of drain asked for, 0 when the owner is gone, None when the server ended by itself."""
    while server.poll() is None:
        if os.getppid() != owner:
            return 0
        readable, _, _ = select.select([0], [], [], POLL_S)
        if readable:
            line = os.read(0, 256).decode()
            return float(line.split()[1]) if line.startswith("stop ") else 0
    return None


def _stop(server: subprocess.Popen[bytes], drain_s: float) -> None:
    if drain_s <= 0:
        return
    with contextlib.suppress(ProcessLookupError):
        server.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + drain_s
    while server.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)


def _kill_group(group: int) -> None:
    """SIGKILL what is left of the server's process group: tritonserver itself and its python stubs."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def remove_shared_memory(prefix: str) -> None:
    """Remove the python backend's shared-memory files that begin with `prefix`."""
    for path in SHARED_MEMORY.glob(prefix + "*"):
        with contextlib.suppress(OSError):
            path.unlink()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
