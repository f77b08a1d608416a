"""From a loaded source to the ONNX file of a precision, judged at every station."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from export.errors import AccuracyError, ExportError, NotLoadedError
from export.graph import onnx_file
from export.precision import memory
from export.precision.float16 import HalfPrecision
from export.precision.int8 import Quantization
from export.precision.precision import CPU, FP16, FP32, rule
from export.precision.sensitivity import Cost, costs
from export.recipe.measure import Measurement, Reference, gate, parity
from export.recipe.recipe import Arrays, Evaluation, Progress, Recipe, Reduced, Source, answers, no_progress

Costs = Callable[[], list[Cost]]
WORST = 3
"""How many operators a failed gate names."""


@dataclass(frozen=True)
class Judged:
    """One precision's graph: its file, what it earned, and how it was reduced (None for fp32).

    `outputs` are its answers to the evaluation. `costs()` finds which operators its reduction costs most; it takes a
    second or so for each.
    """

    path: Path
    measured: Measurement
    outputs: Arrays
    reduction: Mapping[str, Any] | None = None
    costs: Costs | None = None


class Conversion:
    """One model's conversion in one scratch folder: the FP32 graph is written at once, what is measured when asked."""

    def __init__(self, recipe: Recipe, source: Source, room: Path, on_progress: Progress = no_progress) -> None:
        self.recipe = recipe
        self.source = source
        self.room = room
        self.on_progress = on_progress
        self.full_path = room / f"{FP32}.onnx"
        self._write(self.full_path)

    @cached_property
    def reference(self) -> Reference:
        """The source's answers to its evaluation."""
        evaluation = self.source.evaluation
        outputs = answers(self.source.predict, evaluation, on_progress=self.on_progress, step="measure source")
        # The trained model has done its part: its memory is for the next station.
        self.source = replace(self.source, predict=_released, write_onnx=_released, module=None)
        memory.release()
        return Reference(evaluation, outputs)

    @cached_property
    def at_source(self) -> Measurement:
        """The source's figures."""
        outputs = self.reference.outputs
        return Measurement(self.recipe.score(outputs, self.reference.evaluation, outputs))

    @cached_property
    def full(self) -> Judged:
        """The FP32 graph."""
        _ = self.reference  # measured first, as data passes the stations
        return self._judge(self.full_path, "onnx")

    def passes(self, judged: Judged, precision: str, station: str = "onnx") -> None:
        """Raise AccuracyError if a graph costs more than its precision may, naming the operators that cost most."""
        try:
            gate(self.recipe, station, self.at_source, judged.measured, rule(self.recipe, precision))
        except AccuracyError as error:
            if judged.costs is None:
                raise
            worst = judged.costs()[:WORST]
            if not worst:
                raise
            named = ", ".join(map(str, worst))
            raise AccuracyError(
                f"{error}; the outputs are changed most by {named}: keep what costs most in FP32 with "
                f"--exclude {worst[0].name}",
                **error.about,
            ) from None

    def reduced(self, precision: str, excluded: Sequence[str] = (), runtime: str = CPU) -> Judged:
        """The graph at a precision, judged but not yet held to its gate; INT8 as `runtime` takes it."""
        allowed = rule(self.recipe, precision)
        if allowed is None:
            return self.full
        path = self.room / f"{precision}.onnx"
        with self._converting(precision):
            if precision == FP16:
                record, worst = self._float16(path, allowed, excluded)
            else:
                record, worst = self._int8(path, allowed, excluded, runtime)
            judged = self._judge(path, f"onnx at {precision}")
        distance = asdict(parity(judged.outputs, self.full.outputs))
        return replace(judged, reduction={**record, "parity_to_fp32": distance}, costs=worst)

    def _float16(self, path: Path, allowed: Reduced, excluded: Sequence[str]) -> tuple[dict[str, Any], Costs]:
        self.on_progress("convert to FP16", 0, 1)
        half = HalfPrecision(self.full_path, allowed, excluded)
        half.write(path)
        self.on_progress("convert to FP16", 1, 1)

        def alone(name: str, target: Path) -> None:
            half.write(target, only=name)

        return half.record(), lambda: self._costs(self.source.evaluation, half.types, alone)

    def _int8(
        self, path: Path, allowed: Reduced, excluded: Sequence[str], runtime: str
    ) -> tuple[dict[str, Any], Costs]:
        if self.source.calibration is None:
            raise ExportError(
                f"{self.recipe.name} has no calibration data, which int8 needs: give its Source a `calibration`",
                field="calibration",
            )
        rows = self.source.calibration()
        whole = Quantization(self.full_path, rows, allowed, excluded, self.room, self.on_progress, runtime)
        self.on_progress("quantise", 0, 1)
        whole.write(path)
        self.on_progress("quantise", 1, 1)

        def alone(name: str, target: Path) -> None:
            whole.write(target, [name])

        return whole.record(), lambda: self._costs(rows, whole.nodes, alone)

    @contextmanager
    def _converting(self, precision: str) -> Iterator[None]:
        """What ONNX Runtime's converters raise, and a graph of theirs that it does not load, as one sentence."""
        try:
            yield
        except Exception as error:
            if isinstance(error, ExportError) and not isinstance(error, NotLoadedError):
                raise
            raise ExportError(
                f"{self.recipe.name} cannot be converted to {precision} ({onnx_file.reason(error)}): keep the "
                "operators that this names in FP32 with --exclude, or the whole model",
                field="precision",
                found=precision,
            ) from error

    def _costs(self, rows: Evaluation, candidates: Mapping[str, str], alone: Callable[[str, Path], None]) -> list[Cost]:
        return costs(self.full_path, rows, candidates, alone, self.room, self.on_progress)

    def _judge(self, path: Path, station: str) -> Judged:
        session = onnx_file.session(path)
        evaluation = self.reference.evaluation
        outputs = answers(session, evaluation, on_progress=self.on_progress, step=f"measure {station}")
        figures = self.recipe.score(outputs, evaluation, self.reference.outputs)
        return Judged(path, Measurement(figures, parity(outputs, self.reference.outputs)), outputs)

    def _write(self, path: Path) -> None:
        self.on_progress("convert to ONNX", 0, 1)
        try:
            self.source.write_onnx(path)
        except ExportError:
            raise
        except Exception as error:  # torch's and skl2onnx's converters raise many kinds
            raise ExportError(
                f"{self.recipe.name} could not be converted to ONNX ({type(error).__name__}: {onnx_file.reason(error)})"
            ) from error
        memory.release()
        self.on_progress("convert to ONNX", 1, 1)


def _released(*arguments: Any) -> Any:
    raise RuntimeError("the trained model was released after it was measured")


def load(recipe: Recipe, weights: Any, on_progress: Progress = no_progress) -> Source:
    """The recipe's loaded model. Raises ExportError for a package that is not installed."""
    on_progress("load the trained model", 0, 1)
    try:
        with onnx_file.quiet():
            source = recipe.load(weights)
    except ImportError as error:
        raise ExportError(
            f"exporting {recipe.name} needs the package '{error.name}': pip install 'fathom-serving[export]'",
            field="package",
            expected=error.name,
        ) from error
    on_progress("load the trained model", 1, 1)
    return source
