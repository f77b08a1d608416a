"""The graph's inputs that Triton itself fills: batch inputs, sequence controls, states."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

CONTROL_TYPES = {
    "int32_false_true": "TYPE_INT32",
    "fp32_false_true": "TYPE_FP32",
    "bool_false_true": "TYPE_BOOL",
}


@dataclass(frozen=True)
class Given:
    """One tensor that Triton gives or keeps: the field that declares it, its name and its type."""

    field: str
    kind: str
    name: str
    data_type: str


def inputs(message: Any) -> Iterator[Given]:
    """What Triton feeds the graph by `batch_input` and `sequence_batching`."""
    for index, entry in enumerate(message.batch_input):
        for place, name in enumerate(entry.target_name):
            yield Given(f"batch_input[{index}].target_name[{place}]", "batch input", name, _type(entry.data_type))
    for index, entry in enumerate(message.sequence_batching.control_input):
        for control in entry.control[:1]:
            field = f"sequence_batching.control_input[{index}].name"
            yield Given(field, "control input", entry.name, control_type(control))
    for index, state in enumerate(message.sequence_batching.state):
        field = f"sequence_batching.state[{index}].input_name"
        yield Given(field, "state input", state.input_name, _type(state.data_type))


def outputs(message: Any) -> Iterator[Given]:
    """What Triton keeps of the graph's outputs for the next request of a sequence."""
    for index, state in enumerate(message.sequence_batching.state):
        field = f"sequence_batching.state[{index}].output_name"
        yield Given(field, "state output", state.output_name, _type(state.data_type))


def control_type(control: Any) -> str:
    """The type of the tensor that a control is given in."""
    written = [name for field, name in CONTROL_TYPES.items() if getattr(control, field)]
    return written[0] if written else _type(control.data_type)


def _type(number: int) -> str:
    from tritonclient.grpc import model_config_pb2

    return str(model_config_pb2.DataType.Name(number))
