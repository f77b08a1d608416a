"""Locust as a process, the way a person starts it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]


class LocustProcess:
    """`locust -f loadtests/locustfile.py OPTIONS`; everything it says goes to a file."""

    def __init__(self, log: Path, *options: str, locustfile: str = "loadtests/locustfile.py") -> None:
        self.log = log
        with log.open("w") as file:
            self.process = subprocess.Popen(
                [str(Path(sys.executable).with_name("locust")), "-f", locustfile, *options],
                cwd=ROOT,
                stdout=file,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
            )

    def wait(self, seconds: float = 60.0) -> tuple[int, str]:
        """Its exit status and what it said."""
        try:
            return self.process.wait(seconds), self.log.read_text()
        finally:
            self.stop()

    def wait_for(self, text: str, seconds: float = 30.0) -> None:
        """Until it has said so."""
        until_s = time.monotonic() + seconds
        while text not in self.log.read_text():
            assert time.monotonic() < until_s, f"{text!r} not in: {self.log.read_text()}"
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.05)

    def stop(self) -> None:
        """Ends it, gently first."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def children(pid: int) -> list[int]:
    """Processes that a process has started."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def free_port() -> int:
    """Free a moment ago."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def kill(pid: int) -> None:
    """As the out-of-memory killer would."""
    os.kill(pid, signal.SIGKILL)
