"""Lint rules for named configurations: they may tune, but a client must not be able to tell the difference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from export.lint.complete import completed
from export.lint.finding import Findings, Subject, rule


@rule
def agreement(subjects: Sequence[Subject]) -> Findings:
    """A named configuration may tune, but a client must not be able to tell the difference.

    Names, types, dims, labels and decoupling must be those of config.pbtxt. max_batch_size may differ, since a client
    reads it from the server, but not between batching and none, which changes the shapes on the wire.
    """
    main = next((subject for subject in subjects if subject.variant is None), None)
    if main is None:
        return
    for subject in subjects:
        if subject.variant is None:
            continue
        for kind in ("input", "output"):
            yield from _same_tensors(subject, main, kind)
        own, expected = completed(subject).max_batch_size, completed(main).max_batch_size
        if (own > 0) != (expected > 0):
            yield subject.error(
                "max_batch_size",
                f"max_batch_size is {own}, config.pbtxt has {expected}: one batches and the other does not",
                "batch in both or in none",
            )
        if subject.message.model_transaction_policy.decoupled != main.message.model_transaction_policy.decoupled:
            yield subject.error("model_transaction_policy.decoupled", "config.pbtxt has the other", "write what it has")


def _same_tensors(subject: Subject, main: Subject, kind: str) -> Findings:
    expected = {tensor.name: tensor for tensor in getattr(completed(main), kind)}
    written = {tensor.name: (index, tensor) for index, tensor in enumerate(getattr(completed(subject), kind))}
    for name in expected.keys() - written.keys():
        yield subject.error(kind, f"{kind} '{name}' of config.pbtxt is missing", f"add {kind} '{name}'")
    for name, (index, tensor) in written.items():
        field = f"{kind}[{index}]"
        if name not in expected:
            yield subject.error(f"{field}.name", f"config.pbtxt has no {kind} '{name}'", f"remove {kind} '{name}'")
            continue
        for part in ("data_type", "dims", "label_filename"):
            have, want = _plain(tensor, part), _plain(expected[name], part)
            if have != want:
                yield subject.error(
                    f"{field}.{part}", f"{part} of '{name}' is {have}, config.pbtxt has {want}", "write what it has"
                )


def _plain(tensor: Any, part: str) -> Any:
    from tritonclient.grpc import model_config_pb2

    if part == "data_type":
        return model_config_pb2.DataType.Name(tensor.data_type)
    value = getattr(tensor, part, "")
    return list(value) if part == "dims" else value
