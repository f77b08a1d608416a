"""Lint rules for warm-up: samples of the model's inputs, in their types and shapes."""

from __future__ import annotations

from typing import Any

from export import files
from export.config import contract
from export.lint.complete import completed
from export.lint.fields.tensors import MOST_AXES
from export.lint.finding import Findings, Subject, rule


@rule
def warm_up(subject: Subject) -> Findings:
    """Every sample of `model_warmup`; an ensemble's is another rule's."""
    if subject.is_ensemble:
        return
    message = completed(subject)
    if not message.input:
        return  # its backend completes them
    inputs = {tensor.name: tensor for tensor in message.input}
    for index, sample in enumerate(message.model_warmup):
        field = f"model_warmup[{index}]"
        title = f"warm-up '{sample.name}'"
        if message.max_batch_size > 0 and not 1 <= sample.batch_size <= message.max_batch_size:
            report = subject.error if sample.batch_size else subject.warning
            yield report(
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
            field, f"{title} gives data for '{name}', which is not an input", "name one of the model's inputs"
        )
        return
    if given.data_type != tensor.data_type:
        yield subject.error(
            f"{field}.value.data_type", f"{title} has another data_type for '{name}' than the input", "match it"
        )
    if len(tensor.dims) > MOST_AXES:
        return  # the rules about tensors say so
    if not contract.fits(given.dims, tensor.dims) or any(size < 1 for size in given.dims):
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
