"""Compare one model at every precision: size, distance, accuracy, gate and speed; nothing is published."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from export.errors import AccuracyError, ExportError, NotOfferedError
from export.graph import onnx_file
from export.precision.convert import Conversion, Judged, load, measure_source, write_onnx
from export.precision.precision import CPU, FP32, PRECISIONS, rule
from export.recipe.measure import Measurement, Parity, parity
from export.recipe.recipe import Array, Evaluation, Predict, Progress, Recipe, no_progress

BATCHES = (1, 16)
ROUNDS, ROUND_S = 40, 0.15


@dataclass(frozen=True)
class Speed:
    """ONNX Runtime on one thread of this machine's CPU: the median over the rounds of each batch size."""

    latency_ms: Mapping[int, float]

    def rows_per_s(self, batch: int) -> float:
        """Rows a second in batches of that size."""
        return 1000 * batch / self.latency_ms[batch]


@dataclass(frozen=True)
class PrecisionRow:
    """One model at one precision. What is None was not measured: the recipe does not offer the precision, or the
    conversion failed, where `passed` is False. `gate` says why."""

    model: str
    precision: str
    gate: str
    passed: bool | None
    bytes: int | None = None
    measured: Measurement | None = None
    to_fp32: Parity | None = None
    reduction: Mapping[str, Any] | None = None
    speed: Speed | None = None

    @property
    def failed(self) -> bool:
        """Whether an offered precision could not be converted or measured."""
        return self.passed is False and self.measured is None

    def to_json(self) -> dict[str, Any]:
        """One entry of the document of `fathom precision --json`."""
        speed = self.speed
        return {
            "model": self.model,
            "precision": self.precision,
            "passed": self.passed,
            "gate": self.gate,
            "bytes": self.bytes,
            "accuracy": dict(self.measured.accuracy) if self.measured else None,
            "parity": asdict(self.measured.parity) if self.measured and self.measured.parity else None,
            "parity_to_fp32": asdict(self.to_fp32) if self.to_fp32 else None,
            "batch_1_latency_ms": speed.latency_ms[1] if speed else None,
            "batch_16_rows_per_s": speed.rows_per_s(16) if speed else None,
            "reduction": dict(self.reduction) if self.reduction else None,
        }


def compare(
    recipe: Recipe, *, weights: str | None = None, runtime: str = CPU, on_progress: Progress = no_progress
) -> list[PrecisionRow]:
    """A row for each precision, INT8 as `runtime` takes it; one that is not offered or not converted says why.

    Raises ExportError where there is no FP32 graph to compare with.
    """
    rows: dict[str, PrecisionRow] = {}
    with tempfile.TemporaryDirectory(prefix="fathom-precision-") as room:
        source = load(recipe, recipe.resolve(weights), on_progress)
        full = write_onnx(recipe, source, Path(room), on_progress)
        reference, calibration = measure_source(source, on_progress), source.calibration
        del source  # the trained model's memory is for what comes next
        conversion = Conversion(recipe, reference, full.path, calibration, Path(room), on_progress)
        made = {FP32: conversion.full}
        for precision in PRECISIONS[1:]:
            try:
                allowed = rule(recipe, precision)
                assert allowed is not None
                made[precision] = conversion.reduced(precision, allowed, runtime=runtime)
            except NotOfferedError as error:
                rows[precision] = PrecisionRow(recipe.name, precision, error.why, None)
            except ExportError as error:
                rows[precision] = PrecisionRow(recipe.name, precision, str(error), False)
        stations = {precision: onnx_file.session(judged.path, threads=1) for precision, judged in made.items()}
        speeds = _speeds(stations, reference.evaluation, on_progress)
        for precision, judged in made.items():
            passed, words = _gate(conversion, judged)
            rows[precision] = PrecisionRow(
                model=recipe.name,
                precision=precision,
                gate=words,
                passed=passed,
                bytes=judged.path.stat().st_size,
                measured=judged.measured,
                to_fp32=parity(judged.outputs, conversion.full.outputs, recipe.not_compared),
                reduction=judged.reduction,
                speed=speeds[precision],
            )
    return [rows[precision] for precision in PRECISIONS]


def typical(evaluation: Evaluation, batch: int) -> dict[str, Array]:
    """A batch of evaluation rows; of ragged ones, those around the median length."""
    order = np.arange(len(evaluation))
    if evaluation.mask is not None:
        order = np.argsort(evaluation.inputs[evaluation.mask].astype(bool).sum(axis=1), kind="stable")
    middle = max(0, (len(order) - batch) // 2)
    rows = np.resize(order[middle : middle + batch], batch)
    chosen = replace(evaluation, inputs={name: values[rows] for name, values in evaluation.inputs.items()})
    return next(chosen.batches(batch))


def _gate(conversion: Conversion, judged: Judged) -> tuple[bool, str]:
    try:
        conversion.check(judged)
    except AccuracyError as error:
        return False, str(error)
    return True, "passed"


def _speeds(stations: Mapping[str, Predict], evaluation: Evaluation, on_progress: Progress) -> dict[str, Speed]:
    """The stations in turn, round by round, so that a machine busy for a while slows all alike."""
    latencies: dict[str, dict[int, float]] = {name: {} for name in stations}
    for batch in BATCHES:
        inputs = typical(evaluation, batch)
        taken: dict[str, list[float]] = {name: [] for name in stations}
        for station in stations.values():
            station(inputs)
        for done in range(ROUNDS):
            on_progress(f"time batches of {batch}", done, ROUNDS)
            for name, station in stations.items():
                taken[name].append(_seconds(station, inputs))
        on_progress(f"time batches of {batch}", ROUNDS, ROUNDS)
        for name, seconds in taken.items():
            latencies[name][batch] = 1000 * float(np.median(seconds))
    return {name: Speed(each) for name, each in latencies.items()}


def _seconds(station: Predict, inputs: Mapping[str, Array]) -> float:
    """The mean of as many calls as fit a small share of the round."""
    began, calls = time.perf_counter(), 0
    while calls == 0 or (calls < 10 and time.perf_counter() - began < ROUND_S / 10):
        station(inputs)
        calls += 1
    return (time.perf_counter() - began) / calls
