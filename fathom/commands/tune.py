"""Find the configuration with the highest capacity under your SLOs, and write it to configs/NAME.pbtxt.

Fathom measures how long batches take, and ranks every configuration with a simulation of Triton's batcher. It then
measures those that can win, each on a fresh server and in turns with the best so far.

  fathom tune image_classifier --slo p99=100ms
  fathom tune text_embedding --slo p90=200ms --budget 5m --name tuned
  fathom tune image_classifier --slo p99=100ms --name cpu --replace
  fathom tune my_model --slo p99=20ms --space space.toml --dry-run

Exit status 1: no configuration met the SLOs. 130: you pressed Ctrl-C; the results so far are kept, and --resume
continues.
"""

from __future__ import annotations

import argparse
import datetime
import os
import re
from pathlib import Path

from export.command import fathom, naming, quote
from fathom.console import options
from fathom.console.arguments import STOPPED, UsageError
from fathom.console.output import Steps, note, out, print_json, print_labelled
from fathom.workload import add_inputs
from loadtests.report.page import number
from loadtests.results.folders import make_run_folder, model_folder, newest_run
from loadtests.slo import Slo, check_limited, format_s
from loadtests.tuning.result import TuningResult
from loadtests.tuning.space import INSTANCES, INTRA, Configuration, Machine, Space, Step, default_space, read_space
from server import environment

DEFAULT_BUDGET_S = 600.0
DEFAULT_NAME = "tuned"
_TABLE_S, _SHOWN = 6.0, 8


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Declare the arguments of `fathom tune`."""
    command.add_argument("model", metavar="MODEL", help="model or pipeline to tune")
    options.add_slo(command)
    command.add_argument(
        "--objective",
        default="rate",
        metavar="WHAT",
        help="what to optimise: rate (requests/s under the SLOs), cost (requests/s per core) or latency-at=RATE (p99 "
        "at that rate) (default: %(default)s)",
    )
    command.add_argument(
        "--budget",
        type=options.duration_s,
        default=DEFAULT_BUDGET_S,
        metavar="TIME",
        help="time for the whole run, as in 5m (default: 10m)",
    )
    command.add_argument(
        "--space",
        type=Path,
        metavar="FILE",
        help="TOML file with the values to try, one table per step of the pipeline",
    )
    command.add_argument(
        "--name",
        default=DEFAULT_NAME,
        metavar="NAME",
        help="write the best configuration to configs/NAME.pbtxt of each model (default: %(default)s)",
    )
    command.add_argument("--replace", action="store_true", help="overwrite configs/NAME.pbtxt if it exists")
    command.add_argument(
        "--dry-run", action="store_true", help="print what would be tried and for how long, and measure nothing"
    )
    options.add_seed(command)
    add_inputs(command)
    options.add_generators(command)
    options.add_report_or_resume(command, "results/tune")
    options.add_repository(command)
    options.add_tritonserver(command)
    options.add_json(command)


def run(arguments: argparse.Namespace) -> int:
    """Measure, write the best configuration and the report, and print the result."""
    from fathom.tuning.models import TunedModel, this_machine
    from fathom.tuning.request import TuneRequest
    from fathom.tuning.session import tune
    from fathom.tuning.winner import write_winner
    from loadtests.capacity import CapacityRequest
    from loadtests.report import tuning as report
    from loadtests.tuning.objective import Objective

    slos = tuple(Slo.parse(text) for text in arguments.slo)
    check_limited(slos)
    if measured := [slo for slo in slos if slo.measure]:
        raise UsageError(
            f"tune simulates whole answers, so it cannot use {measured[0]}: compare two configurations of a streaming "
            "model with fathom capacity --against"
        )
    machine = this_machine()
    repository, tritonserver = arguments.model_repository, arguments.tritonserver
    embedded = not environment.has_backend("onnxruntime", tritonserver)
    config_name = options.default_config_name(repository, tritonserver)
    tuned = TunedModel.read(arguments.model, repository, config_name, machine, embedded=embedded)
    space = _space(arguments.space, tuned.steps, machine)
    objective = Objective.parse(arguments.objective, slos, lambda configuration: cores(space, configuration))
    if arguments.dry_run:
        return _dry_run(space, arguments)
    _check_place(arguments.name, repository, list(tuned.messages), replace=arguments.replace)
    folder = _resumed(arguments) if arguments.resume else _new_folder(arguments.report, arguments.model)
    request = TuneRequest(
        tuned,
        space,
        objective,
        arguments.objective,
        CapacityRequest(
            server="",
            model=arguments.model,
            slos=slos,
            budget_s=arguments.budget,
            seed=arguments.seed,
            workers=arguments.workers,
            real_time=arguments.real_time,
        ),
        folder,
        tritonserver,
        arguments.inputs,
    )
    with Steps() as steps:
        result = tune(request, steps)
    path = report.write(result, folder)
    interrupted = result.ended == "interrupted"
    written: list[Path] = []
    if not interrupted and result.gain_shown:
        written = write_winner(tuned, result, arguments.name, path)
    if arguments.json:
        print_json({**result.to_json(), "report": str(path), "written": [str(file) for file in written]})
    else:
        _print(result, path, written, arguments)
    if interrupted:
        note(f"interrupted; to continue: {_again(arguments, folder)}")
        return STOPPED
    return 0 if result.meets_slo else 1


def cores(space: Space, configuration: Configuration) -> float:
    """How many cores all instances can keep busy, at most those of the machine."""
    busy = 0.0
    for step in space.steps:
        knobs = configuration.of(step)
        busy += int(knobs[INSTANCES]) * int(knobs.get(INTRA, 1))
    return min(busy, float(space.machine.cores))


def _space(path: Path | None, steps: tuple[Step, ...], machine: Machine) -> Space:
    if path is None:
        return default_space(steps, machine)
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"--space {path} is not UTF-8: {error}") from None
    return read_space(text, steps, machine, str(path))


def _check_place(name: str, repository: Path, models: list[str], *, replace: bool) -> None:
    """Before anything is measured: the winner's files can be written, and replace none unasked."""
    if not re.fullmatch(r"[\w.-]+", name):
        raise UsageError(f"--name {name!r} must consist of letters, digits, '-', '_' and '.'")
    for model in models:
        path = repository / model / "configs" / f"{name}.pbtxt"
        if path.exists() and not replace:
            raise UsageError(f"{path} exists already: choose another --name, or add --replace")
        folder = path.parent if path.parent.is_dir() else path.parent.parent
        if not os.access(folder, os.W_OK):
            raise UsageError(
                f"{folder} is not writable, so configs/{name}.pbtxt could not be written: change its permissions"
            )


def _resumed(arguments: argparse.Namespace) -> Path:
    """The run to continue: the newest in the folder of results or the model's, or that folder itself."""
    from fathom.tuning.session import HEADER

    homes = (arguments.resume, model_folder(arguments.resume, arguments.model))
    return next((run for home in homes if (run := newest_run(home, HEADER))), arguments.resume)


def _new_folder(results: Path, model: str) -> Path:
    now = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    return make_run_folder(model_folder(results, model), now)


def _again(arguments: argparse.Namespace, folder: Path) -> str:
    words = ["tune", arguments.model, *(word for slo in arguments.slo for word in ("--slo", slo))]
    if arguments.objective != "rate":
        words += ["--objective", arguments.objective]
    words += ["--budget", f"{arguments.budget:g}s", "--seed", str(arguments.seed), "--name", arguments.name]
    words += ["--replace"] if arguments.replace else []
    words += ["--space", str(arguments.space)] if arguments.space else []
    words += [word for entry in arguments.inputs for word in ("--inputs", entry)]
    return fathom(*words, "--resume", str(folder), repository=arguments.model_repository)


def _dry_run(space: Space, arguments: argparse.Namespace) -> int:
    from fathom.tuning.times import variants

    count = len(space)
    tables = sum(len(variants(space, step.model)) for step in space.steps)
    tables_s = min(_TABLE_S * tables, arguments.budget / 4)
    if arguments.json:
        print_json(
            {
                "space": {
                    each.name: {"values": list(each.values), "committed": each.committed} for each in space.dimensions
                },
                "configurations": count,
                "tables": tables,
                "budget_s": arguments.budget,
                "left_out": [{"what": what, "why": why} for what, why in space.left_out],
            }
        )
        return 0
    for dimension in space.dimensions:
        if len(dimension.values) > 1:
            out.print(f"  {dimension.name}: {', '.join(map(str, dimension.values))} (committed: {dimension.committed})")
    out.print(f"{count} configurations, {tables} tables of batch times (about {format_s(tables_s)})")
    out.print(
        f"the ranking and the race take the rest of {format_s(arguments.budget)}; only those that can win are measured"
    )
    for what, why in space.left_out:
        print_labelled("not tried", f"{what}: {why}")
    return 0


def _print(result: TuningResult, path: Path, written: list[Path], arguments: argparse.Namespace) -> None:
    from rich.table import Table

    from loadtests.report.tuning import headline

    out.print(f"{result.model}: {headline(result)}", soft_wrap=True)
    shown = [row for row in result.rows if row.probes][:_SHOWN]
    table = Table(
        "configuration", f"predicted\n{result.unit}", "measured", "95 % interval", "proven/s", "outcome", box=None
    )
    for row in shown:
        interval = f"{number(row.low)} to {number(row.high)}" if row.low and row.high else "-"
        table.add_row(
            row.configuration,
            number(row.predicted),
            number(row.measured),
            interval,
            number(row.proven_per_s),
            row.outcome,
        )
    out.print(table)
    measured = sum(1 for row in result.rows if row.probes)
    print_labelled(
        "tried", f"{len(result.rows)} configurations ranked, {measured} measured; the bottleneck is {result.bottleneck}"
    )
    if result.ended:
        print_labelled("warning", result.ended)
    for file in written:
        print_labelled("written", str(file))
    if written:
        given = [*naming(arguments.model_repository)]
        command = " ".join(["fathom serve --config-name", quote(arguments.name), *map(quote, given)])
        print_labelled("serve", command)
    print_labelled("report", str(path))
