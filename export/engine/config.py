"""The named configuration that serves an engine, `configs/gpu.pbtxt`, made from the committed config.pbtxt.

What a client sees (names, types, dims, labels, batching) and how requests queue is config.pbtxt's. What differs is the
backend, the instances, CUDA graphs and the options that only ONNX Runtime reads.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from export.config import config as configs
from export.config.config import TENSORRT, Config
from export.engine.profiles import Profile, whole_dims

BUSY_WAIT_BELOW_MS = 2.0
"""An engine faster than this at batch 1 is served with busy_wait_events: waking a blocked thread costs tens of
microseconds, spinning costs a core while a batch runs."""

MOST_INSTANCES = 2
"""With an open axis, the batch's included, every instance loads the engine again, weights and all."""

Dims = dict[str, tuple[int, ...]]


def tensorrt_config(
    config: Config,
    profiles: Sequence[Profile],
    *,
    comment: Sequence[str] = (),
    plan: str = "model.plan",
    busy_wait_events: bool = False,
    cc_model_filenames: Mapping[str, str] | None = None,
) -> str:
    """The text of configs/gpu.pbtxt. `cc_model_filenames` maps compute capabilities (`9.0`) to plans, for a
    repository that GPUs of several share; `comment` lines come first."""
    from google.protobuf import text_format  # type: ignore[import-untyped]

    message = type(config.message)()
    message.CopyFrom(config.message)
    message.ClearField("platform")
    message.backend = "tensorrt"
    message.default_model_filename = plan
    message.ClearField("cc_model_filenames")
    if cc_model_filenames and len(cc_model_filenames) > 1:
        message.cc_model_filenames.update(cc_model_filenames)
    for key in set(message.parameters) - TENSORRT:
        del message.parameters[key]
    _optimize(message, profiles, busy_wait_events)
    _place(message, len(profiles))
    text: str = text_format.MessageToString(message, use_short_repeated_primitives=True)
    configs.parse(text)
    return "".join(f"# {line}\n" for line in comment) + text


def graph_shapes(message: Any, profiles: Sequence[Profile]) -> list[tuple[int, Dims]]:
    """The batch sizes and dims in use, each captured as a CUDA graph: (batch, {input: dims without the batch}).

    Batch 1, the preferred sizes, each profile's optimum and max_batch_size, at the dims each profile is optimal for;
    and what model_warmup runs, since those are the sizes that traffic uses. Batch 0 where the model does not batch.
    """
    unique = {(batch, tuple(sorted(dims.items()))): (batch, dims) for batch, dims in _graphs(message, profiles)}
    return list(unique.values())


def _graphs(message: Any, profiles: Sequence[Profile]) -> Iterator[tuple[int, Dims]]:
    batches = message.max_batch_size > 0
    for profile in profiles:
        optima = {name: shapes.optimum for name, shapes in profile.shapes.items()}
        if not batches:
            yield 0, optima
            continue
        dims = {name: shape[1:] for name, shape in optima.items()}
        best = {shape[0] for shape in optima.values()}
        for batch in sorted({1, *best, *message.dynamic_batching.preferred_batch_size, message.max_batch_size}):
            yield batch, dims
    for warmup in message.model_warmup:
        dims = {name: tuple(warmup.inputs[name].dims) for name in warmup.inputs}
        shapes = {name: (warmup.batch_size, *shape) if batches else shape for name, shape in dims.items()}
        complete = dims.keys() == {tensor.name for tensor in message.input}
        if complete and any(profile.takes(shapes) for profile in profiles):
            yield (warmup.batch_size if batches else 0), dims


def _optimize(message: Any, profiles: Sequence[Profile], busy_wait_events: bool) -> None:
    message.optimization.ClearField("execution_accelerators")
    message.optimization.ClearField("graph")
    cuda = message.optimization.cuda
    cuda.graphs = True
    if busy_wait_events:
        cuda.busy_wait_events = True
    del cuda.graph_spec[:]
    for batch, dims in graph_shapes(message, profiles):
        spec = cuda.graph_spec.add(batch_size=batch)
        for name, shape in dims.items():
            spec.input[name].dim.extend(shape)


def _place(message: Any, profile_count: int) -> None:
    """Instances on the GPU: each group that may be there already, else one; all profiles where there are several."""
    from tritonclient.grpc.model_config_pb2 import ModelInstanceGroup

    groups = [group for group in message.instance_group if group.kind != ModelInstanceGroup.KIND_CPU]
    kept = [ModelInstanceGroup.FromString(group.SerializeToString()) for group in groups]
    kept = kept or [ModelInstanceGroup(count=1)]
    open_axis = any(-1 in whole_dims(message, tensor) for tensor in (*message.input, *message.output))
    del message.instance_group[:]
    for group in kept:
        group.kind = ModelInstanceGroup.KIND_GPU
        group.count = max(1, min(group.count, MOST_INSTANCES) if open_axis else group.count)
        del group.profile[:]
        if profile_count > 1:
            group.profile.extend(str(index) for index in range(profile_count))
        message.instance_group.append(group)
