"""The report: one HTML file that needs no network, made from a folder of raw results and from nothing else."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loadtests import page, plots
from loadtests.attempt import likely_to_pass
from loadtests.bottleneck import deciding_point, describe_bottleneck
from loadtests.errors import LoadTestError, ResultsError
from loadtests.point import Point
from loadtests.record import Record
from loadtests.result import CapacityResult
from loadtests.slo import as_asked, describe_slos
from loadtests.store import Stored, read_runs
from loadtests.verdict import required_requests

_MOST_CURVES = 4
_CALM_SHARE = 0.1
_MINUTES = (1, 2, 5, 10, 30)
_LIKELY, _WORTH = 0.6, 1.02
"""How probable a certificate must be to be announced, and how much higher to be worth it."""
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
    slos: str
    explanation: str
    warning: str
    bottleneck: str
    pictures: dict[str, plots.Picture]
    step_models: list[str]
    mixed: bool
    """Several models were asked at once."""
    settings: list[tuple[str, str]]
    repeat: str
    files: dict[str, bytes]
    """Contents by name."""
    downloads: dict[str, str]
    """Addresses in the page by name."""


def write(folder: Path) -> Path:
    """`report.html` in the folder, for all runs in it; `points.csv`, `latency.svg` and `.png` beside each run's data.

    Raises ResultsError for a folder without readable results.
    """
    sections = [_section(stored) for stored in read_runs(folder)]
    hardware = next((section.result.hardware for section in sections if section.result.hardware), {})
    path = folder / "report.html"
    try:
        path.write_text(page.render("report.html", sections=sections, hardware=hardware), encoding="utf-8")
        for section in sections:
            for name, content in section.files.items():
                (section.stored.folder / name).write_bytes(content)
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
    points = sorted(result.points, key=lambda point: point.rate_per_s)
    settings = {**result.settings, "mix": _mix(result.settings)}
    files = _files(points, pictures["rate"])
    return Section(
        stored=stored,
        result=result,
        points=points,
        certified=result.certificate.points if result.certificate else (),
        slos=describe_slos(result.slos),
        explanation=_explain(result),
        warning=_warn(result),
        bottleneck=describe_bottleneck(decided) if decided else "",
        pictures={name: picture for name, picture in pictures.items() if picture is not None},
        step_models=plots.step_models(result),
        mixed=any(point.models for point in points),
        settings=[(key.replace("_", " "), page.plain(value)) for key, value in settings.items()],
        repeat=_repeat(stored),
        files=files,
        downloads={name: page.download(name, content) for name, content in files.items()},
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
    slo = describe_slos(result.slos)
    best = result.certificate
    if certified is None or best is None:
        least = max(required_requests(slo.percentile, 0) for slo in result.slos)
        tail = f" The best estimate is {estimated:.4g}/s." if estimated else ""
        return (
            f"No rate is certified: {result.reason}. A certificate for {slo} takes at least {least:,} independent "
            f"requests without a single one over the limit.{tail}" + (_more_time(result) if estimated else "")
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
            "requests cannot prove a rate right at the edge."
        )
    return text + _more_time(result)


def _more_time(result: CapacityResult) -> str:
    """What another minute would buy, by the curve the estimate rests on."""
    best_per_s = result.capacity_per_s or 0.0
    for minutes in _MINUTES:
        rate_per_s = likely_to_pass(result.points, result.slos, minutes * 60.0, best_per_s, likely=_LIKELY)
        if rate_per_s > best_per_s * _WORTH:
            buys = f"would probably certify about {rate_per_s:.4g}/s (--resume with a longer --budget)."
            if minutes == 1:
                return f" Another minute {buys}"
            return f" Another minute would not certify more; {minutes} minutes {buys}"
    return f" Not even another {_MINUTES[-1]} minutes would certify noticeably more."


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
    words = [
        f"fathom capacity {_mix(settings) or stored.run.model}",
        *(f"--slo {slo}" for slo in as_asked(stored.run.slos)),
    ]
    words += [
        f"--server {stored.run.server}",
        f"--budget {settings.get('budget_s', 180):g}",
        f"--seed {stored.run.seed}",
    ]
    if settings.get("workers", 1) > 1:
        words.append(f"--workers {settings['workers']}")
    if settings.get("max_per_s"):
        words.append(f"--max-rate {settings['max_per_s']:g}")
    return " ".join(words)


def _mix(settings: Mapping[str, Any]) -> str:
    """`image_classifier=0.7 text_embedding=0.3`; empty where one model was asked."""
    mix: Mapping[str, float] = settings.get("mix") or {}
    return " ".join(f"{model}={weight:.4g}" for model, weight in mix.items()) if len(mix) > 1 else ""


def _files(points: list[Point], picture: plots.Picture | None) -> dict[str, bytes]:
    """What lies beside the raw data and can be saved from the page."""
    files = {"points.csv": _csv(points).encode()}
    if picture is not None:
        files["latency.svg"] = page.standalone(picture.wide).encode()
        files["latency.png"] = picture.png(page.colours())
    return files


def _csv(points: list[Point]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    writer.writerows([getattr(point, column) for column in _COLUMNS] for point in points)
    return text.getvalue()
