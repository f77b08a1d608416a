"""One step in a process of its own: `python -m fathom.proof.step NAME TASK.json`, started by the runner."""

from __future__ import annotations

import importlib
import json
import sys
import traceback
from pathlib import Path

from fathom.proof.context import Context, SkipStepError, one_line
from fathom.proof.runner import SKIPPED_STATUS
from fathom.proof.settings import Settings


def main(name: str, task: Path) -> int:
    """Run it; the last line of stderr says why, where the status is not 0."""
    given = json.loads(task.read_text())
    context = Context(
        settings=Settings.from_json(given["settings"]),
        room=Path(given["room"]),
        repository=Path(given["repository"]),
        artefacts=Path(given["artefacts"]) if given["artefacts"] else None,
        lines=Path(given["lines"]),
        seconds=given["seconds"],
        before=given["before"],
    )
    try:
        importlib.import_module(f"fathom.proof.steps.{name}").measure(context)
    except SkipStepError as error:
        print(one_line(error), file=sys.stderr)
        return SKIPPED_STATUS
    except Exception as error:
        traceback.print_exc()
        print(one_line(f"{type(error).__name__}: {error}"), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2])))
