"""Which priorities of requests a model has."""

from __future__ import annotations

from loadtests.errors import BadRequestError
from loadtests.target.client import Target
from loadtests.target.statistics import composing_models


def check_priority(target: Target, priority: int) -> None:
    """Raise BadRequestError where neither the model nor a step of it has this priority: Triton would ignore it."""
    names = (target.model, *composing_models(target.model, target.config))
    configs = [config for config in map(target.config, names) if config is not None]
    levels = max((config.dynamic_batching.priority_levels for config in configs), default=priority)
    if levels < priority:
        raise BadRequestError(
            f"{target.model}@{priority} has priority {priority}, but {target.model} has {levels} priority levels: "
            "set dynamic_batching.priority_levels in its config.pbtxt, or leave the priority out",
            field="mix",
        )
