"""What is simulated: the batcher of each model, as config.pbtxt sets it, and the models that a request passes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from loadtests.errors import BadRequestError
from loadtests.simulation.times import BatchTimes, of_shape


@dataclass(frozen=True)
class Batcher:
    """Triton's scheduler of one model. Times in seconds, sizes in rows, the queue in requests."""

    instances: int = 1
    max_batch: int = 1
    dynamic: bool = True
    """Without dynamic batching each request is computed alone."""
    preferred: tuple[int, ...] = ()
    """Empty is `max_batch`, as in Triton."""
    delay_s: float = 0.0
    max_queue: int = 0
    """Requests that may wait; one more is refused. 0 is without bound."""
    timeout_s: float = 0.0
    """A request that waited longer is refused when the batcher meets it. 0 is never."""
    policy: bool = False
    """Whether there are priority levels, a queue policy that delays instead of refusing or lets clients set time-outs:
    what changes batching although its effect on single requests is not simulated."""
    equal_shapes: bool = False
    """Only requests of equal shape share a batch: Triton's rule for inputs with a dim of -1 that are not ragged."""
    overlooks: float = 0.8
    """Without prefetching: how often the batcher, woken by a batch that ends, looks before the instance counts as free.
    Two threads of Triton race for that; the defaults of both shares were fitted to measurements on two busy cores."""
    overtakes: float = 0.5
    """With prefetching: how often the batcher then adds to the batch that starts next before the instance takes it."""

    def __post_init__(self) -> None:
        for name, least in (("instances", 1), ("max_batch", 1), ("max_queue", 0), ("delay_s", 0), ("timeout_s", 0)):
            if not getattr(self, name) >= least:
                raise BadRequestError(f"{name} {getattr(self, name):g} must be at least {least}", field=name)
        for size in self.preferred:
            if not 1 <= size <= self.max_batch:
                raise BadRequestError(
                    f"preferred size {size} must lie between 1 and max_batch {self.max_batch}", field="preferred"
                )

    @property
    def prefetch(self) -> bool:
        """Whether up to two batches an instance are put together before it is free: without any queue policy only."""
        return not (self.policy or self.max_queue or self.timeout_s)

    @classmethod
    def from_config(cls, config: Any) -> Batcher:
        """From a ModelConfig as the server gives it (tritonclient's protobuf message)."""
        batching, policy = config.dynamic_batching, config.dynamic_batching.default_queue_policy
        rejects = policy.timeout_action == 0
        open_size = any(-1 in tensor.dims and not tensor.allow_ragged_batch for tensor in config.input)
        return cls(
            instances=sum(max(group.count, 1) * max(len(group.gpus), 1) for group in config.instance_group) or 1,
            max_batch=max(config.max_batch_size, 1),
            dynamic=config.HasField("dynamic_batching"),
            preferred=tuple(batching.preferred_batch_size),
            delay_s=batching.max_queue_delay_microseconds / 1e6,
            max_queue=policy.max_queue_size,
            timeout_s=policy.default_timeout_microseconds / 1e6 if rejects else 0.0,
            policy=bool(
                policy.allow_timeout_override or policy.default_timeout_microseconds or batching.priority_levels
            ),
            equal_shapes=open_size or any(tensor.optional for tensor in config.input),
        )


@dataclass(frozen=True)
class Step:
    """One model of a pipeline."""

    name: str
    batcher: Batcher
    times: BatchTimes | Mapping[int, BatchTimes]
    """By class of shape where they differ; classes are numbers that `simulate` is given for each request."""
    after: tuple[str, ...] = ()
    """The steps whose outputs it takes; empty: it starts with the request."""

    def times_of(self, shape: int) -> BatchTimes:
        return self.times if isinstance(self.times, BatchTimes) else of_shape(self.times, shape)


@dataclass(frozen=True)
class Pipeline:
    """The models that a request passes, each step after those that it waits for; a single model is one step."""

    steps: tuple[Step, ...]
    overhead_s: float = 0.0
    """Of each request outside all queues and batches: network, codec, hops. It delays nobody else."""

    def __post_init__(self) -> None:
        known: set[str] = set()
        for step in self.steps:
            if missing := set(step.after) - known:
                raise BadRequestError(
                    f"step {step.name} comes after {', '.join(sorted(missing))}, which is not an earlier step",
                    field="steps",
                )
            if step.name in known:
                raise BadRequestError(f"two steps are called {step.name}; give each a name of its own", field="steps")
            known.add(step.name)
        if not self.steps:
            raise BadRequestError("a pipeline needs at least one step", field="steps")

    @classmethod
    def from_configs(
        cls,
        model: str,
        config_of: Callable[[str], Any],
        times: Mapping[str, BatchTimes | Mapping[int, BatchTimes]],
        *,
        overhead_s: float = 0.0,
    ) -> Pipeline:
        """A served model or ensemble, nested ensembles resolved. `config_of(name)` gives a model's ModelConfig, `times`
        has the batch times of each model that computes. A model that serves two steps is two steps here.
        """
        builder = _Builder(config_of, times)
        builder.add(model, ())
        return cls(tuple(builder.steps), overhead_s)


@dataclass
class _Builder:
    config_of: Callable[[str], Any]
    times: Mapping[str, BatchTimes | Mapping[int, BatchTimes]]
    steps: list[Step] = field(default_factory=list)

    def add(self, model: str, after: tuple[str, ...]) -> tuple[str, ...]:
        """The steps that answer for `model`, which starts after those given."""
        config = self.config_of(model)
        if not config.ensemble_scheduling.step:
            taken = sum(step.name.split("#")[0] == model for step in self.steps)
            name = f"{model}#{taken + 1}" if taken else model
            self.steps.append(Step(name, Batcher.from_config(config), self.times[model], after))
            return (name,)
        makers: dict[str, tuple[str, ...]] = {tensor.name: after for tensor in config.input}
        waiting = list(config.ensemble_scheduling.step)
        while waiting:
            ready = next(step for step in waiting if all(tensor in makers for tensor in step.input_map.values()))
            waiting.remove(ready)
            asked = sorted(ready.input_map.items())  # a map of protobuf has another order in each process
            before = dict.fromkeys(name for _, tensor in asked for name in makers[tensor])
            done = self.add(ready.model_name, tuple(before))
            makers |= dict.fromkeys(ready.output_map.values(), done)
        return tuple(dict.fromkeys(name for tensor in config.output for name in makers[tensor.name]))
