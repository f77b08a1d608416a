"""ONNX Runtime, and ONNX's shape inference, in a process of its own with a limit on its time and memory.

A graph can compute without end or ask for more memory than there is, and its file does not show it. So no graph runs in
the process that exports: one child per set of limits holds all sessions, and ends with its parent. It is no sandbox:
it is the same user (SECURITY.md).
"""

from __future__ import annotations

import atexit
import os
import signal
import subprocess
import sys
import weakref
from dataclasses import dataclass
from multiprocessing import Pipe
from pathlib import Path
from threading import RLock
from typing import Any

from export.errors import ExportError, LimitError
from export.recipe.recipe import Array, Arrays

SECONDS, GIGABYTES = "FATHOM_GRAPH_SECONDS", "FATHOM_GRAPH_GB"
DEFAULT_SECONDS = 30.0
DEFAULT_SHARE = 0.75
"""Of the memory that this machine or container has available."""

LOADED_BYTES_PER_S = 20e6
"""A slow disk's: so much longer than an answer may loading a file take."""


@dataclass(frozen=True)
class Limits:
    """What a graph may take: seconds for one answer, and bytes for all graphs that are loaded at a time."""

    seconds: float = DEFAULT_SECONDS
    memory_bytes: int | None = None

    @staticmethod
    def from_environment() -> Limits:
        """The limits that FATHOM_GRAPH_SECONDS and FATHOM_GRAPH_GB set, or the default ones.

        Raises ExportError for what is no positive number.
        """
        gigabytes = setting(GIGABYTES)
        return Limits(setting(SECONDS) or DEFAULT_SECONDS, None if gigabytes is None else int(gigabytes * 1e9))


def setting(name: str) -> float | None:
    """The positive number that an environment variable sets; None where it is unset. Raises ExportError."""
    text = os.environ.get(name, "")
    try:
        number = float(text) if text else None
        if number is None or 0 < number < 1e9:
            return number
    except ValueError:
        pass
    raise ExportError(f"{name} is '{text}'", remedy="set it to a number above 0, or unset it", field=name, found=text)


class Runtime:
    """The child process. One request at a time; after one that broke a limit, every further one raises LimitError."""

    def __init__(self, limits: Limits) -> None:
        self._seconds = limits.seconds
        available = available_bytes()
        self._memory_bytes = limits.memory_bytes or (int(DEFAULT_SHARE * available) if available else None)
        self._lock = RLock()
        self._closed: list[int] = []
        self._over: LimitError | None = None
        self._connection, theirs = Pipe()
        command = [sys.executable, "-P", "-m", "export.graph.runtime_child"]
        # The child ends when its standard input does, which is when this process ends, however it does.
        self._process = subprocess.Popen(
            [*command, str(theirs.fileno()), str(self._memory_bytes or 0)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )
        theirs.close()
        try:
            self._connection.recv()  # it has imported ONNX Runtime
        except EOFError:
            self.end()
            raise ExportError(
                "ONNX Runtime could not be started", remedy="try `python -c 'import onnxruntime'`, which says why"
            ) from None
        atexit.register(self.end)

    @property
    def usable(self) -> bool:
        """Whether sessions can be opened in it."""
        return self._over is None

    def open(self, model: Path | bytes, threads: int, frugal: bool) -> Session:
        """Load a graph. Raises LimitError, and RuntimeError with ONNX Runtime's reason."""
        size = len(model) if isinstance(model, bytes) else sum(_sizes(model))
        given = model if isinstance(model, bytes) else model.absolute()
        number, inputs, outputs = self.request(
            "open", (given, threads, frugal), self._seconds + size / LOADED_BYTES_PER_S
        )
        session = Session(self, number, inputs, outputs)
        weakref.finalize(session, self._closed.append, number)
        return session

    def request(self, kind: str, what: tuple[Any, ...], seconds: float | None = None) -> Any:
        """The child's answer. Raises LimitError, and RuntimeError where ONNX Runtime raised."""
        seconds = self._seconds if seconds is None else seconds
        with self._lock:
            if self._over is not None:
                raise self._over
            closed, self._closed[:] = list(self._closed), []
            try:
                self._connection.send((closed, kind, what))
                if not self._connection.poll(seconds):
                    raise self._end_over(
                        f"ONNX Runtime took longer than {seconds:.3g} s for one answer, and was stopped",
                        f"a graph that computes without end cannot be served; allow a slow one more with {SECONDS}",
                        SECONDS,
                    )
                outcome, answer = self._connection.recv()
            except (EOFError, ConnectionError):
                self.end()
                code = -(self._process.returncode or 0)
                how = f"was ended by {signal.Signals(code).name}" if code > 0 else "ended"
                raise self._end_over(
                    f"ONNX Runtime {how} while it ran the graph{self._stated}",
                    f"allow more with {GIGABYTES}",
                    GIGABYTES,
                ) from None
            except BaseException:  # Ctrl-C: whose answer comes next would not be known
                self._end_over("ONNX Runtime was interrupted", "start again", "")
                raise
        if outcome == "memory":
            raise LimitError(
                f"the graph needs more memory than it may have{self._stated}",
                remedy=f"allow more with {GIGABYTES}, or export on a larger machine",
                field=GIGABYTES,
                expected=self._memory_bytes,
            )
        if outcome == "error":
            raise RuntimeError(answer)
        return answer

    def end(self) -> None:
        """Kill the process, if it lives, and wait for it."""
        self._process.kill()
        self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._connection.close()

    @property
    def _stated(self) -> str:
        return f" ({self._memory_bytes / 1e9:.1f} GB)" if self._memory_bytes else ""

    def _end_over(self, what: str, remedy: str, field: str) -> LimitError:
        self._over = LimitError(what, remedy=remedy, field=field)
        self.end()
        atexit.unregister(self.end)
        return self._over


@dataclass(frozen=True, eq=False, weakref_slot=True, slots=True)
class Session:
    """A loaded graph with the names of its inputs and outputs; calling it runs it."""

    runtime: Runtime
    number: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def __call__(self, arrays: Arrays) -> dict[str, Array]:
        """The outputs by name. Raises LimitError, and RuntimeError with ONNX Runtime's reason."""
        answer: list[Array] = self.runtime.request("run", (self.number, dict(arrays)))
        return dict(zip(self.outputs, answer, strict=True))


def infer_shapes(model: Any, *, inline: bool = False, data_prop: bool = False) -> Any:
    """The model with the shapes of its inner values; `inline` puts the model's own functions in the place of calls.

    That can take as long as running it: functions that call functions unfold. Raises LimitError, and RuntimeError with
    ONNX's reason.
    """
    given = model.SerializeToString()
    inferred: bytes = _shared(Limits.from_environment()).request("infer", (given, inline, data_prop))
    return type(model).FromString(inferred)


_running: dict[tuple[int, Limits], Runtime] = {}


def open_session(model: Path | bytes, *, threads: int, frugal: bool, limits: Limits | None) -> Session:
    """Load a graph in the process of these limits, which is started where none runs."""
    return _shared(limits or Limits.from_environment()).open(model, threads, frugal)


def _shared(limits: Limits) -> Runtime:
    key = os.getpid(), limits
    if key not in _running or not _running[key].usable:
        _running[key] = Runtime(limits)
    return _running[key]


def available_bytes() -> int | None:
    """The memory that this process could still take: the machine's, or its container's. None where neither says."""
    found = []
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        found += [1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
        found.append(int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii")))
    except (OSError, ValueError):  # not Linux, or "max"
        pass
    return min(found, default=None)


def _sizes(model: Path) -> list[int]:
    """Bytes of the file, and of the weights beside it as Fathom names them."""
    return [path.stat().st_size for path in (model, model.with_name(f"{model.name}.data")) if path.is_file()]
