"""Step f: the same model in torch, eager and compiled: what a person would otherwise run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from export import recipes
from export.convert import load
from export.measure import parity
from export.onnx_file import session
from fathom.proof import onnx_torch, resnet50
from fathom.proof.bare import rate_per_s
from fathom.proof.context import Context, SkipStepError
from fathom.proof.subject import Subject

MODES = ("eager", "compiled")


def measure(context: Context) -> None:
    """A row for each model at fp32 and fp16, eager and compiled, and batch, on the device without host copies."""
    try:
        import torch
    except ImportError as error:
        raise SkipStepError(f"torch cannot be imported: {error}") from None
    settings = context.settings
    for subject in context.subjects("fp32"):
        if context.out_of_time(subject.name, 3):
            continue
        try:
            module = torch_module(subject).to(settings.device)
        except Exception as error:
            context.fail(subject.name, error)
            continue
        for half in (False,) if settings.dry_run else (False, True):
            for mode in MODES:
                what = f"{subject.name}, torch {mode}{' fp16' if half else ''}"
                if context.out_of_time(what, 5):
                    continue
                if mode == "compiled" and settings.dry_run:
                    context.skip(what, "a dry run compiles nothing: it takes longer than everything else")
                    continue
                try:
                    _measure(context, subject, module, mode, half, torch)
                except Exception as error:
                    context.fail(what, error)


def torch_module(subject: Subject) -> Any:
    """The model as torch runs it: the recipe's own module, or ResNet-50's graph layer by layer."""
    if subject.model == resnet50.NAME:
        return onnx_torch.module(subject.onnx)
    recipe = recipes.find(subject.model)
    return load(recipe, recipe.resolve(None)).module


def _measure(context: Context, subject: Subject, module: Any, mode: str, half: bool, torch: Any) -> None:
    settings = context.settings
    runs = torch.compile(module, dynamic=False) if mode == "compiled" else module
    wait: Callable[[], Any] = torch.cuda.synchronize if settings.device == "cuda" else (lambda: None)
    with torch.inference_mode(), torch.autocast(settings.device, torch.float16, enabled=half):
        rows = subject.rows(1)
        (name,) = subject.reference.outputs
        answered = {name: runs(**_tensors(rows, settings.device)).float().cpu().numpy()}
        distance = parity(answered, session(subject.onnx)(rows)).max_relative
        for batch in settings.batches:
            if context.out_of_time(f"{subject.name}, torch {mode}, batch {batch}", 2 * settings.seconds):
                return
            tensors = _tensors(subject.rows(batch), settings.device)

            def run(tensors: dict[str, Any] = tensors) -> None:
                runs(**tensors)
                wait()

            rate = batch * rate_per_s(run, settings.seconds)
            bare = [
                row["rows_per_s"]
                for row in context.before.get("roofline", ())
                if (row.get("model"), row.get("batch"), row.get("precision"))
                == (subject.model, batch, "fp16" if half else "fp32")
            ]
            context.add(
                model=subject.model,
                precision="fp16" if half else "fp32",
                mode=mode,
                batch=batch,
                rows_per_s=rate,
                onnxruntime_over_torch=bare[0] / rate if bare else None,
                max_relative=distance,
            )


def _tensors(rows: dict[str, Any], device: str) -> dict[str, Any]:
    import torch

    return {name: torch.from_numpy(np.ascontiguousarray(values)).to(device) for name, values in rows.items()}
