"""Check the model repository: configurations, artefacts, engines and manifests. Exit status 1: an error was found."""

from __future__ import annotations

import argparse

from rich.text import Text

from fathom.console import options
from fathom.console.arguments import UsageError
from fathom.console.output import out, print_json
from fathom.console.servers import not_loaded
from server import loading

EXPORTED = ("artefact", "companion", "versions-present")
"""Rules on the files of an export, which a model that waits for its own export does not have yet."""


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Declare the arguments of `fathom check`."""
    command.add_argument("models", nargs="*", metavar="MODEL", help="models to check (default: all)")
    command.add_argument(
        "--triton-tag",
        metavar="TAG",
        help="Triton release that must load the engines, such as 26.08-py3 (default: that of docker-compose.yml beside "
        "the model repository)",
    )
    command.add_argument(
        "--config-name",
        metavar="NAME",
        help="check with configs/NAME.pbtxt of each model that has one (default: that of docker-compose.yml beside the "
        "model repository)",
    )
    command.add_argument("--strict", action="store_true", help="exit with status 1 on warnings too")
    options.add_repository(command)
    options.add_json(command)


def run(arguments: argparse.Namespace) -> int:
    """Check and print what was found."""
    from export.config.deployment import deployment
    from export.config.served import names, served
    from export.lint.lint import lint, model_names

    repository, models = arguments.model_repository, arguments.models
    name = arguments.config_name or deployment(repository.resolve().parent).config_name
    if arguments.config_name and arguments.config_name not in (known := names(repository)):
        offer = f"choose {', '.join(known)}" if known else "no model has a configs/ folder"
        raise UsageError(f"no model has a configuration named '{arguments.config_name}': {offer}")
    findings = lint(repository, models or None, triton_tag=arguments.triton_tag, config_name=name)
    left = {} if models else loading.waiting(repository, name)
    empty = {model for model, which in left.items() if model in which}
    findings = [each for each in findings if not (each.rule in EXPORTED and each.file.partition("/")[0] in empty)]
    present = len(model_names(repository))
    if not present:
        raise UsageError(f"{repository} has no model: it contains no folder")
    configured = [each for each in served(repository, name) if not models or each.model in models]
    errors = [finding for finding in findings if finding.severity == "error"]
    failed = bool(findings if arguments.strict else errors)
    if arguments.json:
        print_json(
            {
                "ok": not failed,
                "findings": [finding.to_json() for finding in findings],
                "config_name": name,
                "served": {each.model: each.to_json() for each in configured if each.model not in left},
                "not_exported": [*left],
            }
        )
    else:
        for finding in findings:
            colour = "red" if finding.severity == "error" else "yellow"
            out.print(Text.assemble((finding.severity, colour), f" {finding}"))
        loaded = [each for each in configured if each.model not in left]
        if loaded:
            out.print(f"served {f'with --model-config-name={name}' if name else 'without a --model-config-name'}:")
        for each in loaded:
            out.print(f"  {each.model}: {each}", soft_wrap=True)
        if left:
            out.print(not_loaded(repository, name), soft_wrap=True)
        checked = _counted(len(set(models)) or present, "model")
        warnings = len(findings) - len(errors)
        out.print(f"{checked} checked: {_counted(len(errors), 'error')}, {_counted(warnings, 'warning')}")
    return 1 if failed else 0


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
