"""The fields of a configuration that decide how fast it serves, as a few named values: read, changed and written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Value = int | float | str

THREADS = {"intra_threads": "intra_op_thread_count", "inter_threads": "inter_op_thread_count"}
EMBEDDED = "rows_per_run"
"""A parameter of the embedded ONNX Runtime backend alone."""
_ACCELERATORS = {"cuda": "", "tensorrt": "tensorrt"}
_NS_PER_MS = 1e3


def knobs_of(message: Any, *, gpus: int = 0, embedded: bool = False) -> dict[str, Value]:
    """The knobs that a model's configuration has, with their values. `embedded`: the server's ONNX Runtime backend is
    the one that this project brings, which has one more."""
    found: dict[str, Value] = {"instances": sum(max(group.count, 1) for group in message.instance_group) or 1}
    if message.max_batch_size > 0:
        found["max_batch"] = message.max_batch_size
    if message.HasField("dynamic_batching"):
        batching = message.dynamic_batching
        found["preferred"] = max(batching.preferred_batch_size, default=0)
        found["delay_ms"] = _plain(batching.max_queue_delay_microseconds / _NS_PER_MS)
        found["queue_policy"] = "bounded" if batching.HasField("default_queue_policy") else "none"
    if message.backend == "onnxruntime":
        found |= {knob: int(_parameter(message, key, "1")) for knob, key in THREADS.items()}
        if embedded:
            rows = _parameter(message, EMBEDDED, "off")
            found[EMBEDDED] = int(rows) if rows.isdecimal() else rows
        if on_gpu(message, gpus):
            accelerators = [each.name for each in message.optimization.execution_accelerators.gpu_execution_accelerator]
            found["accelerator"] = "tensorrt" if "tensorrt" in accelerators else "cuda"
    if message.backend == "tensorrt" or message.platform == "tensorrt_plan":
        found["cuda_graphs"] = "on" if message.optimization.cuda.graphs else "off"
    if message.backend == "python":
        found |= {key: _number(value.string_value) for key, value in message.parameters.items()}
    return found


def on_gpu(message: Any, gpus: int = 1) -> bool:
    """Whether every instance runs on a GPU of a machine with so many."""
    from tritonclient.grpc.model_config_pb2 import ModelInstanceGroup

    kinds = {group.kind for group in message.instance_group} or {ModelInstanceGroup.KIND_AUTO}
    takes = (
        {ModelInstanceGroup.KIND_GPU}
        if message.backend == "python"
        else {ModelInstanceGroup.KIND_GPU, ModelInstanceGroup.KIND_AUTO}
    )
    return gpus > 0 and kinds <= takes


def with_knobs(message: Any, knobs: Mapping[str, Value]) -> Any:
    """A copy with these knobs changed; one that is not a known field is a parameter."""
    changed = type(message)()
    changed.CopyFrom(message)
    for knob, value in knobs.items():
        _set(changed, knob, value)
    return changed


def _set(message: Any, knob: str, value: Value) -> None:
    batching = message.dynamic_batching
    if knob == "instances":
        del message.instance_group[1:]
        (message.instance_group[0] if message.instance_group else message.instance_group.add()).count = int(value)
    elif knob == "max_batch":
        message.max_batch_size = int(value)
        fitting = [size for size in batching.preferred_batch_size if size <= int(value)]
        if message.HasField("dynamic_batching"):
            batching.preferred_batch_size[:] = fitting
        _keep(message.model_warmup, [warmup for warmup in message.model_warmup if warmup.batch_size <= int(value)])
    elif knob == "preferred":
        batching.preferred_batch_size[:] = [int(value)] if value else []
    elif knob == "delay_ms":
        batching.max_queue_delay_microseconds = round(float(value) * _NS_PER_MS)
    elif knob == "queue_policy":
        if value == "none":
            batching.ClearField("default_queue_policy")
    elif knob == "accelerator":
        accelerators = message.optimization.execution_accelerators.gpu_execution_accelerator
        _keep(accelerators, [each for each in accelerators if each.name != "tensorrt"])
        if _ACCELERATORS[str(value)]:
            accelerators.add(name=_ACCELERATORS[str(value)])
    elif knob == "cuda_graphs":
        message.optimization.cuda.graphs = value == "on"
    elif knob == EMBEDDED and value == "off":
        message.parameters.pop(EMBEDDED, None)
    else:
        message.parameters[THREADS.get(knob, knob)].string_value = str(value)


def _keep(repeated: Any, kept: list[Any]) -> None:
    """Assignment for a repeated message field."""
    copies = [type(each).FromString(each.SerializeToString()) for each in kept]
    del repeated[:]
    repeated.extend(copies)


FIELDS = {
    "instances": "instance_group",
    "max_batch": "max_batch_size",
    "preferred": "dynamic_batching",
    "delay_ms": "dynamic_batching",
    "queue_policy": "dynamic_batching",
    "accelerator": "optimization",
    "cuda_graphs": "optimization",
}
"""The top-level field in which each knob is written; parameters otherwise."""


def written(message: Any, header: str, comments: Mapping[str, str]) -> str:
    """The message as the text of a config.pbtxt: `header` above all, and above the field of each knob its comment.

    Line breaks in `header` are kept; a comment is one line.
    """
    from google.protobuf import text_format  # type: ignore[import-untyped]

    text = text_format.MessageToString(message, use_short_repeated_primitives=True, as_utf8=True)
    above: dict[str, list[str]] = {}
    for knob, comment in comments.items():
        above.setdefault(FIELDS.get(knob, f'key: "{THREADS.get(knob, knob)}"'), []).append(comment)
    lines = [f"# {line}".rstrip() for line in header.splitlines()]
    body = text.splitlines()
    for at, line in enumerate(body):
        following = body[at + 1].strip() if at + 1 < len(body) else ""
        for start in (line.partition(" ")[0].rstrip(":") if not line.startswith(" ") else "", following):
            if start in above and (start == line.partition(" ")[0].rstrip(":") or line.startswith("parameters")):
                lines += [f"# {comment}" for comment in above.pop(start)]
        lines.append(line)
    return "\n".join(lines) + "\n"


def _parameter(message: Any, key: str, default: str) -> str:
    return str(message.parameters[key].string_value) if key in message.parameters else default


def _number(text: str) -> Value:
    return int(text) if text.isdecimal() else text


def _plain(value: float) -> Value:
    return int(value) if value == int(value) else value
