"""Step e: TensorRT engines of the same graphs, where the builder is installed; else skipped by name."""

from __future__ import annotations

import contextlib
from dataclasses import asdict
from typing import Any

from export import config as configs
from export import engine, engine_library, engine_runtime, recipes
from export.cuda import Device
from export.engine_options import EngineOptions
from export.errors import EngineUnavailableError, RecipeError
from export.measure import answers, parity
from export.profiles import profiles
from fathom.proof.bare import rate_per_s
from fathom.proof.context import Context, SkipStepError
from fathom.proof.subject import Subject


def measure(context: Context) -> None:
    """For each model and precision: seconds to build, parity, and rows/s with copies from and to host memory."""
    try:
        trt = engine_library.load()
    except EngineUnavailableError as error:
        raise SkipStepError(str(error)) from None
    for subject in context.subjects():
        if context.out_of_time(subject.name, 20):
            continue
        try:
            _measure(context, subject, trt)
        except Exception as error:
            context.fail(subject.name, error)
    context.skip("served engines", "the embedded Triton has no TensorRT backend: serve them in the NGC container")


def _measure(context: Context, subject: Subject, trt: Any) -> None:
    settings = context.settings
    message = configs.load(subject.folder / "config.pbtxt").message
    try:
        ranges = recipes.find(subject.model).axis_ranges
    except RecipeError:
        ranges = {}
    wanted = profiles(message, ranges)
    plan = context.room / f"{subject.model}-{subject.precision}.plan"
    options = EngineOptions(builder_optimization_level=settings.engine_level)
    built = engine.build(trt, subject.onnx, plan, wanted, options)
    evaluation, source = subject.judged_on(settings.evaluated_rows)
    with contextlib.closing(Device()) as device:
        station = engine_runtime.EngineStation(trt, engine_runtime.open_plan(trt, plan), device)
        distance = parity(answers(station, evaluation), source)
        rates = {}
        for batch in settings.batches:
            if batch > message.max_batch_size or context.out_of_time(f"{subject.name}, batch {batch}", 2):
                break
            rows = subject.rows(batch)
            rates[batch] = batch * rate_per_s(lambda rows=rows: station(rows), settings.seconds)  # type: ignore[misc]
    for batch, rate in rates.items():
        context.add(
            model=subject.model,
            precision=subject.precision,
            batch=batch,
            from_host_rows_per_s=rate,
            build_seconds=built.seconds,
            parity=asdict(distance),
            tensorrt=str(trt.__version__),
        )
