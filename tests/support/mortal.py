"""Processes that end with the one that started them, also when that is killed."""

from __future__ import annotations

import signal
import sys

_ASK = "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, int(sys.argv[1])); os.execvp(sys.argv[2], sys.argv[2:])"


def mortal(command: list[str], death: signal.Signals = signal.SIGKILL) -> list[str]:
    """The command, to be sent `death` when its parent ends.

    It asks for that itself: a `preexec_fn` would run Python in a fork of a process that has gRPC's threads.
    """
    return [sys.executable, "-I", "-S", "-c", _ASK, str(int(death)), *command]
