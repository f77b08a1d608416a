"""Every error a load test can raise on purpose; each is one line: what happened, with which value, and what to do.

LoadTestError
 ├─ BadRequestError         what was asked for cannot be run (a malformed SLO, a rate of zero)
 │   └─ InputFileError      a line of a file of requests, of a trace or of another text is wrong
 ├─ TargetError             the server under test: not reachable, model unknown or not ready, refused the warm request
 │   ├─ TargetBusyError     its queue is full, or it is not there at the moment
 │   └─ TargetLostError     it answered before and does not any more (points measured so far are kept)
 ├─ SloUnreachableError     the unloaded server already misses the SLO
 ├─ GeneratorError          our own generator process failed
 └─ ResultsError            a folder of results that cannot be read
"""

from __future__ import annotations

from pathlib import Path


class LoadTestError(Exception):
    """Base of all errors of this package."""


class BadRequestError(LoadTestError, ValueError):
    """The request cannot be run; `field` is the wrong argument, such as `budget_s` or `slos`."""

    def __init__(self, message: str, *, field: str) -> None:
        super().__init__(message)
        self.field = field


class InputFileError(BadRequestError):
    """A file that a person gave cannot be used; `line` counts from 1, and is None where no line is to blame."""

    def __init__(self, path: Path, line: int | None, problem: str) -> None:
        super().__init__(f"{path}{f' line {line}:' if line else ''} {problem}", field="file")
        self.path, self.line = path, line


class TargetError(LoadTestError):
    """The server under test is not reachable, does not have the model ready, or refused the warm request.

    `server` is its address or, for its metrics, their URL; `model` is empty where the error is about the whole server.
    """

    def __init__(self, message: str, *, server: str, model: str = "") -> None:
        super().__init__(message)
        self.server, self.model = server, model


class TargetBusyError(TargetError):
    """The server's queue is full, or it cannot be reached at the moment."""


class TargetLostError(TargetError):
    """The server answered before and does not any more."""


class SloUnreachableError(LoadTestError):
    """The unloaded server already misses the SLO `slo`: one request at a time takes `unloaded_ms` (median)."""

    def __init__(self, message: str, *, slo: str, unloaded_ms: float) -> None:
        super().__init__(message)
        self.slo, self.unloaded_ms = slo, unloaded_ms


class GeneratorError(LoadTestError):
    """The generator process failed."""


class ResultsError(LoadTestError):
    """Results that cannot be read or used; `path` is the file or folder, and `line` counts from 1, where one is to
    blame."""

    def __init__(self, message: str, path: Path | None = None, line: int | None = None) -> None:
        super().__init__(message)
        self.path, self.line = path, line
