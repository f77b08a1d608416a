"""Lint rule for what is served: no TensorRT plan may lie in the repository that the deployment never loads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from export.config import served
from export.lint.finding import Finding, Findings, rule


@rule
def unserved_plans(model_repository: Path, models: Sequence[str], config_name: str | None) -> Findings:
    """An error for every plan that no configuration loads, and, where the deployment's `config_name` is known, for the
    plans of a model that is served without any of them."""
    for name in models:
        model = served.of_folder(model_repository / name, config_name)
        if model is None:
            continue
        for plan, loading in model.unserved.items():
            if not (loading and config_name is None):
                yield _finding(model, plan, loading, config_name)


def _finding(model: served.Served, plan: str, loading: Sequence[str], config_name: str | None) -> Finding:
    """`loading` are the names of the configurations that load the plan."""
    build = f"run `fathom export {model.model} --engine`, which writes configs/gpu.pbtxt"
    if not loading:
        return Finding(
            "error",
            f"{model.model}/{plan}",
            "",
            "no configuration loads it, so nothing serves it",
            f"{build}, or remove it",
        )
    others = " or ".join(name for name in loading if name)
    started = f"--model-config-name={config_name}" if config_name else "no --model-config-name"
    return Finding(
        "error",
        f"{model.model}/{plan}",
        "",
        f"nothing serves it: with {started} the model is served by {model}",
        f"choose the configuration {others} (TRITON_CONFIG_NAME in .env, --config-name here), or {build}"
        if others
        else build,
    )
