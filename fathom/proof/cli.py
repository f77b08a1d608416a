"""The command of the proof: measure, write results.json, then docs/gpu.md and the configurations from it."""

from __future__ import annotations

import argparse
import datetime
import json
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from export import gpu
from fathom.errors import UsageError
from fathom.options import default_repository
from fathom.output import err
from fathom.proof import machine, report, runner, winners
from fathom.proof.runner import Outcome
from fathom.proof.settings import DRY, Settings

RESULTS = Path("results/gpu/results.json")
DOCUMENT = Path("docs/gpu.md")


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 0 once every step was run or skipped by name, 1 where one failed, 2 for wrong arguments."""
    command = _parser()
    given = command.parse_args(arguments)
    try:
        if given.render is not None:
            document = json.loads(given.render.read_text(encoding="utf-8"))
        else:
            document = measure(given)
            err.print(f"results: {given.results}", soft_wrap=True)
        if given.document is not None:
            if document["dry_run"] and report.holds_measurements(given.document):
                err.print(f"document: {given.document} has a GPU's figures, which a dry run leaves", soft_wrap=True)
            else:
                report.write(document, given.document)
                err.print(f"document: {given.document}", soft_wrap=True)
        if given.write_configs:
            for path in winners.write(document, given.model_repository):
                err.print(f"configuration: {path}", soft_wrap=True)
    except (UsageError, OSError, json.JSONDecodeError) as error:
        err.print(f"[red]error[/red] {error}", soft_wrap=True)
        return 2
    if document["dry_run"]:
        err.print("this was a dry run on the CPU: no figure of it is a GPU's", soft_wrap=True)
    return 1 if any(each["status"] == "failed" or each["failed"] for each in document["steps"]) else 0


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """Run the steps and return the document of results.json, written again after each: a proof may be ended."""
    card = gpu.find()
    if card is None and not given.dry_run:
        err.print("no NVIDIA GPU was found (nvidia-smi): a dry run on the CPU, small sizes", soft_wrap=True)
    settings = _settings(given, dry_run=given.dry_run or card is None)
    if unknown := set(given.steps) - set(runner.STEPS):
        raise UsageError(f"there is no step '{unknown.pop()}': choose {', '.join(runner.STEPS)}")
    began = datetime.datetime.now().astimezone()
    document: dict[str, Any] = {
        "dry_run": settings.dry_run,
        "date": began.isoformat(timespec="seconds"),
        "machine": machine.describe(),
        "settings": settings.to_json(),
        "steps": [],
    }

    def keep(outcome: Outcome) -> None:
        document["steps"].append(outcome.to_json())
        document["minutes"] = round((datetime.datetime.now().astimezone() - began).total_seconds() / 60, 1)
        document["gpu_afterwards"] = machine.read_gpu(machine.CHANGING)
        given.results.parent.mkdir(parents=True, exist_ok=True)
        given.results.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
        _tell(outcome)

    with tempfile.TemporaryDirectory(prefix="fathom-proof-") as folder:
        room = given.keep or Path(folder)
        room.mkdir(parents=True, exist_ok=True)
        runner.run(
            settings,
            room,
            given.model_repository.resolve(),
            given.artefacts.resolve() if given.artefacts else None,
            tuple(given.steps) or tuple(runner.STEPS),
            keep,
        )
    return document


def _settings(given: argparse.Namespace, *, dry_run: bool) -> Settings:
    settings = DRY if dry_run else Settings()
    if given.minutes is not None:
        settings = replace(settings, minutes=given.minutes)
    if given.seconds is not None:
        settings = replace(settings, seconds=given.seconds)
    if given.precisions:
        settings = replace(settings, precisions=tuple(given.precisions))
    return settings.with_models(tuple(given.models)) if given.models else settings


def _tell(outcome: Outcome) -> None:
    err.print(f"{outcome.step}: {len(outcome.rows)} rows in {outcome.seconds:g} s", markup=False, soft_wrap=True)
    for line in outcome.lines:
        err.print(f"  {line}", markup=False, soft_wrap=True)


def _parser() -> argparse.ArgumentParser:
    command = argparse.ArgumentParser(prog="tests/gpu/proof.py", description=__doc__)
    add = command.add_argument
    add("--dry-run", action="store_true", help="small sizes on the CPU; taken by itself where there is no GPU")
    add("--minutes", type=float, metavar="N", help="the whole proof's time (default: 28, in a dry run 5)")
    add("--seconds", type=float, metavar="N", help="of one measurement (default: 1, in a dry run 0.2)")
    add("--models", nargs="+", default=(), metavar="NAME", help="some of resnet50, mobilenet_v2, minilm")
    add("--precisions", nargs="+", default=(), choices=("fp32", "fp16", "int8"), help="some of the precisions")
    add("--steps", nargs="+", default=(), metavar="NAME", help=f"some of {', '.join(runner.STEPS)}")
    add("--model-repository", type=Path, default=default_repository(), metavar="DIR", help="of the bundled models")
    add("--artefacts", type=Path, metavar="DIR", help="what `python -m fathom.proof.artefacts DIR` made elsewhere")
    add("--results", type=Path, default=RESULTS, metavar="FILE", help=f"where results go (default: {RESULTS})")
    add("--document", type=Path, metavar="FILE", help=f"render the results into this page as well, as {DOCUMENT}")
    add("--render", type=Path, metavar="FILE", help="measure nothing: render these results")
    add("--write-configs", action="store_true", help="write configs/<gpu>.pbtxt of the winning configurations")
    add("--keep", type=Path, metavar="DIR", help="a scratch folder that is kept, with each step's log")
    return command
