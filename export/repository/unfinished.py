"""The mark of a roll-out in a model's folder: while it is there, its version is in service on probation.

`fathom publish` makes it before the version's folder appears and removes it when the version was watched or taken back.
One that nobody holds the repository for was left by a publish that was killed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from export import files
from export.errors import FileError
from export.repository.scratch import scratch

FILE = ".fathom-rollout"


@dataclass(frozen=True)
class Unfinished:
    """A version that was brought into service; `servers` are the addresses of the replicas that were to load it."""

    folder: Path
    version: int
    servers: tuple[str, ...]

    @property
    def path(self) -> Path:
        """The version's folder, which may not have appeared yet."""
        return self.folder / str(self.version)


def begin(folder: Path, version: int, servers: Sequence[str], room: Path) -> None:
    """Mark a version before it appears; `room` is a scratch folder on the same mount."""
    made = room / FILE
    with made.open("w", encoding="utf-8") as file:
        json.dump({"version": version, "servers": list(servers)}, file)
        file.flush()
        os.fsync(file.fileno())
    made.replace(folder / FILE)


def end(folder: Path) -> None:
    """Remove the mark."""
    (folder / FILE).unlink(missing_ok=True)


def found(model_repository: Path) -> list[Unfinished]:
    """The marks of a repository; what is no mark is passed over, and so is the only version of a model."""
    marks = []
    for path in sorted(model_repository.glob(f"*/{FILE}")):
        try:
            mark = files.read_json(files.find(path.parent, FILE))
            made = Unfinished(path.parent, int(mark["version"]), tuple(map(str, mark["servers"])))
        except (FileError, OSError, ValueError, OverflowError, TypeError, KeyError):
            continue
        if made.version > 0 and any(int(name) < made.version for name in _versions(path.parent)):
            marks.append(made)
    return marks


def take_back(mark: Unfinished) -> None:
    """Take the version's folder away, and the mark. Raises PublishError or OSError. The caller holds the repository."""
    with scratch(mark.folder) as room:
        if mark.path.exists():
            mark.path.rename(room / "refused")
        end(mark.folder)


def _versions(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.isascii() and path.name.isdecimal()]
