"""The report: one HTML file that needs no network, made from a folder of raw results and from nothing else."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loadtests import plots
from loadtests.bottleneck import deciding_point, describe_bottleneck
from loadtests.errors import LoadTestError, ResultsError
from loadtests.point import Point
from loadtests.record import Record
from loadtests.result import CapacityResult
from loadtests.store import Stored, read_runs
from loadtests.verdict import required_requests

_TEMPLATE = Path(__file__).with_name("report.html")
_MOST_CURVES = 4
_CALM_SHARE = 0.1
_COLUMNS = (
    "number", "phase", "rate_per_s", "achieved_per_s", "verdict", "requests", "errors", "p50_ms", "p90_ms", "p99_ms",
    "p999_ms", "max_ms", "mean_ms", "queue_ms", "compute_ms", "mean_batch", "send_lag_p50_ms", "send_lag_p99_ms",
    "send_lag_max_ms", "cpu_per_request_us", "generator_cpu_share", "host_cpu_share", "duration_s", "seed", "reason",
)  # fmt: skip


@dataclass(frozen=True)
class Section:
    """What the template shows of one run."""

    stored: Stored
    result: CapacityResult
    points: list[Point]
    certified: tuple[Point, ...]
    explanation: str
    warning: str
    bottleneck: str
    pictures: dict[str, plots.Picture]
    step_models: list[str]
    settings: list[tuple[str, str]]
    repeat: str


def write(folder: Path) -> Path:
    """`report.html` in the folder, for all runs in it, with `points.csv` and `latency.svg` beside each run's data.

    Raises ResultsError for a folder without readable results.
    """
    from jinja2 import Environment, StrictUndefined, select_autoescape

    sections = [_section(stored) for stored in read_runs(folder)]
    environment = Environment(autoescape=select_autoescape(default=True), undefined=StrictUndefined, trim_blocks=True)
    environment.filters.update(number=_number, text=_plain, seconds=_seconds)
    template = environment.from_string(_TEMPLATE.read_text())
    hardware = next((section.result.hardware for section in sections if section.result.hardware), {})
    path = folder / "report.html"
    try:
        path.write_text(template.render(sections=sections, hardware=hardware), encoding="utf-8")
        for section in sections:
            _write_csv(section.stored.folder / "points.csv", section.points)
            if picture := section.pictures.get("rate"):
                (section.stored.folder / "latency.svg").write_text(_standalone(picture.wide), encoding="utf-8")
    except OSError as error:
        raise ResultsError(f"cannot write the report to {folder}: {error.strerror}") from error
    return path


def _section(stored: Stored) -> Section:
    result = stored.result
    records = _records(stored, result)
    pictures = {
        "rate": plots.latency_against_rate(result),
        "server": plots.server_breakdown(result),
        "tail": plots.distribution(result, records),
    }
    decided = deciding_point(result)
    shown = next(((point, record) for point, record in records if point is decided), None)
    if shown is not None:
        pictures["time"] = plots.time_series(result, *shown)
    return Section(
        stored=stored,
        result=result,
        points=sorted(result.points, key=lambda point: point.rate_per_s),
        certified=result.certificate.points if result.certificate else (),
        explanation=_explain(result),
        warning=_warn(result),
        bottleneck=describe_bottleneck(decided) if decided else "",
        pictures={name: picture for name, picture in pictures.items() if picture is not None},
        step_models=plots.step_models(result),
        settings=[(key.replace("_", " "), _plain(value)) for key, value in result.settings.items()],
        repeat=_repeat(stored),
    )


def _records(stored: Stored, result: CapacityResult) -> list[tuple[Point, Record]]:
    """The raw records worth a curve: the deciding probe and its neighbours in rate, one per rate."""
    decided = deciding_point(result)
    if decided is None:
        return []
    whole = {point.rate_per_s: point for point in result.points if point.raw and not point.stopped}
    whole[decided.rate_per_s] = decided
    near = sorted(whole.values(), key=lambda point: abs(point.rate_per_s - decided.rate_per_s))[:_MOST_CURVES]
    found = []
    for point in near:
        try:
            found.append((point, stored.record(point)))
        except LoadTestError:
            continue  # the raw file was deleted to save space; the points still tell the story
    return found


def _explain(result: CapacityResult) -> str:
    """What the two numbers mean here, and what more time would buy."""
    certified, estimated = result.capacity_per_s, result.capacity_estimate_per_s
    slo = ", ".join(str(slo) for slo in result.slos)
    best = result.certificate
    if certified is None or best is None:
        least = max(required_requests(slo.percentile, 0) for slo in result.slos)
        tail = f" The best estimate is {estimated:.4g}/s." if estimated else ""
        return (
            f"No rate is certified: {result.reason}. A certificate for {slo} takes at least {least:,} independent "
            f"requests without a single one over the limit.{tail}"
        )
    text = (
        f"Certified means: {best.requests:,} requests at {certified:.4g}/s, with a seed of their own, kept {slo} so "
        "clearly that a server which does not keep it would look this good at most one time in a hundred."
    )
    if estimated is None or result.capacity_estimate_interval_per_s is None:
        return f"{text} No tested rate was too high, so how much more it holds is not known."
    low, high = result.capacity_estimate_interval_per_s
    text += (
        f" The estimate is where all probes together put the edge: {estimated:.4g}/s, with 95 % probability between "
        f"{low:.4g} and {high:.4g}/s."
    )
    if certified < estimated:
        text += (
            f" The certified rate is {(1 - certified / estimated) * 100:.0f} % lower because a finite number of "
            "requests cannot prove a rate right at the edge; a longer budget moves it closer."
        )
    return text


def _warn(result: CapacityResult) -> str:
    """What the reader must know before trusting the figures."""
    busy = result.settings.get("busy_before_share")
    if busy is None or busy <= _CALM_SHARE:
        return ""
    return (
        f"This machine's CPUs were {busy * 100:.0f} % busy before the test began. Where server or generator run on it, "
        "they shared it with something else, and a quiet machine would hold more."
    )


def _repeat(stored: Stored) -> str:
    settings = stored.run.settings
    slos = " ".join(f"--slo {slo}" for slo in stored.run.slos)
    return (
        f"fathom capacity {stored.run.model} {slos} --server {stored.run.server} "
        f"--budget {settings.get('budget_s', 180):g}s --seed {stored.run.seed}"
    )


def _write_csv(path: Path, points: list[Point]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(_COLUMNS)
        writer.writerows([getattr(point, column) for column in _COLUMNS] for point in points)


def _standalone(svg: str) -> str:
    """The picture with the light theme written into it, for use outside the page."""
    head, _, rest = _TEMPLATE.read_text().partition("/* light */")
    assert rest, head
    colours = rest.partition("/* end */")[0]
    style = f"<style>svg {{{colours} font-family: sans-serif; background: #fff }}</style>"
    return svg.replace("<title>", f"{style}<title>", 1)


def _number(value: float | None, digits: int = 3) -> str:
    """Three significant digits, never in powers of ten; a dash for what was not measured."""
    if value is None:
        return "–"
    if value != 0 and abs(value) >= 10**digits:
        return f"{value:,.0f}"
    return f"{value:.{digits}g}" if abs(value) >= 0.001 or value == 0 else f"{value:.4f}"


def _seconds(value: float) -> str:
    return f"{value:.1f} s"


def _plain(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:,.4g}"
    if isinstance(value, Mapping | list | tuple):
        return json.dumps(value, indent=2, default=str)
    return str(value)
