"""The second server of `fathom capacity --against`: another model repository, named configuration or server."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from export.command import quote
from fathom.console.arguments import STOPPED, UsageError
from fathom.console.live_table import line
from fathom.console.options import DEFAULT_SERVER, default_config_name
from fathom.console.output import err, note, out, print_json, print_labelled
from fathom.console.servers import connect_with_metrics, embedded, same_server
from fathom.recipes import manifest_of
from fathom.workload import same_requests
from loadtests import report
from loadtests.capacity import CapacityRequest
from loadtests.errors import ResultsError, SloUnreachableError
from loadtests.finding import find_in_turns
from loadtests.report import comparison_page
from loadtests.report.compare import Comparison
from loadtests.report.prose import headline
from loadtests.results.result import INTERRUPTED, CapacityResult
from loadtests.target.access import Access
from loadtests.target.hardware import available_memory
from loadtests.workload.workload import ModelWeight

FOLDER = "against"
"""In the results folder: where the second side's results lie."""
_GIB = 2**30


def check(arguments: argparse.Namespace, models: list[str]) -> None:
    """Refuses what cannot be measured against, before anything is started. Raises UsageError."""
    other, repository = arguments.against, arguments.model_repository
    if arguments.locust_master:
        raise UsageError("--against cannot use Locust workers: leave out --locust-master")
    if not _is_repository(other) and ":" in other:
        if other == (arguments.server or DEFAULT_SERVER):
            raise UsageError(f"--against {other} is the first server itself: name another one, or a model repository")
        return
    if not _is_repository(other):
        known = sorted({path.stem for model in models for path in (repository / model / "configs").glob("*.pbtxt")})
        if other not in known:
            offer = f"one of the configurations {', '.join(known)}" if known else "HOST:PORT"
            raise UsageError(f"--against {other} is not a folder: name a model repository, HOST:PORT or {offer}")
        if arguments.server is None and other == default_config_name(repository, arguments.tritonserver):
            raise UsageError(f"--against {other} is the configuration of the first server: name another one")
        return
    folder = Path(other)
    if folder.samefile(repository) and arguments.server is None:
        raise UsageError(
            f"--against {other} is the model repository of the first server: name another one, or HOST:PORT"
        )
    found = sorted(path.parent.name for path in folder.glob("*/config.pbtxt"))
    if not found:
        raise UsageError(f"--against {other} contains no models: name a model repository or HOST:PORT")
    if missing := [model for model in models if not (folder / model).is_dir()]:
        raise UsageError(f"--against {other} has no model {missing[0]}; it has {', '.join(found)}")


def measure(arguments: argparse.Namespace, request: CapacityRequest, taken: int | None) -> int:
    """Measure both in turns, compare them, and return the exit status; `taken` as in `connect`."""
    folder = request.folder or Path("results")
    with connect(arguments, request.access, taken) as (server, metrics_url, repository):
        first = replace(request, side=_first_name(arguments))
        manifest = manifest_of(request.model, repository) if len(request.shares) == 1 else None
        second = replace(
            request,
            side=arguments.against,
            server=server,
            metrics_url=metrics_url,
            folder=folder / FOLDER,
            manifest=manifest,
        )
        sides = (first.side, second.side)
        width = max(map(len, sides))
        try:
            results = find_in_turns(
                (first, second),
                lambda side, point: err.print(f"{sides[side]:<{width}}  {line(point, point.verdict)}", soft_wrap=True),
                note,
            )
        except SloUnreachableError as error:
            err.print(f"fathom capacity: {error}", soft_wrap=True)
            return 1
    return _report(arguments, sides, results, folder)


def _report(
    arguments: argparse.Namespace, sides: tuple[str, str], results: tuple[CapacityResult, CapacityResult], folder: Path
) -> int:
    unsaved = next((result.unsaved for result in results if result.unsaved), "")
    runs = [Path(result.folder) for result in results if result.folder and result.points]
    found, path = None, None
    try:
        if len(runs) == len(results) and not unsaved:
            for run in runs:
                report.write(run)
            path = runs[1] / "comparison.html"
            (found,) = comparison_page.write(runs, path)
    finally:  # whatever becomes of the page, what was measured is printed
        _print(arguments, sides, results, found, path)
    if unsaved:
        raise ResultsError(unsaved)
    ended = [result.ended_because for result in results]
    if any(ended) and not arguments.json:
        out.print(f"  continue: {_again(arguments, folder)}", soft_wrap=True)
    if INTERRUPTED in ended:
        return STOPPED
    return 1 if any(ended) or found is None or found.changes[0].finding == "unknown" else 0


def _again(arguments: argparse.Namespace, folder: Path) -> str:
    """The command that goes on with both searches."""
    slos = "".join(f" --slo {quote(slo)}" for slo in arguments.slo)
    given = same_requests(arguments) + same_server(arguments)
    budget = f" --budget {arguments.budget:g}s" if arguments.budget else ""
    models = " ".join(map(quote, arguments.models))
    other = f" --against {quote(arguments.against)} --resume {quote(str(folder))}"
    return f"fathom capacity {models}{slos}{given}{other}{budget}"


def _print(
    arguments: argparse.Namespace,
    sides: tuple[str, str],
    results: tuple[CapacityResult, CapacityResult],
    found: Comparison | None,
    path: Path | None,
) -> None:
    if arguments.json:
        documents = [{"side": side, **result.to_json()} for side, result in zip(sides, results, strict=True)]
        comparison = found.to_json() if found else None
        print_json({"sides": documents, "comparison": comparison, "report": str(path) if path else None})
        return
    for side, result in zip(sides, results, strict=True):
        out.print(side, soft_wrap=True)
        print_labelled("capacity", headline(result))
        if result.partial:
            print_labelled("partial", f"{result.ended_because}; the result uses the probes before that")
    for change in found.changes if found else ():
        print_labelled("found", change.sentence)
        for text in change.notes:
            print_labelled("warning", text)
    if path:
        out.print(f"  report: {path}", soft_wrap=True)


@contextlib.contextmanager
def connect(arguments: argparse.Namespace, access: Access, taken: int | None) -> Iterator[tuple[str, str | None, Path]]:
    """Its address, that of its metrics where it is known, and the repository that it serves or may serve.

    A server of this command is started once and is idle while the other one is measured. UsageError where the memory
    that is left is less than the first one has `taken` (bytes).
    """
    other, repository, config_name = arguments.against, arguments.model_repository, arguments.against
    models = [ModelWeight.parse(text).model for text in arguments.models]
    if not _is_repository(other) and ":" in other:
        with connect_with_metrics(other, repository, access, models) as (server, metrics_url):
            yield server, metrics_url, repository
        return
    if access.tls is not None:
        raise UsageError(f"Fathom cannot start a server with TLS for --against {other}: use --against HOST:PORT")
    left = available_memory()
    if taken is not None and left is not None and left < taken:
        raise UsageError(
            f"the first server uses {taken / _GIB:.1f} GiB of memory and only {left / _GIB:.1f} GiB are free: start "
            f"the second server ({other}) on another machine, and use --against HOST:PORT"
        )
    if _is_repository(other):
        repository, config_name = Path(other), default_config_name(Path(other), arguments.tritonserver)
    why = f"starting Triton with {other}"
    with embedded(repository, config_name, models, arguments.tritonserver, why) as (server, metrics_url):
        yield server, metrics_url, repository


def _first_name(arguments: argparse.Namespace) -> str:
    """What the first server is called."""
    other, repository = arguments.against, arguments.model_repository
    if arguments.server:
        return str(arguments.server)
    if not _is_repository(other) and ":" not in other:
        return default_config_name(repository, arguments.tritonserver) or "config.pbtxt"
    return str(repository) if repository.name == other else repository.name


def _is_repository(other: str) -> bool:
    return Path(other).is_dir()
