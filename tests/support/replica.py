"""One Triton as its container runs it: the real tritonserver under deploy/triton/entrypoint.py and server/loading.py,
on ports that stay."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from mortal import mortal
from waiting import until

from server import TritonOptions, loading, triton_command
from server.environment import find_installation
from server.ports import why_not_free
from server.supervisor import remove_shared_memory
from server.triton import _lay_out_backends

ROOT = Path(__file__).parents[2]
ENTRYPOINT = ROOT / "deploy" / "triton" / "entrypoint.py"
LOOPBACK = "127.0.0.1"


def lasting_ports(count: int) -> list[int]:
    """Different ports that nobody listens on and that the kernel gives to no client (it begins at 32768).

    So they are still free when a server is started again, on a machine with many connections too.
    """
    drawn = random.SystemRandom().sample(range(15_000, 32_768), 100)
    return [port for port in drawn if not why_not_free(LOOPBACK, port)][:count]


class Replica:
    """Start, hit with signals, start again. `drain_s` is the entry point's; everything listens on the loopback."""

    def __init__(self, name: str, repository: Path, folder: Path, *, drain_s: float = 2.5, token: str = "") -> None:
        self.name = name
        self.folder = folder / name
        self.drain_s = drain_s
        self.grpc_port, self.http_port, self.metrics_port, self.agent_port = lasting_ports(4)
        self._installation = find_installation()
        self._shm_prefix = f"fathom-test-{os.getpid()}-{name}-"
        self.folder.mkdir(parents=True)
        self._options = TritonOptions(
            str(repository),
            grpc_port=self.grpc_port,
            http_port=self.http_port,
            metrics_port=self.metrics_port,
            models=(),
            exit_timeout_s=10,
            backend_directory=str(_lay_out_backends(self.folder / "backends", self._installation)),
            shm_prefix=self._shm_prefix,
            admin_token=token or None,
        )
        self._process: subprocess.Popen[bytes] | None = None
        self._group = 0

    @property
    def grpc_url(self) -> str:
        return f"{LOOPBACK}:{self.grpc_port}"

    @property
    def metrics_url(self) -> str:
        return f"http://{LOOPBACK}:{self.metrics_port}/metrics"

    @property
    def pid(self) -> int:
        """The tritonserver's own."""
        return self._group

    def start(self, *, wait: bool = True) -> None:
        command = [sys.executable, str(ENTRYPOINT), f"--address={LOOPBACK}", f"--port={self.agent_port}"]
        command += [f"--drain={self.drain_s}", "--", sys.executable, loading.__file__]
        command += triton_command(self._options, binary=str(self._installation.tritonserver))
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                mortal(command, signal.SIGTERM), env=self._installation.environment(), stdout=log, stderr=log
            )
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        while not (found := children.read_text().split()):
            assert self._process.poll() is None, self.log_tail()
            time.sleep(0.01)
        self._group = int(found[0])  # the entry point gives it a session, so that its stubs are found with it
        if wait:
            self.await_ready()

    def is_ready(self) -> bool:
        with contextlib.suppress(OSError):
            return (
                urllib.request.urlopen(f"http://{LOOPBACK}:{self.http_port}/v2/health/ready", timeout=1).status == 200
            )
        return False

    def await_ready(self, timeout_s: float = 60.0) -> None:
        until(lambda: self.is_ready() or self.exit_status() is not None, self.log_tail, seconds=timeout_s)
        assert self.exit_status() is None, f"{self.name} ended with {self.exit_status()}: {self.log_tail()}"

    def exit_status(self) -> int | None:
        """Of the entry point: 128 + N where signal N ended tritonserver, None while it runs."""
        return self._process.poll() if self._process is not None else None

    def log_tail(self, lines: int = 20) -> str:
        """The end of the log without Triton's tables."""
        text = (self.folder / "log").read_text(errors="replace")
        return "\n".join([line for line in text.splitlines() if line and line[0] not in "+|"][-lines:])

    def terminate(self) -> None:
        """What `docker stop` sends: SIGTERM to the entry point."""
        assert self._process is not None
        self._process.terminate()

    def wait(self, timeout_s: float = 30.0) -> int:
        assert self._process is not None
        return self._process.wait(timeout_s)

    def kill(self) -> None:
        """End every process at once, whatever state it is in."""
        if self._group:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._group, signal.SIGKILL)
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        remove_shared_memory(self._shm_prefix)

    def close(self) -> None:
        self.kill()
        shutil.rmtree(self.folder / "backends", ignore_errors=True)
