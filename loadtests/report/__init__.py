"""The report: one HTML file that needs no network, made from a folder of raw results and from nothing else."""

from __future__ import annotations

import csv
import io
import os
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from loadtests.errors import LoadTestError, ResultsError
from loadtests.judge.sequences import describe_sequences
from loadtests.judge.streams import describe_streams
from loadtests.records.batching import Batching
from loadtests.records.documents import read
from loadtests.records.point import Point
from loadtests.records.record import Record
from loadtests.records.streaming import GenerationLoad, StreamPoint
from loadtests.report import page, plots, rates, streams
from loadtests.report.batching import StepBatching, describe_preprocessing, find_preprocessing, step_batching
from loadtests.report.prose import (
    capacity,
    conditions,
    deciding_point,
    describe_bottleneck,
    edge_point,
    explain,
    in_short,
    proven,
    shown_verdict,
    sized_point,
    warn,
)
from loadtests.report.requests import describe_requests, describe_sizes
from loadtests.report.svg import Picture
from loadtests.report.timelines import draw_timelines
from loadtests.results.result import CapacityResult
from loadtests.results.store import RAW, Stored, read_runs, replace
from loadtests.search.certificate import Certificate, certificates
from loadtests.slo import as_requested, format_ms
from loadtests.workload.arrivals import POISSON

_MOST_CURVES = 4
_COLUMNS = (
    "number", "phase", "rate_per_s", "achieved_per_s", "verdict", "requests", "errors", "p50_ms", "p90_ms", "p99_ms",
    "p999_ms", "max_ms", "mean_ms", "queue_ms", "compute_ms", "mean_batch", "send_lag_p50_ms", "send_lag_p99_ms",
    "send_lag_max_ms", "cpu_per_request_us", "generator_cpu_share", "host_cpu_share", "duration_s", "seed", "reason",
)  # fmt: skip
_STREAM_COLUMNS = tuple(field.name for field in fields(StreamPoint))
_GENERATION_COLUMNS = tuple(field.name for field in fields(GenerationLoad))


@dataclass(frozen=True)
class Section:
    """What the template shows of one run."""

    stored: Stored
    result: CapacityResult
    points: list[Point]
    confirmed: list[Certificate]
    """Those that passed, the proven rate's first."""
    conditions: str
    capacity: tuple[str, str] | None
    proven: str
    in_short: str
    explanation: str
    warning: str
    bottleneck: str
    requests: str
    by_size: str
    decided: Point | None
    """The probe that is shown request by request."""
    sized: Point | None
    """Whose latencies are shown by size."""
    edge: Point | None
    """The probe that shows what limits the server."""
    batching: list[StepBatching]
    preprocessing: str
    pictures: dict[str, Picture]
    step_models: list[str]
    mixed: bool
    """Several models were asked at once."""
    streamed: bool
    """Answers came in parts."""
    whole: bool
    """Whether the latency of whole answers is of interest."""
    tails: list[tuple[str, str]]
    """A measure as readers know it, and the name of the picture with its distribution."""
    tokens: str
    sequences: str
    generation: bool
    """The server gives figures of its slots."""
    settings: list[tuple[str, str]]
    repeat: str
    files: dict[str, bytes]
    """Contents by name."""
    place: str
    """Folder of the raw data, seen from the page."""
    downloads: dict[str, str]
    """Addresses in the page by name."""


def write(folder: Path) -> Path:
    """`report.html` in the folder, for all runs in it; `points.csv`, `latency.svg` and `.png` beside each run's data.

    Raises ResultsError for a folder without readable results.
    """
    sections = [_section(stored, folder) for stored in read_runs(folder)]
    hardware = next((section.result.hardware for section in sections if section.result.hardware), {})
    path = folder / "report.html"
    try:
        replace(path, page.render("report.html", sections=sections, hardware=hardware, shown_verdict=shown_verdict))
        for section in sections:
            for name, content in section.files.items():
                replace(section.stored.folder / name, content)
    except OSError as error:
        raise ResultsError(f"cannot write the report to {folder}: {error.strerror}", folder) from error
    return path


def _section(stored: Stored, folder: Path) -> Section:
    result = streams.without_empty_times(stored.result)
    streamed = streams.streamed(result)
    records = _records(stored, result)
    limited, names = streams.limited_measures(result), streams.names(result)
    pictures = {
        "rate": rates.latency_against_rate(result),
        "tokens": rates.tokens_against_rate(result),
        "server": plots.server_breakdown(result),
        **{f"tail{measure}": plots.distribution(result, records, measure) for measure in limited},
    }
    decided, sized = deciding_point(result), sized_point(result)
    shown = next(((point, record) for point, record in records if point is decided), None)
    if shown is not None:
        pictures["time"] = plots.time_series(result, *shown)
        pictures["timelines"] = draw_timelines(result, *shown)
    points = sorted(result.points, key=lambda point: point.rate_per_s)
    settings = {**result.settings, "mix": " ".join(_mix(result.settings))}
    known = {model: read(Batching, each) for model, each in (settings.pop("batching", None) or {}).items()}
    edge = edge_point(result)
    files = _files(points, pictures["rate"])
    return Section(
        stored=stored,
        result=result,
        points=points,
        confirmed=certificates(result.points),
        conditions=conditions(result),
        capacity=capacity(result),
        proven=proven(result),
        in_short=in_short(result),
        explanation=explain(result),
        warning=warn(result),
        bottleneck=describe_bottleneck(edge) if edge else "",
        requests=describe_requests(result.settings),
        by_size=describe_sizes(sized) if sized else "",
        decided=decided,
        sized=sized,
        edge=edge,
        batching=step_batching(edge, known) if edge else [],
        preprocessing=describe_preprocessing(find_preprocessing(edge, known)) if edge else "",
        pictures={name: picture for name, picture in pictures.items() if picture is not None},
        step_models=plots.step_models(result),
        mixed=any(point.models for point in points),
        streamed=streamed,
        whole="" in limited or not streamed,
        tails=[(names[measure], f"tail{measure}") for measure in limited if pictures[f"tail{measure}"]],
        generation=any(point.load and point.load.generation for point in points),
        tokens=describe_streams(edge) if edge else "",
        sequences=describe_sequences(edge) if edge else "",
        settings=[(key.replace("_", " "), page.plain(value)) for key, value in settings.items()],
        repeat=_repeat(stored),
        files=files,
        place=os.path.relpath(stored.folder / RAW, folder),
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


def _repeat(stored: Stored) -> str:
    """A command to paste into a shell, so names that mean something there are quoted."""
    settings = stored.run.settings
    words = ["fathom", "capacity", *(_mix(settings) or [stored.run.model])]
    for slo in as_requested(stored.run.slos):
        words += ["--slo", str(slo)]
    words += ["--server", stored.run.server]
    words += ["--budget", f"{settings.get('budget_s', 180):g}", "--seed", str(stored.run.seed)]
    if settings.get("arrivals", POISSON.name) != POISSON.name:
        words += ["--arrivals", str(settings["arrivals"])]
    intervals = {each["interval_s"] for each in (settings.get("sequences") or {}).values()}
    if len(intervals) == 1:  # else each is the one of its model's recipe
        words += ["--sequence-interval", format_ms(intervals.pop() * 1e3)]
    for model, file in (settings.get("inputs") or {}).items():
        words += ["--inputs", f"{model}={file}"]
    if settings.get("workers", 1) > 1:
        words += ["--workers", str(settings["workers"])]
    if settings.get("max_per_s"):
        words += ["--max-rate", f"{settings['max_per_s']:g}"]
    if settings.get("tls"):
        words += ["--tls-ca", "FILE"]
    for name in settings.get("headers", ()):
        words += ["--header", f"{name}=..."]
    return shlex.join(words)


def _mix(settings: Mapping[str, Any]) -> list[str]:
    """`image_classifier=0.7` and `text_embedding=0.3`; empty where one model was asked."""
    mix: Mapping[str, float] = settings.get("mix") or {}
    return [f"{model}={weight:.4g}" for model, weight in mix.items()] if len(mix) > 1 else []


def _files(points: list[Point], picture: Picture | None) -> dict[str, bytes]:
    """What lies beside the raw data and can be saved from the page."""
    files = {"points.csv": _csv(points).encode()}
    if picture is not None:
        files["latency.svg"] = page.standalone(picture.wide).encode()
        files["latency.png"] = picture.png(page.colours())
    return files


def _csv(points: list[Point]) -> str:
    """A row a point; of streams with more columns, which ordinary models do not have."""
    shown: list[tuple[str, Callable[[Point], Any], tuple[str, ...]]] = [("", lambda point: point, _COLUMNS)]
    if any(point.streaming for point in points):
        shown.append(("", lambda point: point.streaming, _STREAM_COLUMNS))
        shown.append(("server_", lambda point: point.load and point.load.generation, _GENERATION_COLUMNS))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(prefix + name for prefix, _, names in shown for name in names)
    writer.writerows([getattr(of(point), name, None) for _, of, names in shown for name in names] for point in points)
    return text.getvalue()
