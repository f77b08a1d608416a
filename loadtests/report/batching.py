"""Sentences that explain the sizes of a model's batches, and the cost of a pipeline's pre-processing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from loadtests.records.batching import Batching
from loadtests.records.point import Point, StepPoint
from loadtests.slo import about_ms

_FEW = 0.5
_FULL_SHARE = 0.9
_OFTEN_IDLE = 0.7
"""Of their time instances that are busy for less are often idle when a request comes."""
_PREPARING = ("python", "dali")
"""Backends whose step in front of a model prepares its inputs."""


@dataclass(frozen=True)
class StepBatching:
    """One model during a probe."""

    step: StepPoint
    instances: int | None
    busy_share: float | None
    """Of the time of all its instances."""
    waiting: float
    """Requests in its queue, on average."""
    reasons: tuple[str, ...]


def step_batching(point: Point, known: Mapping[str, Batching]) -> list[StepBatching]:
    """The batching of each step of a probe; `known` is what the server reports of each model."""
    return [_of_step(point, step, known.get(step.model)) for step in point.steps]


def _of_step(point: Point, step: StepPoint, known: Batching | None) -> StepBatching:
    arriving_per_s = step.share * point.achieved_per_s
    waiting = arriving_per_s * step.queue_ms / 1e3  # Little's law
    work_ms = _work_ms(step)
    busy = None
    if known is not None and known.instances and work_ms is not None:
        busy = arriving_per_s * work_ms / 1e3 / known.instances
    return StepBatching(
        step=step,
        instances=known.instances if known else None,
        busy_share=busy,
        waiting=waiting,
        reasons=tuple(_reasons(known, waiting, busy, step.mean_batch)) if known else (),
    )


def _reasons(known: Batching, waiting: float, busy: float | None, mean_batch: float) -> list[str]:
    if known.max_batch_size <= 1:
        return [f"Each request is computed alone: max_batch_size is {known.max_batch_size}."]
    if known.batcher == "none":
        return ["Each request is computed alone: the configuration has no dynamic_batching."]
    if known.batcher == "sequence":
        return ["A batch has at most one request of each sequence."]
    if mean_batch > _FULL_SHARE * known.max_batch_size:
        return [f"The batches are full: max_batch_size is {known.max_batch_size}."]
    if waiting < _FEW:
        return [f"Requests hardly wait ({waiting:.2g} on average), so there is nothing to batch."]
    return [
        f"On average {waiting:.2g} requests wait{f' for {known.instances} instances' * (known.instances > 1)}.",
        *_closed(known),
        _delayed(known, busy),
        _formed(known),
    ]


def _delayed(known: Batching, busy: float | None) -> str:
    """When a batch starts that is not full: why many can wait on average although most are computed alone."""
    if known.delay_us:
        return f"Triton waits up to {about_ms(known.delay_us / 1e3)} for a batch to fill."
    text = "A free instance starts the waiting requests at once: max_queue_delay_microseconds is 0."
    if busy is not None and busy < _OFTEN_IDLE:
        text += f" The instances are idle {(1 - busy) * 100:.0f} % of the time, so requests wait only in bursts."
    return text


def _formed(known: Batching) -> str:
    """Whether Triton forms batches ahead."""
    if known.prefetches:
        ahead = 2 * known.instances
        return (
            f"Without a queue policy, Triton forms up to {ahead} batches ahead. Each grows until it starts or closes."
        )
    text = "With a queue policy or priorities, Triton forms a batch only when an instance is free."
    if known.instances == 1:
        text += " With one instance, a request can then wait 500 ms, unless another one arrives."
    return text


def _closed(known: Batching) -> list[str]:
    """What ends a batch although more requests wait."""
    found = []
    if known.open_inputs:
        found.append(
            f"Only requests of one size share a batch: one with another size of {' or '.join(known.open_inputs)} "
            "closes it. Padding to fewer sizes makes larger batches."
        )
    if known.preferred:
        sizes = " or ".join(map(str, known.preferred))
        found.append(f"Triton closes a batch of {sizes}, even if more requests wait (preferred_batch_size).")
    return found


@dataclass(frozen=True)
class Preprocessing:
    """The cost of a pipeline's first step, and what doing it elsewhere would save."""

    step: StepPoint
    takes_ms: float
    """Its queue and its work: by so much a request gets shorter, at most, where the caller does it."""
    in_models_ms: float
    """The same of all steps."""
    more_share: float | None
    """How many more requests the server then fits at most; None where it is not known."""
    busiest: bool
    """Whether its instances are busier than those of any other step."""
    handed_ms: float
    """Waiting and copying that also goes where the model's graph does the work."""


def find_preprocessing(point: Point, known: Mapping[str, Batching]) -> Preprocessing | None:
    """None where the first step is the only one, or a model itself as far as is known, and for a mix."""
    if point.models or len(point.steps) < 2:
        return None
    step, following, *_ = point.steps
    if step.model in known and known[step.model].backend not in _PREPARING:
        return None
    return Preprocessing(
        step=step,
        takes_ms=step.queue_ms + step.compute_ms,
        in_models_ms=sum(each.queue_ms + each.compute_ms for each in point.steps),
        more_share=_room_without(point.steps, known),
        busiest=_is_busiest(step_batching(point, known)),
        handed_ms=step.queue_ms + step.compute_output_ms + following.compute_input_ms,
    )


def _is_busiest(found: Sequence[StepBatching]) -> bool:
    first, *others = (each.busy_share for each in found)
    return first is not None and all(share is not None and share < first for share in others)


def describe_preprocessing(found: Preprocessing | None) -> str:
    """The cost of the pre-processing step in sentences; empty without one."""
    if found is None:
        return ""
    step = found.step
    room = f", and the server could take up to {found.more_share * 100:.0f} % more" if found.more_share else ""
    return (
        f"The pre-processing step {step.model} takes {about_ms(found.takes_ms)} of the {about_ms(found.in_models_ms)} "
        f"that a request spends in the models: {about_ms(step.compute_ms)} of computation and "
        f"{about_ms(step.queue_ms)} in its queue. {'Its instances are the busiest of the pipeline. ' * found.busiest}"
        f"If the caller did this step, requests would take up to {about_ms(found.takes_ms)} less{room}. If the model's "
        f"graph did it, only {about_ms(found.handed_ms)} of waiting and copying would be saved."
    )


def _room_without(steps: Sequence[StepPoint], known: Mapping[str, Batching]) -> float | None:
    """How much higher the rate could be without the first step's work, as a share: bound by the time of CPUs that all
    share, else by the next step whose instances have no time left."""
    work_ms = [_work_ms(step) for step in steps]
    if any(each is None for each in work_ms) or any(step.model not in known for step in steps):
        return None
    first, *others = (each or 0.0 for each in work_ms)
    if not sum(others):
        return None
    if not any(known[step.model].on_gpu for step in steps):
        return first / sum(others)
    busy = [each / max(known[step.model].instances, 1) for each, step in zip((first, *others), steps, strict=True)]
    return max(busy[0] / max(busy[1:]) - 1, 0.0)


def _work_ms(step: StepPoint) -> float | None:
    """The time of an instance that a request takes, its batch shared."""
    if step.execution_ms is None or not step.requests:
        return None
    return step.execution_ms * step.executions / step.requests
