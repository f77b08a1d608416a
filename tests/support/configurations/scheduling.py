"""Configurations of the queue in front of a model: dynamic batching, priorities, sequences, state."""

from __future__ import annotations

from configurations.case import Case, model, refused, served


def dynamic(body: str = "", batch: int = 8) -> str:
    """A model with a dynamic batcher."""
    return model(f"dynamic_batching {{ {body} }}", batch=batch)


def sequence(body: str = "", batch: int = 8) -> str:
    """A model with a sequence batcher."""
    return model(f"sequence_batching {{ {body} }}", batch=batch)


def control(*controls: str, name: str = "START") -> str:
    """One control input."""
    return f'control_input {{ name: "{name}" {" ".join(f"control {{ {each} }}" for each in controls)} }}'


START, READY = (
    "kind: CONTROL_SEQUENCE_START int32_false_true: [ 0, 1 ]",
    "kind: CONTROL_SEQUENCE_READY fp32_false_true: [ 0, 1 ]",
)
CORRID = "kind: CONTROL_SEQUENCE_CORRID data_type: {}"
STATE = 'state {{ input_name: "h" output_name: "h_out" data_type: TYPE_FP32 dims: [ 2 ] {} }}'
LEVELS, ONE_LEVEL = (f"priority_levels: {levels} default_priority_level: 1" for levels in (2, 1))
DELAYED = "timeout_action: DELAY default_timeout_microseconds: 9"
ZERO = 'initial_state { name: "zero" data_type: TYPE_FP32 dims: [ 2 ] zero_data: true }'
DB, SB = "dynamic_batching", "sequence_batching"

# fmt: off
DYNAMIC = [
    served("dynamic batching with all left out", dynamic()),
    served("dynamic batching without a batch", dynamic(batch=0)),
    served("preferred sizes", dynamic("preferred_batch_size: [ 4, 8 ]")),
    refused("a preferred size above the maximum", "preferred-size", f"{DB}.preferred_batch_size[1]",
        dynamic("preferred_batch_size: [ 4, 9 ]")),
    refused("a preferred size of zero", "preferred-size", f"{DB}.preferred_batch_size[0]",
        dynamic("preferred_batch_size: [ 0 ]")),
    served("priority levels", dynamic(f"{LEVELS} priority_queue_policy {{ key: 2 value {{ max_queue_size: 4 }} }}")),
    refused("priority levels without a default", "priorities", f"{DB}.priority_levels", dynamic("priority_levels: 2")),
    refused("a default priority that is no level", "priorities", f"{DB}.default_priority_level",
        dynamic("priority_levels: 2 default_priority_level: 3")),
    refused("a policy for a level that is none", "priorities", f'{DB}.priority_queue_policy["3"]',
        dynamic(f"{LEVELS} priority_queue_policy {{ key: 3 value {{ }} }}")),
    refused("a policy for level zero", "priorities", f'{DB}.priority_queue_policy["0"]',
        dynamic(f"{LEVELS} priority_queue_policy {{ key: 0 value {{ }} }}")),
    served("a policy without levels", dynamic("priority_queue_policy { key: 1 value { max_queue_size: 4 } }")),
    refused("order over two levels", "ordering", f"{DB}.preserve_ordering",
        dynamic(f"{LEVELS} preserve_ordering: true")),
    refused("order with delays", "ordering", f"{DB}.preserve_ordering",
        dynamic(f"preserve_ordering: true default_queue_policy {{ {DELAYED} }}")),
    served("order with delays that never come",
        dynamic("preserve_ordering: true default_queue_policy { timeout_action: DELAY }")),
    refused("order with delays in one level", "ordering", f"{DB}.preserve_ordering",
        dynamic(f"{ONE_LEVEL} preserve_ordering: true priority_queue_policy {{ key: 1 value {{ {DELAYED} }} }}")),
]
# fmt: on

# fmt: off
SEQUENCES = [
    served("sequences", sequence()),
    served("sequences by age", sequence("oldest { max_candidate_sequences: 4 preferred_batch_size: [ 4 ] }")),
    refused("a preferred size of sequences above the maximum", "preferred-size",
        f"{SB}.oldest.preferred_batch_size[0]",
        sequence("oldest { max_candidate_sequences: 4 preferred_batch_size: [ 9 ] }")),
    refused("slots that are more than used", "slots", f"{SB}.direct.minimum_slot_utilization",
        sequence("direct { minimum_slot_utilization: 2 }")),
    served("controls", sequence(control(START) + control(READY, name="READY"))),
    served("one tensor for two controls", sequence(control(START, READY))),
    refused("a control without a name", "controls", f"{SB}.control_input[0]", sequence(control(START, name=""))),
    refused("a control twice", "controls", f"{SB}.control_input[1]",
        sequence(control(START) + control(START, name="AGAIN"))),
    refused("a tensor for a control twice", "controls", f"{SB}.control_input[1]",
        sequence(control(START) + control(READY))),
    refused("a control without values", "controls", f"{SB}.control_input[0].control[0]",
        sequence(control("kind: CONTROL_SEQUENCE_START"))),
    refused("a control of two types", "controls", f"{SB}.control_input[0].control[0]",
        sequence(control(f"{START} fp32_false_true: [ 0, 1 ]"))),
    refused("a control of one value", "controls", f"{SB}.control_input[0].control[0]",
        sequence(control("kind: CONTROL_SEQUENCE_START int32_false_true: [ 0 ]"))),
    served("a control input that controls nothing", sequence(control())),
    served("a number of the sequence", sequence(control(CORRID.format("TYPE_UINT64")))),
    refused("a number of the sequence as a float", "controls", f"{SB}.control_input[0].control[0]",
        sequence(control(CORRID.format("TYPE_FP32")))),
    refused("a number of the sequence without a type", "controls", f"{SB}.control_input[0].control[0]",
        sequence(control(CORRID.format("TYPE_INVALID")))),
    refused("a number of the sequence with values", "controls", f"{SB}.control_input[0].control[0]",
        sequence(control(CORRID.format("TYPE_UINT64") + " int32_false_true: [ 0, 1 ]"))),
    served("a state", sequence(STATE.format(""))),
    served("a state with first values",
        sequence(STATE.format(ZERO))),
    refused("a state with first values of another type", "state", f"{SB}.state[0].initial_state[0].data_type",
        sequence(STATE.format(ZERO.replace("FP32", "INT32")))),
    refused("a state with first values of another shape", "state", f"{SB}.state[0].initial_state[0].dims",
        sequence(STATE.format(ZERO.replace("2 ]", "3 ]")))),
    refused("a state with first values of a missing file", "state", f"{SB}.state[0].initial_state[0].data_file",
        sequence(STATE.format(ZERO.replace("zero_data: true", 'data_file: "h.bin"')))),
    refused("a state with first values without data", "state", f"{SB}.state[0].initial_state[0]",
        sequence(STATE.format(ZERO.replace("zero_data: true", "")))),
    refused("a state with first values without a name", "state", f"{SB}.state[0].initial_state[0]",
        sequence(STATE.format(ZERO.replace('name: "zero"', "")))),
    refused("a state with two first values", "state", f"{SB}.state[0].initial_state",
        sequence(STATE.format(2 * ZERO))),
    served("a state of an open size", sequence(STATE.replace("[ 2 ]", "[ -1 ]").format(""))),
    refused("a state of an open size with first values", "state", f"{SB}.state[0].initial_state[0].dims",
        sequence(STATE.replace("[ 2 ]", "[ -1 ]").format(ZERO.replace("2 ]", "-1 ]")))),
    served("sequences that go on by themselves",
        sequence("iterative_sequence: true") + "model_transaction_policy { decoupled: true }"),
    served("sequences without batching", sequence(batch=0)),
]
# fmt: on

CASES: list[Case] = [*DYNAMIC, *SEQUENCES]
