"""Where a request's time goes, in a sentence: generator, network and protocol, queue, or the work of one model."""

from __future__ import annotations

from loadtests.point import Point, StepPoint
from loadtests.result import CapacityResult
from loadtests.slo import about_ms, format_rate

_BUSY_GENERATOR = 0.7
_CALM_QUEUE = 0.15


def deciding_point(result: CapacityResult) -> Point | None:
    """The certified probe; without one, the busiest that held with the server's figures."""
    if result.certificate is not None:
        return result.certificate.points[0]
    held = [point for point in result.points if point.passes and point.verdict != "invalid"]
    return max(held, key=lambda point: point.rate_per_s, default=None)


def describe_bottleneck(point: Point) -> str:
    """Names the largest part of the mean latency and what would shorten it; empty without the server's figures."""
    if point.generator_cpu_share > _BUSY_GENERATOR:
        share = point.generator_cpu_share * 100
        return f"The generator itself used {share:.0f} % of a core: it needs another one before this is a limit."
    if not point.steps or point.mean_ms is None or point.queue_ms is None or point.compute_ms is None:
        return ""
    steps = point.steps
    slowest = max(steps, key=lambda step: step.share * step.compute_ms)
    crowded = max(steps, key=lambda step: step.share * step.queue_ms)
    parts = {
        "queue": crowded.share * crowded.queue_ms,
        "compute": slowest.share * slowest.compute_ms,
        "outside": max(point.mean_ms - point.queue_ms - point.compute_ms, 0.0),
    }
    kind, part_ms = max(parts.items(), key=lambda item: item[1])
    share = part_ms / point.mean_ms * 100 if point.mean_ms > 0 else 0.0
    begin = (
        f"At {format_rate(point.rate_per_s)} a request takes {about_ms(point.mean_ms)} on average; the largest part, "
    )
    begin += f"{about_ms(part_ms)} ({share:.0f} %), is "
    if kind == "queue":
        return (
            f"{begin}waiting in front of {_named(crowded, point)}: more instances or a faster model there would help."
        )
    if kind == "outside":
        return f"{begin}outside the models: network, protocol, and the server's own scheduling."
    calm = point.queue_ms < _CALM_QUEUE * point.mean_ms
    tail = "the queues are short, so this is mostly its own speed" if calm else "its queue adds to it"
    return f"{begin}the work of {_named(slowest, point)}; {tail}."


def _named(step: StepPoint, point: Point) -> str:
    """With its place in the pipeline, or in the mix."""
    steps = point.steps
    if point.models:
        return f"{step.model}, where {step.share * 100:.0f} % of the requests go"
    if len(steps) == 1:
        return f"the model {step.model}"
    if step is steps[0]:
        return f"the pre-processing step {step.model}"
    return f"{step.model}, step {steps.index(step) + 1} of {len(steps)}"
