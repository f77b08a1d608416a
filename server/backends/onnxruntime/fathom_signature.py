"""The tensors that config.pbtxt declares, held against those of the graph, as the official backend does when it loads.

What config.pbtxt lets Triton give besides `input` counts too: batch inputs, sequence controls and implicit states.
"""

from __future__ import annotations

import triton_python_backend_utils as pb_utils

TRITON_TYPE = {
    "tensor(bool)": "TYPE_BOOL",
    "tensor(uint8)": "TYPE_UINT8",
    "tensor(uint16)": "TYPE_UINT16",
    "tensor(uint32)": "TYPE_UINT32",
    "tensor(uint64)": "TYPE_UINT64",
    "tensor(int8)": "TYPE_INT8",
    "tensor(int16)": "TYPE_INT16",
    "tensor(int32)": "TYPE_INT32",
    "tensor(int64)": "TYPE_INT64",
    "tensor(float16)": "TYPE_FP16",
    "tensor(float)": "TYPE_FP32",
    "tensor(double)": "TYPE_FP64",
    "tensor(bfloat16)": "TYPE_BF16",
    "tensor(string)": "TYPE_STRING",
}
CONTROL_TYPE = {
    "int32_false_true": "TYPE_INT32",
    "fp32_false_true": "TYPE_FP32",
    "bool_false_true": "TYPE_BOOL",
}


def states(config):
    """The implicit states of a sequence model: `sequence_batching { state }`."""
    return config.get("sequence_batching", {}).get("state", [])


def controls(config):
    """The control inputs of a sequence model, in the form of an input."""
    for tensor in config.get("sequence_batching", {}).get("control_input", []):
        for control in tensor["control"]:
            given = [kind for field, kind in CONTROL_TYPE.items() if control.get(field)]
            yield {"name": tensor["name"], "data_type": (given or [control.get("data_type")])[0], "dims": [1]}


def check_inputs(config, session):
    """Refuse a config.pbtxt that gives the graph other inputs than it takes, naming the tensor and both values."""
    graph = {tensor.name: tensor for tensor in session.get_inputs()}
    initialized = {tensor.name: tensor for tensor in session.get_overridable_initializers()}
    batched = config["max_batch_size"] > 0
    seen = {}
    for kind, tensor, own in _given(config):
        name = tensor["name"]
        if name in seen:
            _refuse(f"'{name}' is declared as {seen[name]} and as {kind}: remove the {seen[name]}")
        seen[name] = kind
        if tensor.get("optional") and batched:
            _refuse(f"input '{name}' is optional, which a model with a batch axis cannot have: write max_batch_size: 0")
        takes = initialized if tensor.get("optional") else graph
        if name not in takes:
            _refuse(_why_not_taken(kind, name, graph, initialized))
        _check_type(kind, tensor, takes[name])
        if own is None:
            continue
        if tensor.get("allow_ragged_batch"):
            if dims(takes[name].shape) != [-1]:
                _refuse(f"ragged input '{name}' is {dims(takes[name].shape)} in the graph: only [-1] can take it")
        else:
            _check_shape(kind, tensor, own, takes[name], batched, exact=kind == "sequence control")
    if missing := sorted(set(graph) - set(seen)):
        _refuse(f"the graph needs input '{missing[0]}', which config.pbtxt does not declare")


def check_outputs(config, session):
    """Refuse a config.pbtxt with outputs or states that the graph does not give, naming the tensor and both values."""
    graph = {tensor.name: tensor for tensor in session.get_outputs()}
    scattered = {name for entry in config.get("batch_output", []) for name in entry["target_name"]}
    for tensor in config["output"]:
        _require_output("output", tensor["name"], graph)
        _check_type("output", tensor, graph[tensor["name"]])
        if tensor["name"] not in scattered:
            batched = config["max_batch_size"] > 0
            _check_shape("output", tensor, _own_dims(tensor), graph[tensor["name"]], batched, exact=True)
    for state in states(config):
        _require_output("state output", state["output_name"], graph)
        _check_type("state output", state | {"name": state["output_name"]}, graph[state["output_name"]])


def _given(config):
    """(kind, tensor, its dims as the graph sees them or None where Triton alone decides) of each input."""
    for tensor in config["input"]:
        yield "input", tensor, _own_dims(tensor)
    for entry in config.get("batch_input", []):
        for name in entry["target_name"]:
            yield "batch input", entry | {"name": name}, None
    for tensor in controls(config):
        yield "sequence control", tensor, tensor["dims"]
    for state in states(config):
        yield "state input", state | {"name": state["input_name"]}, None


def _why_not_taken(kind, name, graph, initialized):
    if name in initialized:
        remedy = "write optional: true, or leave it out" if kind == "input" else "remove the value"
        return f"{kind} '{name}' has a value in the graph: {remedy}"
    if name in graph:
        return f"input '{name}' is optional by config.pbtxt, but the graph has no value for it: remove optional"
    return f"config.pbtxt declares {kind} '{name}', but the graph has {_names({**graph, **initialized})}"


def _names(tensors):
    return ", ".join(f"'{name}'" for name in sorted(tensors))


def _require_output(kind, name, graph):
    if name not in graph:
        _refuse(f"config.pbtxt declares {kind} '{name}', but the graph has {_names(graph)}")


def _check_type(kind, tensor, actual):
    if tensor["data_type"] != triton_type(actual):
        name = tensor["name"]
        _refuse(f"{kind} '{name}' is {tensor['data_type']} by config.pbtxt, {triton_type(actual)} in the graph")


def _own_dims(tensor):
    reshape = tensor.get("reshape", {}).get("shape")
    return [int(size) for size in (tensor["dims"] if reshape is None else reshape)]


def _check_shape(kind, tensor, own, actual, batched, exact):
    """Compare as the official backend does: an open axis of the graph takes any size, where not `exact`."""
    name, graph = tensor["name"], dims(actual.shape)
    if not graph:  # a scalar, or a graph that leaves even the rank open: ONNX Runtime does not tell which
        if any(size != 1 for size in own):
            _refuse(
                f"{kind} '{name}' has no shape in the graph and counts as a scalar, but its dims are {own}: "
                "write 1, or export with shapes"
            )
        return
    full = [-1, *own] if batched else own
    if len(full) != len(graph) or any(g != f and (exact or g != -1) for f, g in zip(full, graph, strict=True)):
        batch = " with the batch axis in front" if batched else ""
        _refuse(f"{kind} '{name}' is {full}{batch} by config.pbtxt but {graph} in the graph")


def dims(shape):
    return [d if isinstance(d, int) else -1 for d in shape]


def triton_type(tensor):
    if tensor.type not in TRITON_TYPE:
        _refuse(
            f"'{tensor.name}' is {tensor.type}, which Triton cannot carry: export tensors (scikit-learn: zipmap off)"
        )
    return TRITON_TYPE[tensor.type]


def _refuse(reason):
    raise pb_utils.TritonModelException(reason)
