"""How requests say that they are urgent: a parameter of a ModelInferRequest, appended to one that is encoded."""

from __future__ import annotations

from loadtests.errors import BadRequestError
from loadtests.target.client import Target
from loadtests.target.sequences import Payload, parameters
from loadtests.target.statistics import composing_models


def prioritised(payload: Payload, priority: int) -> Payload:
    """The request, or each of a sequence, with this priority; 1 is the most urgent."""
    behind = parameters(priority=priority)
    return payload + behind if isinstance(payload, bytes) else tuple(request + behind for request in payload)


def check_priority(target: Target, priority: int) -> None:
    """Raise BadRequestError where neither the model nor a step of it has this priority: Triton would ignore it."""
    names = (target.model, *composing_models(target.model, target.config))
    configs = [config for config in map(target.config, names) if config is not None]
    levels = max((config.dynamic_batching.priority_levels for config in configs), default=priority)
    if levels < priority:
        raise BadRequestError(
            f"{target.model}@{priority} asks for priority {priority}, and {target.model} has {levels} priority levels: "
            "set dynamic_batching.priority_levels in its config.pbtxt, or leave the priority out",
            field="mix",
        )
