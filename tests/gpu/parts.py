"""Split files into parts that a narrow transfer takes, and put them together again. Standard library only.

`python parts.py split DIR --into PARTS` splits every file below DIR and packs the parts into folders, PARTS/01 and so
on, one for each journey; `python parts.py join PARTS --into DIR` checks every part and every whole by its SHA-256.
Parts are found in PARTS and in the folders below it. A join with parts missing names them, keeps what is complete, and
can be run again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

MANIFEST = "parts.json"
MOST_BYTES = 60_000_000
BLOCK = 1 << 20


class PartsError(Exception):
    """Parts that cannot be made or joined; the message says which and why."""


def split(source: Path, target: Path, *, most_bytes: int = MOST_BYTES) -> list[Path]:
    """Split every file below `source` into parts in `target`, at most `most_bytes` a part and a folder of parts.

    Files of the same content share their parts. Returns the folders. Raises PartsError.
    """
    files = sorted(path for path in source.rglob("*") if path.is_file())
    if not files:
        raise PartsError(f"{source} holds no file")
    target.mkdir(parents=True, exist_ok=True)
    if any(target.iterdir()):
        raise PartsError(f"{target} is not empty: name a new folder")
    described: dict[str, Any] = {}
    known: dict[str, Any] = {}
    for number, path in enumerate(files):
        digest = _sha256(path)
        known[digest] = described[path.relative_to(source).as_posix()] = known.get(digest) or {
            "sha256": digest,
            "parts": _cut(path, target, number, most_bytes),
        }
    folders = _pack(target, most_bytes)
    for folder in folders:
        (folder / MANIFEST).write_text(json.dumps(described, indent=1) + "\n", encoding="utf-8")
    return folders


def _cut(path: Path, target: Path, number: int, most_bytes: int) -> list[dict[str, str]]:
    parts: list[dict[str, str]] = []
    with path.open("rb") as file:
        while True:
            name = f"{number:03}-{len(parts):03}.part"
            size, digest = _copy(file, target / name, most_bytes)
            if size == 0 and parts:
                (target / name).unlink()
                break
            parts.append({"name": name, "sha256": digest})
            if size < most_bytes:
                break
    return parts


def _pack(target: Path, most_bytes: int) -> list[Path]:
    """Move the parts into folders, the largest first and each where it still fits."""
    loads: list[list[Path]] = []
    for part in sorted(target.glob("*.part"), key=lambda path: (-path.stat().st_size, path.name)):
        size = part.stat().st_size
        place = next((load for load in loads if sum(each.stat().st_size for each in load) + size <= most_bytes), None)
        if place is None:
            loads.append([part])
        else:
            place.append(part)
    folders = []
    for number, load in enumerate(loads, start=1):
        folders.append(target / f"{number:02}")
        folders[-1].mkdir()
        for part in load:
            part.rename(folders[-1] / part.name)
    return folders


def join(source: Path, target: Path) -> list[str]:
    """Put every file of `source` together in `target`; returns their names. Raises PartsError at the end for gaps."""
    place = next(iter(sorted(source.rglob(MANIFEST))), source / MANIFEST)
    try:
        described = json.loads(place.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PartsError(f"{place} cannot be read: {error}") from None
    there = {path.name: path for path in source.rglob("*.part")}
    joined, problems = [], []
    for name, record in described.items():
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise PartsError(f"{MANIFEST} names {name}, which lies outside the target")
        goal = target / name
        if goal.is_file() and _sha256(goal) == record["sha256"]:
            joined.append(name)
            continue
        parts = record["parts"]
        missing = [part["name"] for part in parts if part["name"] not in there]
        spoiled = [
            part["name"] for part in parts if part["name"] in there and _sha256(there[part["name"]]) != part["sha256"]
        ]
        if missing or spoiled:
            problems += [f"{part} of {name} is missing" for part in missing]
            problems += [f"{part} of {name} is damaged: carry it again" for part in spoiled]
            continue
        goal.parent.mkdir(parents=True, exist_ok=True)
        unfinished = goal.with_name(goal.name + ".joining")
        with unfinished.open("wb") as file:
            for part in parts:
                with there[part["name"]].open("rb") as piece:
                    shutil.copyfileobj(piece, file, BLOCK)
        if _sha256(unfinished) != record["sha256"]:
            unfinished.unlink()
            raise PartsError(f"{name} does not have its SHA-256 although its parts have theirs: split it again")
        unfinished.replace(goal)
        joined.append(name)
    if problems:
        raise PartsError("; ".join(problems))
    return joined


def _copy(file: BinaryIO, target: Path, most_bytes: int) -> tuple[int, str]:
    own, size = hashlib.sha256(), 0
    with target.open("wb") as part:
        while size < most_bytes and (block := file.read(min(BLOCK, most_bytes - size))):
            part.write(block)
            own.update(block)
            size += len(block)
    return size, own.hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 2 with one line for what cannot be done."""
    command = argparse.ArgumentParser(prog="parts.py", description=__doc__)
    command.add_argument("action", choices=("split", "join"))
    command.add_argument("source", type=Path, metavar="DIR")
    command.add_argument("--into", type=Path, required=True, metavar="DIR")
    command.add_argument(
        "--megabytes", type=float, default=MOST_BYTES / 1e6, metavar="N", help="of a folder (10^6 bytes)"
    )
    given = command.parse_args(arguments)
    try:
        if given.action == "split":
            if not given.megabytes > 0:
                raise PartsError(f"parts of {given.megabytes:g} MB cannot be made: name more than 0")
            for folder in split(given.source, given.into, most_bytes=int(given.megabytes * 1e6)):
                size = sum(path.stat().st_size for path in folder.iterdir())
                print(f"{size / 1e6:7.1f} MB  {folder}")
        else:
            print(f"{len(join(given.source, given.into))} files in {given.into}, every SHA-256 right")
    except PartsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
