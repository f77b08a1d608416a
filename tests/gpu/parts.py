"""Split files into parts that a narrow transfer takes, and put them together again. Standard library only.

`python parts.py split DIR --into PARTS` splits every file below DIR; carry PARTS in as many journeys as it takes, and
`python parts.py join PARTS --into DIR` checks every part and every whole by its SHA-256. A join with parts missing
names them, keeps what is complete, and can be run again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

MANIFEST = "parts.json"
MOST_BYTES = 60_000_000
BLOCK = 1 << 20


class PartsError(Exception):
    """Parts that cannot be made or joined; the message says which and why."""


def split(source: Path, target: Path, *, most_bytes: int = MOST_BYTES) -> list[str]:
    """Split every file below `source` into parts in `target`; returns the parts' names. Raises PartsError."""
    files = sorted(path for path in source.rglob("*") if path.is_file())
    if not files:
        raise PartsError(f"{source} holds no file")
    target.mkdir(parents=True, exist_ok=True)
    if any(target.iterdir()):
        raise PartsError(f"{target} is not empty: name a new folder")
    described, names = {}, []
    for number, path in enumerate(files):
        whole, parts = hashlib.sha256(), []
        with path.open("rb") as file:
            while True:
                name = f"{number:03}-{len(parts):03}.part"
                size, digest = _copy(file, target / name, most_bytes, whole)
                if size == 0 and parts:
                    (target / name).unlink()
                    break
                parts.append({"name": name, "sha256": digest})
                if size < most_bytes:
                    break
        described[path.relative_to(source).as_posix()] = {"sha256": whole.hexdigest(), "parts": parts}
        names += [part["name"] for part in parts]
    (target / MANIFEST).write_text(json.dumps(described, indent=1) + "\n", encoding="utf-8")
    return names


def join(source: Path, target: Path) -> list[str]:
    """Put every file of `source` together in `target`; returns their names. Raises PartsError at the end for gaps."""
    try:
        described = json.loads((source / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PartsError(f"{source / MANIFEST} cannot be read: {error}") from None
    joined, problems = [], []
    for name, record in described.items():
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise PartsError(f"{MANIFEST} names {name}, which lies outside the target")
        goal = target / name
        if goal.is_file() and _sha256(goal) == record["sha256"]:
            joined.append(name)
            continue
        missing = [part["name"] for part in record["parts"] if not (source / part["name"]).is_file()]
        spoiled = [
            part["name"]
            for part in record["parts"]
            if part["name"] not in missing and _sha256(source / part["name"]) != part["sha256"]
        ]
        if missing or spoiled:
            problems += [f"{part} of {name} is missing" for part in missing]
            problems += [f"{part} of {name} is damaged: carry it again" for part in spoiled]
            continue
        goal.parent.mkdir(parents=True, exist_ok=True)
        unfinished = goal.with_name(goal.name + ".joining")
        with unfinished.open("wb") as file:
            for part in record["parts"]:
                with (source / part["name"]).open("rb") as piece:
                    while block := piece.read(BLOCK):
                        file.write(block)
        if _sha256(unfinished) != record["sha256"]:
            unfinished.unlink()
            raise PartsError(f"{name} does not have its SHA-256 although its parts have theirs: split it again")
        unfinished.replace(goal)
        joined.append(name)
    if problems:
        raise PartsError("; ".join(problems))
    return joined


def _copy(file, target: Path, most_bytes: int, whole) -> tuple[int, str]:
    own, size = hashlib.sha256(), 0
    with target.open("wb") as part:
        while size < most_bytes and (block := file.read(min(BLOCK, most_bytes - size))):
            part.write(block)
            own.update(block)
            whole.update(block)
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
        "--megabytes", type=float, default=MOST_BYTES / 1e6, metavar="N", help="of a part (10^6 bytes)"
    )
    given = command.parse_args(arguments)
    try:
        if given.action == "split":
            if not given.megabytes > 0:
                raise PartsError(f"parts of {given.megabytes:g} MB cannot be made: name more than 0")
            names = split(given.source, given.into, most_bytes=int(given.megabytes * 1e6))
            print(f"{len(names)} parts of at most {given.megabytes:g} MB in {given.into}")
        else:
            print(f"{len(join(given.source, given.into))} files in {given.into}, every SHA-256 right")
    except PartsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
