"""Models for sequences: implicit states and sequence controls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from backend_case import (
    BATCHED,
    BOOL,
    FLOAT,
    INT32,
    INT64,
    TEXT,
    Case,
    Graph,
    Request,
    Requests,
    double,
    f32,
    parameter,
    refused,
    tensors,
    texts,
)
from onnx import helper

# --- implicit state: total = state + x, one number a row
TOTAL = Graph(
    [helper.make_node("Add", ["x", "before"], ["total"]), helper.make_node("Identity", ["total"], ["after"])],
    [("x", FLOAT, ["n", 1]), ("before", FLOAT, ["n", 1])],
    [("total", FLOAT, ["n", 1]), ("after", FLOAT, ["n", 1])],
)
TOTAL_IO = BATCHED + tensors("input", "x FP32 [ 1 ]") + tensors("output", "total FP32 [ 1 ]")
STATE = 'state [ { input_name: "before" output_name: "after" data_type: TYPE_FP32 dims: [ 1 ] %s } ]'
ZERO = 'initial_state { name: "zero" data_type: TYPE_FP32 dims: [ 1 ] zero_data: true }'
OLDEST = "oldest { max_candidate_sequences: 4 }"


def sequences(*parts: str) -> str:
    return f"sequence_batching {{ max_sequence_idle_microseconds: 60000000 {' '.join(parts)} }}\n"


def numbers(output: str, expected: Sequence[float], *, sequence: int = 7) -> list[Request]:
    """A sequence that sends 1, 2, 3, ..., and `output` of each."""
    last = len(expected) - 1
    return [
        Request({"x": f32([n + 1])}, {output: f32([value])}, sequence, n == 0, n == last)
        for n, value in enumerate(expected)
    ]


def mixed(*requests: Sequence[Request]) -> list[Request]:
    """Sequences that take turns."""
    return [request for turn in zip(*requests, strict=True) for request in turn]


TWO_TOTALS = mixed(numbers("total", [1, 3, 6, 10]), numbers("total", [1, 3, 6, 10], sequence=8))
AGAIN = [*numbers("total", [1, 3, 6, 10]), *numbers("total", [1, 3, 6, 10])]


def state(what: str, pbtxt: str, requests: Requests, graph: Graph = TOTAL, **more: Any) -> Case:
    return Case("implicit state", what, graph, pbtxt, requests, **more)


GROWING = Graph(
    [
        helper.make_node("Concat", ["before", "x"], ["after"], axis=1),
        helper.make_node("ReduceSum", ["after", "axes"], ["total"], keepdims=1),
    ],
    [("x", FLOAT, ["n", 1]), ("before", FLOAT, ["n", "m"])],
    [("total", FLOAT, ["n", 1]), ("after", FLOAT, ["n", "k"])],
    [helper.make_tensor("axes", INT64, [1], [1])],
)
PREVIOUS = Graph(
    [helper.make_node("Identity", ["before"], ["said"]), helper.make_node("Identity", ["text"], ["after"])],
    [("text", TEXT, ["n", 1]), ("before", TEXT, ["n", 1])],
    [("said", TEXT, ["n", 1]), ("after", TEXT, ["n", 1])],
)
STATE_CASES = [
    state("from zero", TOTAL_IO + sequences(OLDEST, STATE % ZERO), TWO_TOTALS),
    state("anew for a sequence number that is used again", TOTAL_IO + sequences(OLDEST, STATE % ZERO), AGAIN),
    state(
        "from a file",
        TOTAL_IO
        + sequences(OLDEST, STATE % 'initial_state { name: "ten" data_type: TYPE_FP32 dims: [ 1 ] data_file: "ten" }'),
        numbers("total", [11, 13, 16]),
        files={"initial_state/ten": f32(10).tobytes()},
    ),
    state(
        "that is an output too",
        TOTAL_IO + tensors("output", "after FP32 [ 1 ]") + sequences(OLDEST, STATE % ZERO),
        numbers("after", [1, 3, 6]),
    ),
    state(
        "with FORCE_CPU_ONLY_INPUT_TENSORS",
        TOTAL_IO + sequences(OLDEST, STATE % ZERO) + parameter("FORCE_CPU_ONLY_INPUT_TENSORS", "no"),
        numbers("total", [1, 3, 6]),
        read=True,
    ),
    state("direct strategy", TOTAL_IO + sequences("direct { }", STATE % ZERO), TWO_TOTALS),
    state(
        "without a batch axis",
        tensors("input", "x FP32 [ -1, 1 ]")
        + tensors("output", "total FP32 [ -1, 1 ]")
        + sequences(OLDEST, (STATE % ZERO).replace("[ 1 ]", "[ 1, 1 ]")),
        numbers("total", [1, 3, 6]),
        read=True,
    ),
    state(
        "of texts, in a sequence with a name",
        BATCHED
        + tensors("input", "text STRING [ 1 ]")
        + tensors("output", "said STRING [ 1 ]")
        + sequences(OLDEST, (STATE % ZERO).replace("FP32", "STRING")),
        [
            Request({"text": texts(b"a")}, {"said": texts(b"")}, "named", start=True),
            Request({"text": texts(b"b")}, {"said": texts(b"a")}, "named", end=True),
        ],
        PREVIOUS,
        read=True,
    ),
    state(
        "that grows with each request",
        TOTAL_IO + sequences(OLDEST, (STATE % ZERO).replace("dims: [ 1 ]", "dims: [ -1 ]", 1)),
        numbers("total", [1, 3, 6]),
        GROWING,
        read=True,
    ),
    state(
        "that is declared as an input as well",
        TOTAL_IO + tensors("input", "before FP32 [ 1 ]") + sequences(OLDEST, STATE % ZERO),
        refused("'before'"),
    ),
    state(
        "of a name that the graph lacks",
        TOTAL_IO + sequences(OLDEST, (STATE % ZERO).replace('"after"', '"later"')),
        refused("'later'"),
        read=True,
        differs="loads, and every request fails",
    ),
    state(
        "of another type than the graph's",
        TOTAL_IO + sequences(OLDEST, (STATE % ZERO).replace("TYPE_FP32", "TYPE_INT32")),
        refused("'before'", "TYPE_INT32"),
        read=True,
        differs="loads, and every request fails",
    ),
]

# --- sequence controls: what = x + 10 start + 100 ready + 1000 end
CONTROLS = Graph(
    [
        helper.make_node("Mul", ["start", "ten"], ["a"]),
        helper.make_node("Mul", ["ready", "hundred"], ["b"]),
        helper.make_node("Mul", ["end", "thousand"], ["c"]),
        helper.make_node("Sum", ["x", "a", "b", "c"], ["what"]),
    ],
    [(name, FLOAT, ["n", 1]) for name in ("x", "start", "ready", "end")],
    [("what", FLOAT, ["n", 1])],
    [
        helper.make_tensor(name, FLOAT, [1], [size])
        for name, size in (("ten", 10), ("hundred", 100), ("thousand", 1000))
    ],
)
CONTROL = '{ name: "%s" control [ { kind: CONTROL_SEQUENCE_%s fp32_false_true: [ 0, 1 ] } ] }'
START_READY_END = f"control_input [ {', '.join(CONTROL % (k.lower(), k) for k in ('START', 'READY', 'END'))} ]"
CONTROL_IO = BATCHED + tensors("input", "x FP32 [ 1 ]") + tensors("output", "what FP32 [ 1 ]")
WHAT = mixed(numbers("what", [111, 102, 1103]), numbers("what", [111, 102, 1103], sequence=8))
CORRID = Graph(
    [
        helper.make_node("Cast", ["corrid"], ["number"], to=FLOAT),
        helper.make_node("Cast", ["start"], ["begun"], to=FLOAT),
        helper.make_node("Sum", ["x", "number", "begun"], ["what"]),
    ],
    [("x", FLOAT, ["n", 1]), ("corrid", INT32, ["n", 1]), ("start", BOOL, ["n", 1])],
    [("what", FLOAT, ["n", 1])],
)
CORRID_CONTROLS = """control_input [
  { name: "corrid" control [ { kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_INT32 } ] },
  { name: "start" control [ { kind: CONTROL_SEQUENCE_START bool_false_true: [ false, true ] } ] } ]"""


def control(what: str, pbtxt: str, requests: Requests, graph: Graph = CONTROLS, **more: Any) -> Case:
    return Case("sequence controls", what, graph, CONTROL_IO + pbtxt, requests, **more)


CONTROL_CASES = [
    control("oldest strategy", sequences(OLDEST, START_READY_END), WHAT),
    control("direct strategy", sequences("direct { }", START_READY_END), WHAT),
    control(
        "sequence number and a bool", sequences(OLDEST, CORRID_CONTROLS), numbers("what", [9, 9, 10]), CORRID, read=True
    ),
    control(
        "of another type than the graph's",
        sequences(OLDEST, START_READY_END.replace("fp32", "int32")),
        refused("'start'", "TYPE_INT32"),
        read=True,
    ),
    control(
        "of a name that the graph lacks",
        sequences(OLDEST, START_READY_END.replace('"end"', '"over"')),
        refused("'over'"),
        read=True,
    ),
    double(
        "sequence controls", "none", sequences(OLDEST), [Request({"x": f32([1, 2])}, {"y": f32([2, 4])}, 7, True, True)]
    ),
]
