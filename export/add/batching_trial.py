"""Decide whether a graph is served in batches, by comparing its answers with those of its source."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from export.add import company
from export.add.sample_requests import SampleRequests
from export.added.input_generators import InputRule
from export.added.recipe_file import NONE, OPENED, OWN
from export.added.serving_graph import edit
from export.errors import ContractError, ExportError
from export.graph import batch_axis, external_data, onnx_stream
from export.graph import edit as graph_edit
from export.graph.onnx_file import reason, session
from export.recipe.agreement import RELATIVE_TOLERANCE, same
from export.recipe.limits import Tolerance
from export.recipe.recipe import Array, Arrays, AxisRange
from export.sources import validation
from export.sources.base import ImportedModel

PROBED = 3
"""Rows that are sent alone and together to see whether the first axis is a batch."""

TAPS = 24
RANDOM = frozenset(
    ("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike")
)


@dataclass(frozen=True)
class Plan:
    """How a graph is served: see `export.added.recipe_file`. `example` are requests stacked on a first axis;
    `latency_ms` is what one takes the source at best."""

    batch: str
    widened: tuple[str, ...]
    rules: Mapping[str, InputRule]
    example: Arrays
    axes: Mapping[str, Mapping[int, AxisRange]]
    tolerance: Tolerance
    notes: tuple[str, ...]
    latency_ms: float


def plan(imported: ImportedModel, raw: Path, room: Path, dims: Mapping[str, int], *, batching: bool = True) -> Plan:
    """Decide how the graph in `raw` is served, and check that it answers like the source.

    `dims` sizes the open axes, by symbol or as `input:axis`. Raises ContractError for an open axis without a size, and
    ExportError for a source that does not answer made-up input.
    """
    model = validation.read_onnx(raw)
    notes = [*imported.notes]
    if count := graph_edit.drop_weight_inputs(model):
        notes.append(f"{count} weights were also listed as inputs: they are constants now")
    candidate, why_not = _candidate(model, dims) if batching else (NONE, "--max-batch-size is 0")
    trial = BatchingTrial(imported, raw, model, room, dims)
    if candidate != NONE:
        failure = trial.batches(candidate)
        if failure is None:
            notes += [_BATCHED[candidate], *trial.notes]
        else:
            candidate, why_not = NONE, failure
            trial.samples.first_axis = PROBED
    if candidate == NONE:
        trial.samples.why_no_batch = f", and it is no batch axis: {why_not}"
        notes.append(f"no batching, because {why_not}: max_batch_size is 0")
    return trial.result(candidate, notes)


_BATCHED = {
    OWN: f"the first axis is a batch axis: {PROBED} rows together get the same answers as alone",
    OPENED: f"the batch size was fixed at 1 and is dynamic now: {PROBED} rows together get the same answers as alone",
}


class BatchingTrial:
    """One graph under trial: its sample requests and its answers."""

    def __init__(self, imported: ImportedModel, raw: Path, model: Any, room: Path, dims: Mapping[str, int]) -> None:
        self.imported = imported
        self.raw = raw
        self.model = model
        self.room = room
        self.samples = SampleRequests(imported, model, dims)
        self.notes = self.samples.notes
        self.latency_ms = math.inf

    def batches(self, candidate: str) -> str | None:
        """Why rows cannot share a batch, as a sentence; None where each row is answered as it is alone."""
        for fixed in graph_edit.fixed_outputs(self.model):
            return f"output '{fixed}' is a constant (without it, requests could be batched)"
        path = self.write(candidate, (), self.room / "probe.onnx")
        structure = onnx_stream.read_without_weights(
            path if candidate == OPENED else self.raw, keep_bytes=onnx_stream.LARGE
        )
        for obstacle in batch_axis.obstacles(structure):
            return str(obstacle)
        rules = self.samples.rules(candidate)
        example = self.samples.probes(rules, PROBED)
        alone = [
            self._answer({name: rows[index : index + 1] for name, rows in example.items()}) for index in range(PROBED)
        ]
        graph = session(path)
        try:
            together = graph({name: rows[:PROBED] for name, rows in example.items()})
        except Exception as error:  # ONNX Runtime's kinds: an operator that holds on to the one row
            return f"{PROBED} rows at once fail in ONNX Runtime ({reason(error)})"
        for name, rows in together.items():
            if rows.ndim == 0 or len(rows) != PROBED:
                return f"output '{name}' has no batch axis (its shape is {list(rows.shape)} for {PROBED} rows)"
        for index, single in enumerate(alone):
            for name, rows in together.items():
                if name in single and not same(rows[index : index + 1], single[name]):
                    row = {name: rows[index : index + 1] for name, rows in example.items()}
                    if not same(self._answer(row)[name], single[name]):
                        return (
                            f"the source gives different answers to the same request{self._drawing()} (output '{name}')"
                        )
                    return f"rows together get other answers than alone (output '{name}')"
        if failure := company.disagreement(graph, company.unlike(example, rules)):
            return failure
        if candidate == OPENED and all(_constant(rows) for rows in together.values()):
            return self._inner_values_agree(example)
        return None

    def _inner_values_agree(self, example: Arrays) -> str | None:
        """Compare inner values instead, for a graph whose answers do not depend on its inputs."""
        import onnx

        names = graph_edit.taps(self.model, TAPS)
        paths = []
        for name, path in (("alone", self.raw), ("together", self.room / "probe.onnx")):
            model = onnx.load(str(path), load_external_data=False)
            graph_edit.tap(model, names)
            paths.append(self.room / f"tapped_{name}.onnx")
            external_data.save(model, paths[-1], path.parent)
        together = session(paths[1])({name: rows[:PROBED] for name, rows in example.items()})
        source = session(paths[0])
        for index in range(PROBED):
            single = source({name: rows[index : index + 1] for name, rows in example.items()})
            for name in names:
                if single[name].shape[:1] == (1,) and not same(together[name][index : index + 1], single[name]):
                    return f"rows together get other inner values than alone ('{name}')"
        self.notes.append(f"every request gets the same answer, so {len(names)} inner values were compared too")
        return None

    def result(self, candidate: str, notes: list[str]) -> Plan:
        """The plan for the candidate that passed the trial."""
        batched = candidate != NONE
        rules = self.samples.rules(candidate)
        example = self.samples.rows(rules, batched=batched)
        requests = [
            {name: rows[index : index + 1] if batched else np.asarray(rows[index]) for name, rows in example.items()}
            for index in range(min(PROBED, len(next(iter(example.values())))))
        ]
        answers = [self._answer(request) for request in requests]
        again = self._answer(requests[0])
        widened = tuple(
            name for name, value in [*requests[0].items(), *answers[0].items()] if value.ndim == (1 if batched else 0)
        )
        notes += _notes_about(self.model, answers)
        for name, array in answers[0].items():
            if array.dtype.kind != "f" and not same(again[name], array):
                raise ExportError(
                    f"output '{name}' differs between two equal requests{self._drawing()}, and only floating-point "
                    "outputs can be compared within a tolerance",
                    remedy="export the graph without its random part",
                    tensor=name,
                )
        tolerance, drawn = _tolerance(answers, again)
        if drawn:
            varies = f"the source gives different answers to the same request{self._drawing()}"
            notes.append(f"{varies}: parity tolerates that much")
        elif named := self._drawing():
            notes.append(f"the graph draws random numbers{named}: expect answers to vary")
        if widened:
            kind = "only the batch axis" if batched else "no axis"
            named = ", ".join(f"'{name}'" for name in widened)
            notes.append(f"{named}: has {kind}, so an axis of size 1 was added for Triton")
        shaped = {name: InputRule(rule.data_type, rule.shape or (1,), rule.generator) for name, rule in rules.items()}
        stacked = {name: rows.reshape(len(rows), 1) if name in widened else rows for name, rows in example.items()}
        axes = self.samples.axes(candidate)
        return Plan(candidate, widened, shaped, stacked, axes, tolerance, tuple(notes), self.latency_ms)

    def write(self, candidate: str, widened: tuple[str, ...], path: Path) -> Path:
        """Write the graph as it is served; the shapes of its outputs are not checked by a run."""
        edited = type(self.model)()
        edited.CopyFrom(self.model)
        edit(edited, candidate, widened)
        external_data.save(edited, path, self.raw.parent)
        return path

    def _drawing(self) -> str:
        """The graph's operators that draw random numbers, in brackets."""
        operators = sorted({node.op_type for node in graph_edit.nodes(self.model.graph)} & RANDOM)
        return f" ({', '.join(operators)})" if operators else ""

    def _answer(self, request: Arrays) -> dict[str, Array]:
        made_up = self.imported.example is None
        asked = "made-up input" if made_up else "the example"
        began = time.perf_counter()
        try:
            answer = self.imported.predict(request)
        except ExportError:
            raise
        except Exception as error:  # torch's, scikit-learn's and ONNX Runtime's kinds
            remedy = "add real requests with --example FILE.npz" if made_up else "correct the example"
            if made_up and self.samples.has_open_axes:
                remedy += ", or other sizes with --dim NAME=SIZE"
            raise ExportError(f"the source fails on {asked} ({reason(error)})", remedy=remedy) from error
        self.latency_ms = min(self.latency_ms, 1000 * (time.perf_counter() - began))
        arrays = {name: np.asarray(array) for name, array in answer.items()}
        for name, array in arrays.items():
            if array.dtype.kind == "c":
                raise ContractError(
                    f"output '{name}' has type {array.dtype}, which Triton does not support",
                    remedy="return its real and imaginary parts",
                    tensor=name,
                    found=array.dtype,
                )
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise ExportError(
                    f"output '{name}' has NaN or infinity for {asked}",
                    remedy="add real requests with --example FILE.npz" if made_up else "remove such requests",
                    tensor=name,
                )
        return arrays


def _candidate(model: Any, dims: Mapping[str, int]) -> tuple[str, str]:
    """Whether the first axes may be a batch, and if not, why."""
    firsts = {}
    for value in graph_edit.inputs(model):
        sizes = graph_edit.shape(value) or ()
        if not sizes:
            return NONE, f"'{value.name}' is a scalar without a batch axis"
        first = sizes[0]
        if not isinstance(first, int) and (str(first) in dims or f"{value.name}:0" in dims):
            return NONE, f"--dim fixes the first axis of '{value.name}'"
        firsts[value.name] = first
    if all(not isinstance(first, int) for first in firsts.values()):
        return OWN, ""
    if all(first == 1 for first in firsts.values()):
        return OPENED, ""
    named = ", ".join(f"'{name}' {first or 'dynamic'}" for name, first in firsts.items())
    return NONE, f"the first axes of the inputs are not one dynamic batch axis ({named})"


def _notes_about(model: Any, answers: list[dict[str, Array]]) -> list[str]:
    notes = []
    doubles = [
        value.name
        for value in (*graph_edit.inputs(model), *model.graph.output)
        if value.type.tensor_type.elem_type == 11
    ]
    if doubles:
        named = ", ".join(f"'{name}'" for name in doubles)
        notes.append(
            f"{named}: TensorRT has no float64 tensors, so no engine can be built; ONNX Runtime serves the model"
        )
    if len(answers) > 1 and all(same(answers[0][name], other[name]) for other in answers[1:] for name in answers[0]):
        notes.append("every example request gets the same answer, so parity says little about this model")
    return notes


def _tolerance(answers: list[dict[str, Array]], again: dict[str, Array]) -> tuple[Tolerance, bool]:
    """The tolerance of later stations, of two significant digits, and whether the source itself varies."""
    numbers = [
        np.abs(array.astype(np.float64)) for each in answers for array in each.values() if array.dtype.kind == "f"
    ]
    scale = max((float(array.max(initial=0.0)) for array in numbers), default=0.0)
    half = any(array.dtype == np.float16 for each in answers for array in each.values())
    relative = RELATIVE_TOLERANCE * (10 if half else 1)
    limit = (scale or 1.0) * relative
    spread = 0.0
    for name, array in answers[0].items():
        if array.dtype.kind == "f" and array.shape == again[name].shape and array.size:
            spread = max(spread, float(np.abs(array.astype(np.float64) - again[name].astype(np.float64)).max()))
    if spread > limit:
        return Tolerance(float(f"{10 * spread:.1e}"), -1.0), True
    return Tolerance(float(f"{limit:.1e}"), 0.999 if half else 0.9999, relative), False


def _constant(rows: Array) -> bool:
    return all(same(rows[index : index + 1], rows[:1]) for index in range(1, len(rows)))
