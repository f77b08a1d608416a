"""What a command says when this machine has no more of something: one line, and exit status 2."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fathom import cli
from fathom.commands import check


def no_descriptor() -> None:
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


def no_room_for_a_file() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/tmp/x")


def no_room_for_an_array() -> None:
    with Path("/dev/full").open("wb") as full:
        np.lib.format.write_array(full, np.zeros(10**6))


def no_memory() -> None:
    np.zeros(2**56, np.float64)


def a_reason_of_a_librarys_own() -> None:
    raise OSError("the archive is cut off")


ENDS = [
    (no_descriptor, "ulimit -n", "descriptors"),
    (no_room_for_a_file, "TMPDIR", "a full disk"),
    (no_room_for_an_array, "TMPDIR", "a full disk, as numpy reports it"),
    (no_memory, "memory", "memory"),
    (a_reason_of_a_librarys_own, "the archive is cut off", "an error without a number"),
]


@pytest.mark.parametrize(("use_up", "named", "why"), ENDS, ids=[row[-1] for row in ENDS])
def test_the_end_of_a_resource_is_one_line(
    use_up: Callable[[], None],
    named: str,
    why: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(check, "run", lambda options: use_up())

    assert cli.main(["check"]) == 2

    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("fathom check: ")
    assert named in line
