"""The keeper of one tritonserver: a small process that ends it when its owner is gone, however the owner died.

Run as `python supervisor.py OWNER_PID RUN_DIR SHM_PREFIX` with a pipe from the owner on standard input; the server's
command line is in the file STATE of RUN_DIR, since it has a secret. The line `stop N` on the pipe asks for a drain of
at most N seconds; the end of the pipe, or a new parent, means that the owner died. The owner starts it in a session of
its own, so that a Ctrl-C or a kill of the owner's process group does not reach it. A server whose log says that it
crashed is ended, too, since it may hang in its own report. In every case no process of the server, no shared-memory
file and no run directory is left. Standard library only.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import math
import os
import select
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

SHARED_MEMORY = Path("/dev/shm")
STATE, LOG = "server.json", "triton.log"
POLL_S = 0.2
CRASHES = {int(number): f"Signal ({number:d}) received." for number in (signal.SIGSEGV, signal.SIGABRT)}
"""What Triton's handler of these signals writes first."""
REPORT_S = 5.0
"""The stack trace that follows: for each frame a process, through a pipe. A stub that starts meanwhile inherits the
pipe's end, and the handler waits for it forever, while other threads of the server still answer."""
PR_SET_PDEATHSIG = 1
PTRACE_TRACEME, PTRACE_POKEDATA, PTRACE_DETACH = 0, 5, 17

Server = subprocess.Popen[bytes]


def main(arguments: list[str]) -> int:
    """Start the server, wait for its end or its owner's, clean up.

    Returns the server's exit status: 128 and the signal's number, as a shell does, where a signal ended it.
    """
    owner, run_dir, shm_prefix = int(arguments[0]), Path(arguments[1]), arguments[2]
    state = json.loads((run_dir / STATE).read_text())
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    with (run_dir / LOG).open("ab") as log:
        server = start(state["command"], state["admin_token"], log)
    with (run_dir / LOG).open("rb") as written:
        drain_s = _wait(server, owner, shm_prefix, written)
    if drain_s is not None:
        _stop(server, drain_s)
    _kill_group(server.pid)
    status = server.wait()
    remove_shared_memory(shm_prefix)
    if os.getppid() != owner:  # an owner that lives still wants to read the log
        shutil.rmtree(run_dir, ignore_errors=True)
    return status if status >= 0 else 128 - status


def start(command: list[str], secret: str, log: BinaryIO) -> Server:
    """Start the server; arguments with the `secret` are in nobody's `ps`, unless this machine forbids to trace it.

    Everybody may read the arguments that a program was started with, but only its user the environment. So the secret
    ones, which are of the form `--name=value`, start as variables. The program is stopped before its first instruction,
    and its arguments are pointed at them.
    """
    shown = [argument.replace(secret, "***") for argument in command]
    hidden = {place: argument for place, argument in enumerate(command) if argument != shown[place]}
    variables = os.environ | dict(argument.split("=", 1) for argument in hidden.values())
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
    libc.ptrace.restype = ctypes.c_long

    def before_exec() -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)

    def before_traced_exec() -> None:
        before_exec()
        _trace(libc, PTRACE_TRACEME, 0)

    def spawn(
        arguments: list[str], environment: dict[str, str], prepare: Callable[[], None]
    ) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            arguments,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            preexec_fn=prepare,  # safe: this process has one thread
            process_group=0,
        )

    try:
        server = spawn(shown, variables, before_traced_exec)
    except subprocess.SubprocessError:
        return spawn(command, dict(os.environ), before_exec)
    try:
        os.waitpid(server.pid, 0)  # it stops there
        _point_at_variables(libc, server.pid, hidden)
        _trace(libc, PTRACE_DETACH, server.pid)
    except (OSError, ValueError):
        server.kill()
        server.wait()
        return spawn(command, dict(os.environ), before_exec)
    return server


def _point_at_variables(libc: ctypes.CDLL, pid: int, hidden: dict[int, str]) -> None:
    """Let arguments of a stopped new process be variables of its environment, and take these from its variables.

    The stack of a new process begins with the number of arguments, their addresses, 0, the variables' addresses, 0.
    """
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    stack, first, end = int(fields[25]), int(fields[47]), int(fields[48])  # startstack, env_start, env_end: proc(5)
    word = struct.calcsize("P")
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        block = os.pread(memory.fileno(), first - stack, stack)
        variables = b"\0" + os.pread(memory.fileno(), end - first, first)
    addresses = struct.unpack_from(f"{len(block) // word}P", block)
    own = addresses[0] + 2  # of the first variable
    for place, argument in hidden.items():
        address = first + variables.index(b"\0" + os.fsencode(argument) + b"\0")
        _trace(libc, PTRACE_POKEDATA, pid, stack + word * (1 + place), address)
        # What would be its variable is the first one again, which children may inherit twice.
        _trace(libc, PTRACE_POKEDATA, pid, stack + word * addresses.index(address, own), addresses[own])


def _trace(libc: ctypes.CDLL, request: int, pid: int, address: int = 0, data: int = 0) -> None:
    if libc.ptrace(request, pid, address, data) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _wait(server: Server, owner: int, shm_prefix: str, log: BinaryIO) -> float | None:
    """Seconds of drain asked for, 0 when the owner is gone, None when the server ended by itself or crashed."""
    crashed_s = math.inf
    while server.poll() is None and time.monotonic() < crashed_s + REPORT_S:
        if os.getppid() != owner:
            return 0
        if crashed_s == math.inf and _crashes(log):
            crashed_s = time.monotonic()
        close_shared_memory(shm_prefix)  # of models that are loaded later, too
        readable, _, _ = select.select([0], [], [], POLL_S)
        if readable:
            line = os.read(0, 256).decode()
            return float(line.split()[1]) if line.startswith("stop ") else 0
    return None


def _crashes(log: BinaryIO) -> bool:
    """Whether what was written since the last call says so; its last bytes, perhaps half of it, are read again."""
    text = log.read()
    log.seek(-min(len(text), 32), os.SEEK_CUR)
    return any(words.encode() in text for words in CRASHES.values())


def _stop(server: Server, drain_s: float) -> None:
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


def close_shared_memory(prefix: str) -> None:
    """Let only this user read the requests in the python backend's shared memory, which it makes for all to read."""
    for path in SHARED_MEMORY.glob(prefix + "*"):
        with contextlib.suppress(OSError):
            path.chmod(0o600)


def remove_shared_memory(prefix: str) -> None:
    """Remove the python backend's shared-memory files that begin with `prefix`."""
    for path in SHARED_MEMORY.glob(prefix + "*"):
        with contextlib.suppress(OSError):
            path.unlink()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
