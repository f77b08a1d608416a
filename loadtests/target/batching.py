"""How a server forms batches, read from the configuration that it reports for a model."""

from __future__ import annotations

from typing import Any

from loadtests.records.batching import Batcher, Batching


def batching_of(config: Any) -> Batching:
    """`config` is a ModelConfig."""
    dynamic, policy = config.dynamic_batching, config.dynamic_batching.default_queue_policy
    limited = policy.max_queue_size or policy.default_timeout_microseconds or policy.allow_timeout_override
    batcher: Batcher = "none"
    if config.HasField("dynamic_batching"):
        batcher = "dynamic"
    elif config.HasField("sequence_batching"):
        batcher = "sequence"
    return Batching(
        backend=config.backend or config.platform,
        max_batch_size=config.max_batch_size,
        batcher=batcher,
        instances=sum(group.count * max(len(group.gpus), 1) for group in config.instance_group),
        on_gpu=any(group.gpus for group in config.instance_group),
        open_inputs=tuple(each.name for each in config.input if -1 in each.dims and not each.allow_ragged_batch),
        preferred=tuple(size for size in dynamic.preferred_batch_size if size < config.max_batch_size),
        delay_us=dynamic.max_queue_delay_microseconds,
        prefetches=not (limited or dynamic.priority_levels),
    )
