"""The handle on one generator process: starts it, gives it jobs, and collects what it recorded."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadtests.errors import GeneratorError, TargetLostError
from loadtests.job import Job, Limits, Outcome, TransportName, read_record, write_payloads, write_schedule
from loadtests.record import Record


@dataclass(frozen=True)
class WorkerTarget:
    """Where and how a worker fires."""

    server: str
    payloads: Sequence[bytes]
    timeout_s: float = 10.0
    channels: int = 2
    transport: TransportName = "http2"


class Worker:
    """A context manager around `python -m loadtests.generator`."""

    def __init__(self, target: WorkerTarget) -> None:
        self._target = target
        self._scratch = tempfile.TemporaryDirectory(prefix="fathom-generator-")
        self._folder = Path(self._scratch.name)
        self._payloads = self._folder / "payloads.bin"
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Worker:
        write_payloads(self._payloads, self._target.payloads)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "loadtests.generator"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            with contextlib.suppress(OSError):  # flushing into a process that is gone
                if self._process.stdin is not None:
                    self._process.stdin.close()
            try:
                self._process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            if self._process.stdout is not None:
                self._process.stdout.close()
        self._scratch.cleanup()

    def fire(
        self,
        intended_s: NDArray[np.float64],
        choices: NDArray[np.int32],
        limits: Limits,
        *,
        on_ready: Callable[[], None] = lambda: None,
    ) -> tuple[Record, Outcome]:
        """Fires one schedule. `on_ready` runs when the connections stand, just before the first request.

        Ctrl-C stops the firing and then raises KeyboardInterrupt. TargetLostError: no connection.
        """
        write_schedule(self._folder, intended_s, choices)
        job = Job(
            self._target.server,
            str(self._payloads),
            str(self._folder),
            limits,
            self._target.timeout_s,
            self._target.channels,
            self._target.transport,
        )
        self._tell(job.to_json())
        self._expect("ready")
        on_ready()
        self._tell('{"go": true}')
        try:
            done = self._expect("done")
        except KeyboardInterrupt:
            self._tell('{"stop": true}')
            self._expect("done")
            raise
        # A stop that crosses a finished job is harmless: the generator ignores it between jobs.
        return read_record(self._folder), Outcome(**done)

    def _tell(self, line: str) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        except OSError as error:
            raise GeneratorError(f"the generator process ended unexpectedly: {error}") from error

    def _expect(self, state: str) -> dict[str, Any]:
        assert self._process is not None
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise GeneratorError(f"the generator process ended unexpectedly (exit code {self._process.wait()})")
        answer: dict[str, Any] = json.loads(line)
        said = answer.pop("state")
        if said == "error":
            raise TargetLostError(f"{self._target.server} cannot be reached: {answer['message']}")
        if said != state:
            raise GeneratorError(f"the generator said {said!r} where {state!r} was due")
        return answer
