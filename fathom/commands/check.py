"""Lint the model repository: configurations, artefacts, engines and manifests; exit status 1 on an error."""

from __future__ import annotations

import argparse

from rich.markup import escape

from fathom import options
from fathom.errors import UsageError
from fathom.output import out, print_json


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Declare the arguments of `fathom check`."""
    command.add_argument("models", nargs="*", metavar="MODEL", help="models to check (default: all)")
    command.add_argument(
        "--triton-tag",
        metavar="TAG",
        help="the Triton release that engines must run in, such as 26.05-py3 (default: that of docker-compose.yml "
        "beside the model repository, if there is one)",
    )
    command.add_argument("--strict", action="store_true", help="exit with status 1 on a warning, too")
    options.add_repository(command)
    options.add_json(command)


def run(arguments: argparse.Namespace) -> int:
    """Check and print what was found."""
    from export.lint.lint import lint, model_names

    findings = lint(arguments.model_repository, arguments.models or None, triton_tag=arguments.triton_tag)
    present = len(model_names(arguments.model_repository))
    if not present:
        raise UsageError(f"{arguments.model_repository} holds no model: there is no folder in it")
    errors = [finding for finding in findings if finding.severity == "error"]
    failed = bool(findings if arguments.strict else errors)
    if arguments.json:
        print_json({"ok": not failed, "findings": [finding.to_json() for finding in findings]})
    else:
        for finding in findings:
            colour = "red" if finding.severity == "error" else "yellow"
            out.print(f"[{colour}]{finding.severity}[/{colour}] {escape(str(finding))}")
        checked = _counted(len(set(arguments.models)) or present, "model")
        warnings = len(findings) - len(errors)
        out.print(f"{checked} checked: {_counted(len(errors), 'error')}, {_counted(warnings, 'warning')}")
    return 1 if failed else 0


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
