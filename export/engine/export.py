"""The engine station of an export: published ONNX -> plan -> parity and accuracy -> record -> model repository."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from typing import Any

from export import files
from export.command import export_again, fathom
from export.config import config as configs
from export.engine import build, cache, config, gpu, record, runtime
from export.engine.cuda import Device
from export.engine.gpu import Gpu
from export.engine.options import EngineOptions
from export.engine.profiles import Profile, profiles
from export.engine.record import EngineRecord, records
from export.errors import EngineError, ExportError
from export.graph import onnx_file
from export.precision import int8_form
from export.recipe.gate import gate
from export.recipe.limits import Limits, Tolerance
from export.recipe.measure import Measurement, Parity, Reference, evaluate
from export.recipe.recipe import Arrays, Predict, Progress, Recipe, answers, no_progress
from export.repository import manifest
from export.repository.publish import Change, hold, publish
from export.repository.scratch import scratch

ONNX, REFERENCE, PLAN = "1/model.onnx", "1/reference.npz", "model.plan"
CONFIG_NAME = "gpu"
"""The configuration that serves engines of any GPU: Triton picks the plan by compute capability."""
CONFIG = f"configs/{CONFIG_NAME}.pbtxt"
LIMITS = Limits(Tolerance(max_abs=inf, min_cosine=0.999, max_relative=0.02))
"""How far an engine may be from ONNX Runtime on the same file: wide enough for TF32 and FP16 sums in another order,
far too narrow for a wrong kernel."""
REMEDY = "try --no-tf32, and report the layer if it persists"


@dataclass(frozen=True)
class EngineResult:
    """What happened to a model's engine. `skipped` means that it was there already; `notes` are for a person."""

    record: EngineRecord
    skipped: bool
    seconds: float
    notes: tuple[str, ...] = ()


def export_engine(
    recipe: Recipe,
    model_repository: Path,
    trt: Any,
    options: EngineOptions,
    *,
    force: bool = False,
    on_progress: Progress = no_progress,
) -> EngineResult:
    """Build the engine of an exported model for this GPU with the module `tensorrt`, judge it and publish it.

    Publishes `1/model.plan`, its record and layers, and `configs/gpu.pbtxt` unless a person wrote that. Raises
    EngineError or AccuracyError, and then the repository is as it was: the ONNX model is served on.
    """
    began = time.monotonic()
    folder = model_repository / recipe.name
    card = gpu.required()
    main = configs.load(folder / "config.pbtxt")
    with hold(model_repository, on_progress=on_progress), scratch(folder) as room:
        onnx = folder / ONNX
        if not onnx.is_file():
            raise EngineError(
                f"{recipe.name}/{ONNX} is missing",
                remedy=export_again(folder),
                file=f"{recipe.name}/{ONNX}",
            )
        if (obstacle := int8_form.tensorrt_obstacle(onnx)) is not None:
            raise EngineError(
                f"{recipe.name}/{ONNX} is INT8 as CPUs multiply it ({obstacle}), and TensorRT takes INT8 with zero "
                f"point 0 only",
                remedy=export_again(folder, "--precision", "int8", "--engine"),
                file=f"{recipe.name}/{ONNX}",
                found=obstacle,
            )
        wanted = profiles(main.message, recipe.axis_ranges, tuned_batch=options.tuned_batch)
        draft = EngineRecord(
            plan=PLAN,
            onnx_sha256=files.sha256(onnx),
            tensorrt=str(trt.__version__),
            gpu=card,
            options=options.to_json(),
            profiles=[_listed(profile) for profile in wanted],
            files={},
            parity=Parity(0.0, 0.0, 1.0),
            accuracy={},
            batch1_ms=0.0,
            build_seconds=0.0,
            created=manifest.now(),
        )
        others = records(folder)
        for each in others:
            complete = (folder / CONFIG).is_file() and not each.changed_files(folder)
            if not force and each.key == draft.key and complete:
                return EngineResult(each, True, time.monotonic() - began)
        plan = room / plan_name(card, others, draft.onnx_sha256)
        kept = cache.path_for(model_repository, card, draft.tensorrt)
        built = build.build(trt, onnx, plan, wanted, options, timing_cache=kept, on_progress=on_progress)
        layers = plan.with_name(plan.name + record.LAYERS_SUFFIX)
        judged, distance, batch1_ms = _judge(
            recipe, folder, trt, plan, layers, wanted, options, main.message.max_batch_size, on_progress
        )
        published = {f"1/{plan.name}": plan, f"1/{layers.name}": layers}
        by_capability = {each.gpu.compute_capability: each.plan for each in others if _shares(each, draft)}
        text = config.tensorrt_config(
            main,
            wanted,
            comment=_comment(draft),
            plan=plan.name,
            busy_wait_events=batch1_ms < config.BUSY_WAIT_BELOW_MS,
            cc_model_filenames={**by_capability, card.compute_capability: plan.name},
        )
        notes = _add_config(folder, text, others, room, published)
        made = replace(
            draft,
            plan=plan.name,
            files=manifest.file_records(published),
            parity=distance,
            accuracy=judged.accuracy,
            batch1_ms=round(batch1_ms, 3),
            build_seconds=built.seconds,
            warnings=built.warnings,
        )
        path = room / f"{plan.name}{record.SUFFIX}"
        made.write(path)
        publish([Change(folder, {**published, f"1/{path.name}": path})])
    return EngineResult(made, False, time.monotonic() - began, notes)


def plan_name(card: Gpu, others: Sequence[EngineRecord], onnx_sha256: str) -> str:
    """`model.plan`, or `model.sm90.plan` where a GPU of another compute capability has that, of the same ONNX file."""
    for each in others:
        if each.gpu.compute_capability == card.compute_capability:
            return each.plan
    taken = any(each.plan == PLAN and each.onnx_sha256 == onnx_sha256 for each in others)
    return f"model.sm{card.compute_capability.replace('.', '')}.plan" if taken else PLAN


def _judge(
    recipe: Recipe,
    folder: Path,
    trt: Any,
    plan: Path,
    layers: Path,
    wanted: Sequence[Profile],
    options: EngineOptions,
    max_batch_size: int,
    on_progress: Progress,
) -> tuple[Measurement, Parity, float]:
    """Write the layers, hold the engine on every profile to ONNX Runtime, and time it at batch 1 on the first."""
    reference = Reference.read(folder / REFERENCE)
    batch = min(8, max(1, max_batch_size))
    session = onnx_file.session(folder / ONNX)
    evaluation = reference.evaluation
    outputs = answers(session, evaluation, batch=batch, on_progress=on_progress, step="measure onnx")
    at_onnx = evaluate(recipe, outputs, reference)
    with contextlib.closing(Device()) as device:  # before TensorRT's runtime, whose context it makes current
        loaded = runtime.open_plan(trt, plan, version_compatible=options.version_compatible)
        layers.write_text(runtime.layers_json(trt, loaded), encoding="utf-8")
        stations = [runtime.EngineStation(trt, loaded, device, index) for index in range(len(wanted))]
        measured, worst = at_onnx, Parity(0.0, 0.0, 1.0)
        for index in reversed(range(len(wanted))):
            predict, step = _preferring(index, stations, wanted), f"measure engine, profile {index}"
            given = answers(predict, evaluation, batch=batch, on_progress=on_progress, step=step)
            try:
                measured = evaluate(recipe, given, reference, against=outputs)
            except ExportError as error:
                message = f"{recipe.name}: the engine's {error}; no engine was published"
                raise EngineError(message, **error.about) from None
            gate(recipe, "engine", at_onnx, measured, LIMITS, against="onnx station", remedy=lambda: REMEDY)
            assert measured.parity is not None
            worst = _worse(worst, measured.parity)
        one = next(evaluation.batches(1))
        batch1_ms = runtime.latency_ms(_preferring(0, stations, wanted), one)
    return measured, worst, batch1_ms


def _preferring(index: int, stations: Sequence[Predict], wanted: Sequence[Profile]) -> Predict:
    """The engine with one profile where that takes the shapes, else with the first that does."""

    def predict(arrays: Arrays) -> Arrays:
        shapes = {name: values.shape for name, values in arrays.items()}
        for each in (index, *range(len(wanted))):
            if wanted[each].takes(shapes):
                answered: Arrays = stations[each](arrays)
                return answered
        raise EngineError(
            f"the evaluation's shapes {shapes} lie outside every profile", remedy="widen the recipe's axis_ranges"
        )

    return predict


def _worse(one: Parity, other: Parity) -> Parity:
    return Parity(
        max(one.max_abs, other.max_abs),
        max(one.max_relative, other.max_relative),
        min(one.min_cosine, other.min_cosine),
    )


def _add_config(
    folder: Path, text: str, others: Sequence[EngineRecord], room: Path, published: dict[str, Path]
) -> tuple[str, ...]:
    """Add configs/gpu.pbtxt to what is published, unless a person has written or changed it."""
    present = folder / CONFIG
    if present.is_file():
        found = files.sha256(present)
        generated = {each.files[CONFIG].sha256 for each in others if CONFIG in each.files}
        if found not in generated and present.read_text(encoding="utf-8") != text:
            return (
                f"{folder.name}/{CONFIG} was written or changed by hand and is kept: "
                f"`{fathom('check', folder.name, repository=folder.parent)}` says what it loads",
            )
    made = room / Path(CONFIG).name
    made.write_text(text, encoding="utf-8")
    published[CONFIG] = made
    return ()


def _shares(each: EngineRecord, draft: EngineRecord) -> bool:
    """Whether another GPU's engine is of the same ONNX file, and so serves beside this one."""
    other = each.gpu.compute_capability != draft.gpu.compute_capability
    return other and each.onnx_sha256 == draft.onnx_sha256


def _comment(draft: EngineRecord) -> tuple[str, ...]:
    return (
        f"Made by `fathom export --engine` from config.pbtxt, for {draft.gpu.name} (compute capability",
        f"{draft.gpu.compute_capability}) and TensorRT {draft.tensorrt}.",
        f"Triton serves it with --model-config-name={CONFIG_NAME}.",
        "It is made again with the engine as long as nobody changes it; a changed one is kept.",
    )


def _listed(profile: Profile) -> dict[str, Any]:
    """The profile as JSON reads it back: lists where there were tuples."""
    return {name: {kind: list(shape) for kind, shape in shapes.items()} for name, shapes in profile.to_json().items()}
