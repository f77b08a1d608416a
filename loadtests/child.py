"""A process of our own, talked to in lines of JSON over its stdin and stdout; it ends when its stdin does."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

_END_S = 5.0


class Child:
    """Runs from its construction until `end`, or until it dies."""

    def __init__(self, module: str, options: Sequence[str] = ()) -> None:
        self._process: subprocess.Popen[str] = subprocess.Popen(
            [sys.executable, "-m", module, *options], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def tell(self, **message: Any) -> None:
        """Raises OSError when it has ended."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(message) + "\n")
        self._process.stdin.flush()

    def hear(self) -> dict[str, Any] | None:
        """What it says next, waiting for it; None when it has ended."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        answer: dict[str, Any] | None = json.loads(line) if line else None
        return answer

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
