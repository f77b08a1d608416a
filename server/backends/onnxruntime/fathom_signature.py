"""The tensors that config.pbtxt declares, held against those of the graph."""

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


def check_signature(declared, graph, batched, kind):
    """Refuse a config.pbtxt whose tensors are not the graph's, naming the tensor and both values."""
    actual = {tensor.name: tensor for tensor in graph}
    if kind == "input" and (missing := sorted(set(actual) - {t["name"] for t in declared})):
        raise pb_utils.TritonModelException(
            f"the graph needs input '{missing[0]}', which config.pbtxt does not declare"
        )
    for tensor in declared:
        name = tensor["name"]
        if name not in actual:
            raise pb_utils.TritonModelException(
                f"config.pbtxt declares {kind} '{name}', but the graph has {', '.join(sorted(actual))}"
            )
        if tensor["data_type"] != triton_type(actual[name]):
            raise pb_utils.TritonModelException(
                f"{kind} '{name}' is {tensor['data_type']} by config.pbtxt, {triton_type(actual[name])} in the graph"
            )
        reshape = tensor.get("reshape", {}).get("shape")
        own = [int(d) for d in (tensor["dims"] if reshape is None else reshape)]
        full, graph_dims = ([-1, *own] if batched else own), dims(actual[name].shape)
        if not graph_dims:
            continue  # the graph leaves even the rank open
        if len(full) != len(graph_dims) or any(g not in (-1, f) for f, g in zip(full, graph_dims, strict=True)):
            batch = " with the batch axis in front" if batched else ""
            raise pb_utils.TritonModelException(
                f"{kind} '{name}' is {full}{batch} by config.pbtxt but {graph_dims} in the graph"
            )


def dims(shape):
    return [d if isinstance(d, int) else -1 for d in shape]


def triton_type(tensor):
    if tensor.type not in TRITON_TYPE:
        raise pb_utils.TritonModelException(
            f"'{tensor.name}' is {tensor.type}, which Triton cannot carry: export tensors (scikit-learn: zipmap off)"
        )
    return TRITON_TYPE[tensor.type]
