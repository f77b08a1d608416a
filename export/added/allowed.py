"""Sources of added models that the owner of this machine allowed: by `fathom add`, or by `--allow-source`.

A recipe.toml may come from elsewhere, and names code to run or files to read. What it may name is therefore not
written beside it but kept for the user, in `$XDG_STATE_HOME/fathom/allowed-sources`, one source a line.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from export import files
from export.errors import FileError

_here: set[str] = set()
"""What this process allowed: a machine without a writable home can still export."""


def allow(source: str) -> None:
    """Allow a source from now on, where the user's folder can be written; else for this process."""
    if is_allowed(source):
        return
    _here.add(source)
    with contextlib.suppress(OSError, RuntimeError):
        path = _file()
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(f"{source}\n")


def is_allowed(source: str) -> bool:
    """Whether the source, a line of text, was allowed."""
    if source in _here:
        return True
    try:
        return source in files.read_text(_file()).split("\n")
    except (FileError, OSError, RuntimeError):
        return False


def _file() -> Path:
    state = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(state).expanduser() / "fathom" / "allowed-sources"
