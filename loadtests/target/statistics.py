"""The server's own account of a probe: Triton's statistics extension, read before and after and subtracted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from loadtests.records.point import ServerStats, StepPoint

_NS_PER_MS = 1e6
_MOST_STEPS = 100


def composing_models(model: str, config_of: Callable[[str], Any | None]) -> list[str]:
    """The models that do the work for `model`: its ensemble steps, nested ones resolved, in order.

    `config_of(name)` fetches a model's ModelConfig; None where the server does not offer it. An
    ensemble of itself alone, or of more than 100 steps, counts as one model.
    """
    found: list[str] = []
    ensembles: set[str] = set()
    open_names = [model]
    while open_names:
        name = open_names.pop(0)
        if name in ensembles or name in found:
            continue
        config = config_of(name)
        if config is None or not config.ensemble_scheduling.step:
            found.append(name)
            continue
        ensembles.add(name)
        open_names[:0] = [step.model_name for step in config.ensemble_scheduling.step]
        if len(ensembles) + len(open_names) > _MOST_STEPS:
            return [model]
    return found or [model]


def difference(
    before: Sequence[Any], after: Sequence[Any], shares: Mapping[str, float] | None = None
) -> ServerStats | None:
    """What happened between two snapshots (lists of ModelStatistics, one list entry per model and version).

    `shares` says which part of a mix's requests each step serves; a step that is not named serves all.
    """
    earlier = {(stats.name, stats.version): stats for stats in before}
    steps: list[StepPoint] = []
    for now in after:
        then = earlier.get((now.name, now.version))
        step = _step(then, now, (shares or {}).get(now.name, 1.0)) if then is not None else None
        if step is not None:
            steps.append(step)
    return ServerStats(tuple(steps)) if steps else None


def fell(before: Sequence[Any], after: Sequence[Any]) -> bool:
    """Whether a server has served less at the later of two snapshots: then it is another server, or began anew."""
    earlier = {(stats.name, stats.version): stats.inference_stats.success.count for stats in before}
    return any(stats.inference_stats.success.count < earlier.get((stats.name, stats.version), 0) for stats in after)


def _step(then: Any, now: Any, share: float) -> StepPoint | None:
    requests = now.inference_stats.success.count - then.inference_stats.success.count
    failed = now.inference_stats.fail.count - then.inference_stats.fail.count
    if requests <= 0 and failed <= 0:
        return None  # another version that served nothing

    def mean_ms(name: str) -> float:
        new, old = getattr(now.inference_stats, name), getattr(then.inference_stats, name)
        return (new.ns - old.ns) / _NS_PER_MS / (new.count - old.count) if new.count > old.count else 0.0

    worked_ns = _worked_ns(now) - _worked_ns(then)
    executions = now.execution_count - then.execution_count
    inferences = now.inference_count - then.inference_count
    earlier_batches = {batch.batch_size: batch.compute_infer.count for batch in then.batch_stats}
    batches = {
        str(batch.batch_size): batch.compute_infer.count - earlier_batches.get(batch.batch_size, 0)
        for batch in now.batch_stats
    }
    work_ms = [mean_ms(f"compute_{part}") for part in ("input", "infer", "output")]
    return StepPoint(
        model=now.name,
        queue_ms=mean_ms("queue"),
        compute_input_ms=work_ms[0],
        compute_infer_ms=work_ms[1],
        compute_output_ms=work_ms[2],
        compute_ms=sum(work_ms),
        mean_batch=inferences / executions if executions else 0.0,
        executions=executions,
        requests=requests,
        failed=failed,
        cached=now.inference_stats.cache_hit.count - then.inference_stats.cache_hit.count,
        share=share,
        execution_ms=worked_ns / _NS_PER_MS / executions if executions and worked_ns else None,
        batch_sizes={size: count for size, count in batches.items() if count},
    )


def _worked_ns(stats: Any) -> int:
    """The time that all instances worked together; a batch counts once."""
    return sum(
        getattr(batch, f"compute_{part}").ns for batch in stats.batch_stats for part in ("input", "infer", "output")
    )
