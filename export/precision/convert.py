"""Convert a loaded source to the ONNX file of a precision, measured at every station and past its gate.

The data goes one way: `load` the source, `write_onnx` its FP32 graph, `measure_source`, then `convert` the graph to the
target. The trained model is not needed after `measure_source`, so its caller can release it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from export.command import quote
from export.errors import ContractError, ExportError, NotLoadedError, NotOfferedError
from export.graph import external_data, onnx_file
from export.graph.signature import Signature, from_onnx
from export.precision import memory, trees
from export.precision.float16 import HalfPrecision
from export.precision.int8 import Quantization
from export.precision.precision import CPU, FP16, FP32, Target
from export.precision.sensitivity import Cost, costs
from export.precision.weights_only import WeightsOnly
from export.recipe.gate import gate
from export.recipe.limits import Limits, Reduced
from export.recipe.measure import Measurement, Reference, evaluate, parity
from export.recipe.recipe import Arrays, Evaluation, Progress, Recipe, Source, answers, no_progress

Calibration = Callable[[], Evaluation]
GRAPH = "model.onnx"
WORST = 3
"""How many operators a failed gate names."""


@dataclass(frozen=True)
class FullGraph:
    """The FP32 graph as the source wrote it; `versions` are those of its IR and operator sets."""

    path: Path
    signature: Signature
    versions: Mapping[str, int]


@dataclass(frozen=True)
class Judged:
    """One precision's graph: its file, its measurement, its limits, and how it was reduced (both None for FP32).

    `outputs` are its answers to the evaluation. `costs()` finds the operators whose reduction costs most; it takes
    about a second for each.
    """

    path: Path
    measured: Measurement
    outputs: Arrays
    limits: Limits | None = None
    reduction: Mapping[str, Any] | None = None
    costs: Callable[[], list[Cost]] | None = None

    def remedy(self) -> str | None:
        """What to do where the graph fails its gate; None where nothing was reduced, or its weights alone."""
        worst = self.costs()[:WORST] if self.costs is not None else []
        if not worst:
            return None
        return (
            f"keep in FP32 what costs most, with --exclude {quote(worst[0].name)} of `fathom export` (the outputs are "
            f"changed most by {', '.join(map(str, worst))})"
        )


@dataclass(frozen=True)
class Converted:
    """The graph's files by name in the version folder, the measurement of every station, and the reduction."""

    files: Mapping[str, Path]
    stations: Mapping[str, Measurement]
    reduction: Mapping[str, Any] | None


def load(recipe: Recipe, weights: Any, on_progress: Progress = no_progress) -> Source:
    """Load the recipe's model. Raises ExportError for a package that is not installed."""
    on_progress("load the trained model", 0, 1)
    try:
        with onnx_file.quiet():
            source = recipe.load_showing(weights, on_progress)
    except ImportError as error:
        raise ExportError(
            f"exporting {recipe.name} needs the package '{error.name}'",
            remedy="pip install 'fathom-serving[export]'",
            field="package",
            expected=error.name,
        ) from error
    on_progress("load the trained model", 1, 1)
    return source


def write_onnx(recipe: Recipe, source: Source, room: Path, on_progress: Progress = no_progress) -> FullGraph:
    """Write the source's FP32 graph into `room`. Raises ExportError where its converter fails."""
    path = room / f"{FP32}.onnx"
    on_progress("convert to ONNX", 0, 1)
    try:
        source.write_onnx(path)
    except ExportError:
        raise
    except Exception as error:  # torch's and skl2onnx's converters raise many kinds
        raise ExportError(
            f"{recipe.name} could not be converted to ONNX ({type(error).__name__}: {onnx_file.reason(error)})"
        ) from error
    memory.release()
    on_progress("convert to ONNX", 1, 1)
    return FullGraph(path, *from_onnx(path))


def measure_source(source: Source, on_progress: Progress = no_progress) -> Reference:
    """The source's answers to its evaluation, which every later station is compared with."""
    outputs = answers(source.predict, source.evaluation, on_progress=on_progress, step="measure source")
    return Reference(source.evaluation, outputs)


def convert(
    recipe: Recipe,
    reference: Reference,
    full: FullGraph,
    target: Target,
    calibration: Calibration | None,
    room: Path,
    on_progress: Progress = no_progress,
) -> Converted:
    """Measure the FP32 graph, reduce it to the target in `room`, and hold each graph to its gate.

    Raises AccuracyError for a graph that costs more than its precision may, ContractError for one that takes or gives
    other tensors than the FP32 graph.
    """
    conversion = Conversion(recipe, reference, full.path, calibration, room, on_progress)
    conversion.check(conversion.full)
    stations = {"source": conversion.at_source, "onnx": conversion.full.measured}
    judged = conversion.full
    if target.allowed is not None:
        judged = conversion.reduced(target.precision, target.allowed, target.excluded, target.runtime)
        conversion.check(judged)
        _check_same(full.signature, from_onnx(judged.path)[0], target.precision)
        stations = {"source": conversion.at_source, "onnx_fp32": conversion.full.measured, "onnx": judged.measured}
    return Converted({GRAPH: judged.path, **external_data.beside(judged.path)}, stations, judged.reduction)


class Conversion:
    """One model's FP32 graph and its reductions in one scratch folder, measured against its source."""

    def __init__(
        self,
        recipe: Recipe,
        reference: Reference,
        full: Path,
        calibration: Calibration | None,
        room: Path,
        on_progress: Progress = no_progress,
    ) -> None:
        memory.release()  # the trained model has done its part
        self.recipe = recipe
        self.reference = reference
        self.calibration = calibration
        self.room = room
        self.on_progress = on_progress
        self.at_source = Measurement(recipe.score(reference.outputs, reference.evaluation, reference.outputs))
        self.full = self._judge(full, "measure onnx")

    def check(self, judged: Judged) -> None:
        """Raise AccuracyError if a graph costs more than its precision may, naming the operators that cost most."""
        gate(self.recipe, "onnx", self.at_source, judged.measured, judged.limits, remedy=judged.remedy)

    def reduced(self, precision: str, allowed: Reduced, excluded: Sequence[str] = (), runtime: str = CPU) -> Judged:
        """The graph at a precision below FP32, judged but not yet held to its gate; INT8 as `runtime` takes it.

        Raises NotOfferedError for a graph of trees.
        """
        if trees.only_trees(self.full.path):
            raise NotOfferedError(self.recipe.name, precision, trees.WHY_NOT_REDUCED, (FP32,))
        path, rows = self.room / f"{precision}.onnx", self.reference.evaluation
        made: HalfPrecision | Quantization | WeightsOnly
        with self._converting(precision):
            if allowed.weights_only:
                made = WeightsOnly(self.full.path, allowed, excluded, self.room)
            elif precision == FP16:
                made = HalfPrecision(self.full.path, allowed, excluded)
            else:
                rows = self._calibration_rows()
                made = Quantization(self.full.path, rows, allowed, excluded, self.room, self.on_progress, runtime)
            step = f"convert to {precision.upper()}"
            self.on_progress(step, 0, 1)
            made.write(path)
            self.on_progress(step, 1, 1)
            judged = self._judge(path, f"measure onnx at {precision}")

        distance = asdict(parity(judged.outputs, self.full.outputs, self.recipe.not_compared))
        judged = replace(judged, limits=allowed, reduction={**made.record(), "parity_to_fp32": distance})
        if isinstance(made, WeightsOnly):
            return judged  # the costs of hundreds of products would take minutes, for no remedy
        by_node = made

        def worst() -> list[Cost]:
            return costs(self.full.path, rows, by_node.candidates, by_node.write, self.room, self.on_progress)

        return replace(judged, costs=worst)

    def _calibration_rows(self) -> Evaluation:
        if self.calibration is None:
            raise ExportError(
                f"{self.recipe.name} has no calibration data, which int8 needs",
                remedy="give its Source a `calibration`",
                field="calibration",
            )
        return self.calibration()

    @contextmanager
    def _converting(self, precision: str) -> Iterator[None]:
        """Raise ExportError for what ONNX Runtime's converters raise, and for a graph of theirs that it does not
        load."""
        try:
            yield
        except Exception as error:
            if isinstance(error, ExportError) and not isinstance(error, NotLoadedError):
                raise
            raise ExportError(
                f"{self.recipe.name} cannot be converted to {precision} ({onnx_file.reason(error)})",
                remedy="keep what this names in FP32 with --exclude of `fathom export`, or the whole model",
                field="precision",
                found=precision,
            ) from error

    def _judge(self, path: Path, step: str) -> Judged:
        session, evaluation = onnx_file.session(path), self.reference.evaluation
        station = self.recipe.judged_graph(session, path)
        outputs = answers(station, evaluation, on_progress=self.on_progress, step=step)
        return Judged(path, evaluate(self.recipe, outputs, self.reference), outputs)


def _check_same(full: Signature, reduced: Signature, precision: str) -> None:
    """A reduced graph takes and gives what the FP32 one does, so that one config.pbtxt serves both."""
    if reduced != full:
        raise ContractError(
            f"the graph at {precision} takes and gives {reduced}, the FP32 one {full}", remedy="report this"
        )
