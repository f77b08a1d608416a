"""Lint rules for sequences: the controls that Triton gives a model, the states that it keeps, the slots that it has."""

from __future__ import annotations

from typing import Any

from export import files
from export.config import contract
from export.config.given import CONTROL_TYPES
from export.lint.finding import Findings, Subject, rule

NUMBER_TYPES = ("TYPE_UINT64", "TYPE_INT64", "TYPE_UINT32", "TYPE_INT32", "TYPE_STRING")
"""In what Triton gives the number of a sequence, CONTROL_SEQUENCE_CORRID."""


def check(subject: Subject) -> Findings:
    """All rules of this file."""
    if subject.message.HasField("sequence_batching"):
        yield from _slots(subject)
        yield from _controls(subject)
        for index, state in enumerate(subject.message.sequence_batching.state):
            yield from _state(subject, f"sequence_batching.state[{index}].initial_state", state)


@rule
def _slots(subject: Subject) -> Findings:
    share = subject.message.sequence_batching.direct.minimum_slot_utilization
    if not 0 <= share <= 1:
        yield subject.error(
            "sequence_batching.direct.minimum_slot_utilization",
            f"minimum_slot_utilization is {share:g}",
            "write a share of the slots, 0 to 1",
        )


@rule
def _controls(subject: Subject) -> Findings:
    names: set[str] = set()
    kinds: set[int] = set()
    for index, tensor in enumerate(subject.message.sequence_batching.control_input):
        field = f"sequence_batching.control_input[{index}]"
        if not tensor.name:
            yield subject.error(field, "a control input has no name", "name it as the graph does")
        elif tensor.name in names:
            yield subject.error(field, f"control input '{tensor.name}' is written twice", "write its controls in one")
        names.add(tensor.name)
        if not tensor.control:
            yield subject.warning(
                field,
                f"control input '{tensor.name}' controls nothing",
                "add control { kind: CONTROL_SEQUENCE_START ... }",
            )
        for place, control in enumerate(tensor.control):
            if control.kind in kinds:
                yield subject.error(field, f"{_kind(control)} is given twice", "remove one")
            kinds.add(control.kind)
            if wrong := _wrong_values(control):
                yield subject.error(f"{field}.control[{place}]", f"{_kind(control)} {wrong[0]}", wrong[1])


def _wrong_values(control: Any) -> tuple[str, str] | None:
    """What is wrong with a control's values, and what to write; None where they are as Triton takes them."""
    from tritonclient.grpc import model_config_pb2

    values = [list(getattr(control, field)) for field in CONTROL_TYPES if getattr(control, field)]
    if _kind(control) == "CONTROL_SEQUENCE_CORRID":
        data_type = model_config_pb2.DataType.Name(control.data_type)
        if values:
            return f"is a number and has the values {values}", "remove them"
        if data_type not in NUMBER_TYPES:
            return f"has data_type {data_type}", f"write one of {', '.join(NUMBER_TYPES)}"
    elif len(values) != 1 or len(values[0]) != 2:
        return f"has the values {values}", f"write one of {', '.join(CONTROL_TYPES)} with two values"
    return None


def _kind(control: Any) -> str:
    return str(type(control).Kind.Name(control.kind))


@rule
def _state(subject: Subject, field: str, state: Any) -> Findings:
    title = f"state '{state.input_name}'"
    if len(state.initial_state) > 1:
        yield subject.error(field, f"{title} begins with {len(state.initial_state)} values", "write one initial_state")
    for initial in state.initial_state[:1]:
        place = f"{field}[0]"
        if not initial.name:
            yield subject.error(place, f"the first value of {title} has no name", 'write name: "zero", say')
        if initial.data_type != state.data_type:
            yield subject.error(f"{place}.data_type", f"{title} begins with another type", "write the state's")
        if not contract.fits(initial.dims, state.dims) or min(initial.dims, default=1) < 1:
            yield subject.error(
                f"{place}.dims",
                f"{title} begins with dims {list(initial.dims)}, its own are {list(state.dims)}",
                "write whole sizes that fit the state's",
            )
        if initial.WhichOneof("state_data") is None:
            yield subject.error(place, f"the first value of {title} has no data", "write zero_data: true or data_file")
        elif initial.data_file and (problem := files.problem(subject.folder / "initial_state", initial.data_file)):
            yield subject.error(
                f"{place}.data_file", f"initial_state/{initial.data_file} {problem}", "put the file there"
            )
