"""The measurements of a race on disk, one per line, written at once so that `--resume` can continue."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

from loadtests.records.point import Point
from loadtests.tuning.arm import Answer
from loadtests.tuning.space import Configuration


def line(configuration: Configuration, answer: Answer) -> dict[str, Any]:
    """One answer as a JSON object."""
    return {
        "changes": configuration.to_json(),
        "took_s": answer.took_s,
        "failure": answer.failure,
        "point": answer.point.to_json() if answer.point else None,
    }


def kept_answers(path: Path) -> list[tuple[Configuration, Answer]]:
    """The answers of an earlier part, in their order."""
    found = []
    with contextlib.suppress(FileNotFoundError):
        for line in path.read_text().splitlines():
            with contextlib.suppress(ValueError):  # the last one may be cut off
                row = json.loads(line)
                point = Point.from_json(row["point"]) if row["point"] else None
                found.append((Configuration.from_json(row["changes"]), Answer(row["took_s"], point, row["failure"])))
    return found
