"""Lint rules for the model itself: its name, backend, tensors, instances, cache and warm-up."""

from __future__ import annotations

from math import prod
from typing import Any

from export import files
from export.lint.finding import Findings, Subject

BATCH_INPUT_TYPES = ("TYPE_INT32", "TYPE_FP32")


def check(subject: Subject) -> Findings:
    """All rules of this file."""
    yield from _identity(subject)
    yield from _tensors(subject)
    yield from _batch_twice(subject)
    yield from _instances(subject)
    yield from _cache(subject)
    yield from _warmup(subject)
    yield from _metrics(subject)


def _identity(subject: Subject) -> Findings:
    message, folder = subject.message, subject.folder
    if message.name and message.name != folder.name:
        yield subject.error(
            "name", f"name is '{message.name}', the folder is '{folder.name}'", f'write name: "{folder.name}"'
        )
    if not message.platform and not message.backend:
        yield subject.error("", "neither backend nor platform is set", 'write backend: "onnxruntime", say')
    if message.max_batch_size < 0:
        yield subject.error(
            "max_batch_size",
            f"max_batch_size is {message.max_batch_size}",
            "write 0 for no batching, or the largest batch",
        )
    policy = message.version_policy
    if policy.HasField("latest") and policy.latest.num_versions == 0:
        yield subject.error("version_policy.latest", "num_versions is 0", "write how many versions to serve, from 1")
    if policy.HasField("specific") and not policy.specific.versions:
        yield subject.error("version_policy.specific", "no versions are listed", "list the versions to serve")


def _tensors(subject: Subject) -> Findings:
    message = subject.message
    for kind, tensors in (("input", message.input), ("output", message.output)):
        seen: set[str] = set()
        for index, tensor in enumerate(tensors):
            field = f"{kind}[{index}]"
            title = f"{kind} '{tensor.name}'" if tensor.name else f"{kind} {index}"
            if not tensor.name:
                yield subject.error(field, f"{title} has no name", "name it as the model does")
            elif tensor.name in seen:
                yield subject.error(f"{field}.name", f"{title} is written twice", "remove one")
            seen.add(tensor.name)
            if tensor.data_type == 0:
                yield subject.error(field, f"{title} has no data_type", "write data_type: TYPE_FP32, say")
            yield from _dims(subject, field, title, tensor)
            yield from _format(subject, field, title, tensor)
    for index, batch_input in enumerate(message.batch_input):
        yield from _batch_input(subject, f"batch_input[{index}]", batch_input)


def _dims(subject: Subject, field: str, title: str, tensor: Any) -> Findings:
    if not tensor.dims:
        yield subject.error(field, f"{title} has no dims", "write its shape without the batch axis, -1 where it varies")
    for axis, size in enumerate(tensor.dims):
        if size == 0 or size < -1:
            yield subject.error(
                f"{field}.dims[{axis}]",
                f"{title} has dims {list(tensor.dims)}: {size} is no size",
                "write a size or -1",
            )
    if not tensor.HasField("reshape"):
        return
    shape = list(tensor.reshape.shape)
    if not shape and subject.message.max_batch_size == 0:
        yield subject.error(
            f"{field}.reshape", f"{title} is reshaped to nothing", "an empty shape needs a model that batches"
        )
    elif -1 not in shape and -1 not in tensor.dims and prod(shape) != prod(tensor.dims):
        yield subject.error(
            f"{field}.reshape.shape",
            f"{title} has dims {list(tensor.dims)} ({prod(tensor.dims)} elements), reshaped to {shape} ({prod(shape)})",
            "reshape to a shape of as many elements",
        )


def _format(subject: Subject, field: str, title: str, tensor: Any) -> Findings:
    backend = subject.message.backend or subject.message.platform
    if tensor.is_shape_tensor and not backend.startswith("tensorrt"):
        yield subject.error(
            f"{field}.is_shape_tensor",
            f"{title} is a shape tensor, but the backend is '{backend}'",
            "only TensorRT has them",
        )
    # FORMAT_NONE is 0; outputs have no format at all.
    if getattr(tensor, "format", 0) and len(tensor.dims) != 3:
        yield subject.error(
            f"{field}.format", f"{title} has an image format and dims {list(tensor.dims)}", "a format needs three dims"
        )


def _batch_input(subject: Subject, field: str, batch_input: Any) -> Findings:
    from tritonclient.grpc import model_config_pb2

    data_type = model_config_pb2.DataType.Name(batch_input.data_type)
    if data_type not in BATCH_INPUT_TYPES:
        yield subject.error(
            f"{field}.data_type",
            f"a batch input has data_type {data_type}",
            f"write one of {', '.join(BATCH_INPUT_TYPES)}",
        )
    if len(batch_input.source_input) != 1:
        yield subject.error(
            f"{field}.source_input",
            f"a batch input has {len(batch_input.source_input)} source inputs",
            "name exactly one",
        )


def _batch_twice(subject: Subject) -> Findings:
    """Without a graph to compare with, dims that all begin with an open axis are most likely [batch, ...]."""
    message = subject.message
    if not files.problem(subject.folder, f"1/{message.default_model_filename or 'model.onnx'}"):
        return
    tensors = [(f"{kind}[{index}]", tensor) for kind in ("input", "output") for index, tensor in _each(message, kind)]
    if message.max_batch_size == 0 or not tensors or subject.is_ensemble:
        return
    if all(len(tensor.dims) >= 2 and tensor.dims[0] == -1 for _, tensor in tensors):
        field, tensor = tensors[0]
        yield subject.warning(
            f"{field}.dims[0]",
            f"all dims begin with -1, as {list(tensor.dims)} of '{tensor.name}': the batch is perhaps counted twice",
            f"leave the batch axis out of dims, max_batch_size: {message.max_batch_size} stands for it",
        )


def _each(message: Any, kind: str) -> list[tuple[int, Any]]:
    return list(enumerate(getattr(message, kind)))


def _instances(subject: Subject) -> Findings:
    message = subject.message
    kinds = type(message).DESCRIPTOR.fields_by_name["instance_group"].message_type.enum_types_by_name["Kind"]
    for index, group in enumerate(message.instance_group):
        field = f"instance_group[{index}]"
        kind = kinds.values_by_number[group.kind].name
        if group.count < 0:
            yield subject.error(
                f"{field}.count", f"count is {group.count}, which Triton takes without a word", "write 1 or more"
            )
        elif group.count == 0 and f"{field}.count" in subject.config.places:
            yield subject.warning(f"{field}.count", "count 0 means Triton's own default", "write how many instances")
        if kind in ("KIND_CPU", "KIND_MODEL") and group.gpus:
            yield subject.error(
                f"{field}.gpus", f"{kind} lists GPUs {list(group.gpus)}", "remove gpus, or write KIND_GPU"
            )
        for place, gpu in enumerate(group.gpus):
            if gpu < 0:
                yield subject.error(f"{field}.gpus[{place}]", f"GPU {gpu} cannot exist", "number GPUs from 0")
        yield from _profiles(subject, field, group)


def _profiles(subject: Subject, field: str, group: Any) -> Findings:
    message = subject.message
    if group.profile and message.backend != "tensorrt" and message.platform != "tensorrt_plan":
        yield subject.error(
            f"{field}.profile",
            f"the backend '{message.backend}' has no profiles",
            "only TensorRT has them: remove profile",
        )
        return
    for place, profile in enumerate(group.profile):
        if not profile.isdecimal():
            yield subject.error(f"{field}.profile[{place}]", f"profile is '{profile}'", 'write its number, as "0"')


def _cache(subject: Subject) -> Findings:
    message = subject.message
    if not message.response_cache.enable:
        return
    if message.HasField("sequence_batching"):
        yield subject.error("response_cache", "the response cache cannot serve sequences", "remove one of the two")
    if message.model_transaction_policy.decoupled:
        yield subject.error(
            "response_cache", "the response cache cannot serve a decoupled model", "remove one of the two"
        )


def _warmup(subject: Subject) -> Findings:
    message = subject.message
    inputs = {tensor.name: tensor for tensor in message.input}
    for index, sample in enumerate(message.model_warmup):
        field = f"model_warmup[{index}]"
        title = f"warm-up '{sample.name}'"
        if message.max_batch_size > 0 and not 1 <= sample.batch_size <= message.max_batch_size:
            yield subject.error(
                f"{field}.batch_size",
                f"{title} has batch_size {sample.batch_size}, max_batch_size is {message.max_batch_size}",
                f"write 1 to {message.max_batch_size}",
            )
        required = {name for name, tensor in inputs.items() if not tensor.optional}
        for name in sorted(required - set(sample.inputs)):
            yield subject.error(
                field, f"{title} gives no data for input '{name}'", f'add inputs {{ key: "{name}" ... }}'
            )
        for name, given in sample.inputs.items():
            yield from _warmup_input(subject, f'{field}.inputs["{name}"]', title, inputs.get(name), name, given)


def _warmup_input(subject: Subject, field: str, title: str, tensor: Any, name: str, given: Any) -> Findings:
    if tensor is None:
        yield subject.error(
            field, f"{title} gives data for '{name}', which is no input", "name one of the model's inputs"
        )
        return
    if given.data_type != tensor.data_type:
        yield subject.error(
            f"{field}.value.data_type", f"{title} has another data_type for '{name}' than the input", "match it"
        )
    fits = len(given.dims) == len(tensor.dims) and all(
        have == want or want == -1 for have, want in zip(given.dims, tensor.dims, strict=True)
    )
    if not fits or any(size < 1 for size in given.dims):
        yield subject.error(
            f"{field}.value.dims",
            f"{title} has dims {list(given.dims)} for '{name}', the input has {list(tensor.dims)}",
            "write the sizes to warm up with, without the batch axis",
        )
    if given.WhichOneof("input_data_type") is None:
        yield subject.error(field, f"{title} has no data for '{name}'", "write zero_data: true or random_data: true")
    elif given.input_data_file and (problem := files.problem(subject.folder / "warmup", given.input_data_file)):
        yield subject.error(
            f"{field}.value.input_data_file", f"warmup/{given.input_data_file} {problem}", "put the file there"
        )


def _metrics(subject: Subject) -> Findings:
    for index, control in enumerate(subject.message.model_metrics.metric_control):
        if control.HasField("histogram_options") and not control.histogram_options.buckets:
            yield subject.error(
                f"model_metrics.metric_control[{index}].histogram_options",
                "the histogram has no buckets",
                "list its buckets",
            )
