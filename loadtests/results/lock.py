"""Lets one search at a time write into a folder: a lock that ends with its process."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from loadtests.errors import BadRequestError

_FILE = ".lock"
_TRIES, _BETWEEN_S = 5, 0.05
"""A reader that asks `writer` holds the lock for a moment."""


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Makes the folder and locks it. BadRequestError: it cannot be written, or another process writes into it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / _FILE).open("a+")
    except OSError as error:
        raise BadRequestError(f"cannot write results to {folder}: {error.strerror}", field="folder") from error
    with file:
        for attempt in range(1, _TRIES + 1):
            if _locked(file, fcntl.LOCK_EX):
                break
            if attempt == _TRIES:
                raise BadRequestError(
                    f"another search (process {_pid(file)}) is writing to {folder}: wait for it, or choose "
                    "another folder with --report",
                    field="folder",
                )
            time.sleep(_BETWEEN_S)
        try:
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
        except OSError as error:
            raise BadRequestError(f"cannot write results to {folder}: {error.strerror}", field="folder") from error
        yield


def writer(folder: Path) -> str:
    """The process that writes into the folder; empty when none does."""
    try:
        with (folder / _FILE).open() as file:
            return "" if _locked(file, fcntl.LOCK_SH) else _pid(file)
    except OSError:
        return ""


def _locked(file: IO[str], how: int) -> bool:
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks: nothing can be known
        return True
    return True


def _pid(file: IO[str]) -> str:
    file.seek(0)
    return file.read().strip() or "unknown"
