"""The handle on one generator process: starts it, gives it jobs, and collects what it recorded."""

from __future__ import annotations

import contextlib
import json
import math
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadtests.errors import GeneratorError, TargetLostError
from loadtests.generator.messages import (
    DRAIN_S,
    NORMAL_PRIORITY,
    Job,
    Limits,
    Ranges,
    read_record,
    write_payloads,
    write_schedule,
)
from loadtests.records.record import Outcome, Record
from loadtests.target.access import Access
from loadtests.workload.sequences import Sequences


@dataclass(frozen=True)
class GeneratorSettings:
    """Where and how a generator sends."""

    server: str
    payloads: Sequence[bytes]
    timeout_s: float = 10.0
    channels: int = 2
    access: Access = field(default_factory=Access)
    real_time: bool = True
    """Whether the generator takes real-time priority, where that is allowed."""
    streamed: Ranges = ()
    """Payloads whose answers come in parts."""
    sequences: Sequences | None = None
    """How the payloads belong together, for models that keep state; a schedule is then one of sequences."""
    patience_s: float = 30.0
    """A generator that is so late with a report hangs, and is killed."""

    @property
    def options(self) -> tuple[str, ...]:
        """The options on the generator's command line, which other users of the machine can read."""
        return () if self.real_time else (NORMAL_PRIORITY,)


class RunInterrupted(KeyboardInterrupt):
    """Ctrl-C, with what was recorded until then."""

    def __init__(self, record: Record, outcome: Outcome) -> None:
        super().__init__()
        self.record = record
        self.outcome = replace(outcome, stopped=outcome.stopped or "asked")  # it may have been over just then


class GeneratorProcess:
    """A context manager around `python -m loadtests.generator`."""

    def __init__(
        self, target: GeneratorSettings, *, module: str = "loadtests.generator", options: Sequence[str] | None = None
    ) -> None:
        self._target = target
        self._module, self._options = module, target.options if options is None else options
        self._scratch = tempfile.TemporaryDirectory(prefix="fathom-generator-")
        self._folder = Path(self._scratch.name)
        self._payloads = self._folder / "payloads.bin"
        self._process: JsonProcess | None = None
        self._length_s = 0.0  # of the schedule
        self.due_s = math.inf
        """When the generator hangs unless it has reported, by `time.monotonic()`."""

    def __enter__(self) -> GeneratorProcess:
        write_payloads(self._payloads, self._target.payloads)
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()
        self._scratch.cleanup()

    @property
    def pid(self) -> int:
        """The process id of the generator."""
        return self._running.pid

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.alive

    def start(self) -> None:
        """Starts the process, or another one where the first has ended."""
        self._end()
        self._process = JsonProcess(self._module, self._options)

    def run_schedule(
        self,
        intended_s: NDArray[np.float64],
        choices: NDArray[np.int32],
        limits: Limits,
        *,
        seed: int = 0,
        on_ready: Callable[[], None] = lambda: None,
    ) -> tuple[Record, Outcome]:
        """Fires one schedule. `on_ready` runs when the connections stand, just before the first request.

        Ctrl-C stops the run and then raises RunInterrupted. TargetLostError: no connection.
        """
        self.prepare(intended_s, choices, limits, seed=seed)
        self.wait_ready()
        on_ready()
        self.go()
        try:
            return self.result()
        except KeyboardInterrupt:
            self.stop()
            raise RunInterrupted(*self.result()) from None

    # What `run_schedule` is made of, for those who drive several at once. All raise GeneratorError when the process
    # has ended.

    def prepare(
        self, intended_s: NDArray[np.float64], choices: NDArray[np.int32], limits: Limits, *, seed: int = 0
    ) -> None:
        """Hands the schedule over; the generator starts to connect."""
        write_schedule(self._folder, intended_s, choices)
        self._length_s = min(float(intended_s[-1]), limits.until_s) if len(intended_s) else 0.0
        job = Job(
            self._target.server,
            str(self._payloads),
            str(self._folder),
            limits,
            self._target.timeout_s,
            self._target.channels,
            seed,
            self._target.access,
            self._target.streamed,
            self._target.sequences,
        )
        self._send(**job.to_json())
        self._allow(self._target.timeout_s)

    def wait_ready(self) -> None:
        """TargetLostError: no connection."""
        self._expect("ready")

    def go(self, at_s: float | None = None) -> None:
        """The schedule begins at an instant of `time.monotonic()`, by default as soon as possible."""
        self._send(go=True, at_s=at_s)
        self._allow(self._length_s + self._target.timeout_s + min(DRAIN_S, self._target.timeout_s))

    def stop(self) -> None:
        """Ends a run early; a stop that crosses a finished job is ignored."""
        self._send(stop=True)
        self._allow(DRAIN_S)

    def _allow(self, seconds: float) -> None:
        self.due_s = time.monotonic() + seconds + self._target.patience_s

    def result(self) -> tuple[Record, Outcome]:
        """Waits until the run is over."""
        done = self._expect("done")
        return read_record(self._folder), Outcome(**done)

    def fileno(self) -> int:
        """Readable when the generator has something to say, or has ended; for `select`."""
        return self._running.fileno()

    @property
    def _running(self) -> JsonProcess:
        if self._process is None:
            raise GeneratorError("the generator was never started")
        return self._process

    def _end(self) -> None:
        if self._process is not None:
            self._process.end()
            self._process = None

    def _send(self, **message: Any) -> None:
        try:
            self._running.send(**message)
        except OSError as error:
            raise self._ended() from error

    def _expect(self, state: str) -> dict[str, Any]:
        try:
            answer = self._running.receive(self.due_s)
        except TimeoutError:
            self._running.kill()
            raise GeneratorError(
                f"the generator process hung: killed {self._target.patience_s:g} s after its report was due"
            ) from None
        if answer is None:
            raise self._ended()
        state_reached = answer.pop("state")
        if state_reached == "error" and answer.get("kind") == "generator":
            raise GeneratorError(answer["message"])
        if state_reached == "error":
            raise TargetLostError(
                f"{self._target.server} cannot be reached: {answer['message']}", server=self._target.server
            )
        if state_reached != state:
            raise GeneratorError(f"the generator reported {state_reached!r} where {state!r} was due")
        return answer

    def _ended(self) -> GeneratorError:
        return GeneratorError(f"the generator process ended unexpectedly ({self._running.ending()})")


# A process of our own, talked to in lines of JSON over its stdin and stdout; it ends when its stdin does.

_END_S = 5.0


class JsonProcess:
    """Runs from its construction until `end`, or until it dies."""

    def __init__(self, module: str, options: Sequence[str] = ()) -> None:
        self._process: subprocess.Popen[str] = subprocess.Popen(
            [sys.executable, "-m", module, *options], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._received = b""

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def send(self, **message: Any) -> None:
        """Raises OSError when it has ended."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(message) + "\n")
        self._process.stdin.flush()

    def receive(self, until_s: float = math.inf) -> dict[str, Any] | None:
        """Wait for the next message; None when the process has ended.

        Raises TimeoutError when `time.monotonic()` reaches `until_s` before.
        """
        while b"\n" not in self._received:
            left_s = None if until_s == math.inf else max(until_s - time.monotonic(), 0.0)
            if not select.select([self], [], [], left_s)[0]:
                raise TimeoutError
            piece = os.read(self.fileno(), 1 << 16)
            if not piece:
                return None
            self._received += piece
        line, _, self._received = self._received.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def kill(self) -> None:
        """Ends it at once, even while it is stopped."""
        self._process.kill()

    def fileno(self) -> int:
        """Readable when it has something to say, or has ended; for `select`."""
        assert self._process.stdout is not None
        return self._process.stdout.fileno()

    def ending(self) -> str:
        """How it ended, waiting for it: `killed by SIGKILL` or `exit status 1`."""
        code = self._process.wait()
        return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"

    def end(self) -> None:
        """Asks it to end, and kills it when it takes its time."""
        with contextlib.suppress(OSError):  # flushing into a process that is gone
            if self._process.stdin is not None:
                self._process.stdin.close()
        try:
            self._process.wait(timeout=_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
