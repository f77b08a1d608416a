"""Trace what a person's function takes from this machine while it runs: its modules, and the files it reads."""

from __future__ import annotations

import os
import sys
import sysconfig
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

_INSTALLED = tuple(Path(path) for path in {*sysconfig.get_paths().values()} if path != sysconfig.get_path("data"))
_SITE = frozenset({"site-packages", "dist-packages"})
_OURS = tuple(Path(__file__).parents[2] / name for name in ("clients", "export", "fathom", "loadtests", "server"))
_BYTECODE = ".pyc"


@dataclass
class Trace:
    """What one call took.

    `modules` are the user's own, by name. `opened` are the other files that Python opened to read, without those of
    `written`, which it made itself.

    Files that a library opens by itself, in C++ or Rust, do not show.
    """

    modules: dict[str, Path] = field(default_factory=dict)
    opened: list[Path] = field(default_factory=list)
    written: set[Path] = field(default_factory=set)
    seconds: float = 0.0


@contextmanager
def tracing() -> Iterator[Trace]:
    """A trace of what this process imports and reads within the block; it is complete when the block ends."""
    global _active
    _hook()
    trace, before, began = Trace(), set(sys.modules), time.monotonic()
    _active = trace
    try:
        yield trace
    finally:
        _active = None
        trace.seconds = time.monotonic() - began
        for name, module in list(sys.modules.items()):
            file = getattr(module, "__file__", None)
            if name in before or not file or not Path(file).is_absolute():  # torch.ops has `_ops.py`, no file
                continue
            if not is_installed(Path(file)):
                trace.modules[name] = Path(file)
        code = set(trace.modules.values())
        trace.opened = [
            path
            for path in dict.fromkeys(trace.opened)
            if path not in trace.written and path not in code and path.suffix not in (_BYTECODE, ".py")
            if path.is_file() and not is_installed(path)
        ]


def is_installed(path: Path) -> bool:
    """Whether a file belongs to Python, to an installed package or to Fathom, which are installed elsewhere as well."""
    return bool(_SITE & {*path.parts}) or any(path.is_relative_to(home) for home in (*_INSTALLED, *_OURS))


_active: Trace | None = None


@cache
def _hook() -> None:
    """Hear of every file that is opened; an audit hook stays for the life of the process, so there is one."""
    sys.addaudithook(_on_event)


def _on_event(event: str, arguments: tuple[Any, ...]) -> None:
    if event != "open" or _active is None or not isinstance(arguments[0], str | bytes | os.PathLike):
        return
    path = Path(os.fsdecode(arguments[0]))
    path = Path(os.path.normpath(path if path.is_absolute() else Path.cwd() / path))
    if arguments[2] & os.O_ACCMODE == os.O_RDONLY:
        _active.opened.append(path)
    else:
        _active.written.add(path)
