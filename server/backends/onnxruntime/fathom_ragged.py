"""Ragged batching: requests of different shapes laid end to end, with the batch inputs that say where each begins."""

from __future__ import annotations

import numpy as np
import triton_python_backend_utils as pb_utils

NUMPY_TYPE = {"TYPE_INT32": np.int32, "TYPE_FP32": np.float32}


def _items(shapes):
    """The shape of each row of each request, without the batch axis."""
    return [shape[1:] for shape in shapes for _ in range(shape[0])]


# By kind of batch input, its value from the shapes that the requests' source inputs have.
BATCH_INPUT = {
    "BATCH_ELEMENT_COUNT": lambda shapes: [np.prod(shape) for shape in shapes],
    "BATCH_ACCUMULATED_ELEMENT_COUNT": lambda shapes: np.cumsum([np.prod(shape) for shape in shapes]),
    "BATCH_ACCUMULATED_ELEMENT_COUNT_WITH_ZERO": lambda shapes: np.cumsum([0, *(np.prod(shape) for shape in shapes)]),
    "BATCH_MAX_ELEMENT_COUNT_AS_SHAPE": lambda shapes: np.zeros(max(np.prod(shape) for shape in shapes)),
    "BATCH_ITEM_SHAPE": _items,
    "BATCH_ITEM_SHAPE_FLATTEN": lambda shapes: np.ravel(_items(shapes)),
}


class Ragged:
    """The ragged inputs, batch inputs and batch outputs of one config.pbtxt."""

    def __init__(self, config):
        self._flat = {tensor["name"] for tensor in config["input"] if tensor.get("allow_ragged_batch")}
        self._inputs = config.get("batch_input", [])
        self._sources = {entry["target_name"][0]: entry["source_input"][0] for entry in config.get("batch_output", [])}
        for entry in self._inputs:
            if entry["kind"] not in BATCH_INPUT:
                raise pb_utils.TritonModelException(
                    f"batch_input kind {entry['kind']} is unknown: choose {', '.join(BATCH_INPUT)}"
                )

    def __bool__(self):
        return bool(self._flat or self._inputs or self._sources)

    def join(self, name, arrays):
        """One input of all requests, end to end."""
        if name in self._flat:
            arrays = [array.ravel() for array in arrays]
        return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)

    def batch_inputs(self, feeds):
        """{name: array} of the inputs that describe the batch of these requests."""
        values = {}
        for entry in self._inputs:
            shapes = [feed[entry["source_input"][0]].shape for feed in feeds]
            value = np.asarray(BATCH_INPUT[entry["kind"]](shapes), dtype=NUMPY_TYPE[entry["data_type"]])
            values |= dict.fromkeys(entry["target_name"], value)
        return values

    def scatters(self, name):
        """Whether this output is divided by the shapes of an input, not by rows."""
        return name in self._sources

    def scatter(self, name, value, feeds):
        """One array per request. Raises ValueError where the output has another size than the input."""
        shapes = [feed[self._sources[name]].shape for feed in feeds]
        ends = np.cumsum([np.prod(shape) for shape in shapes])
        if value.size != ends[-1]:
            raise ValueError(f"output '{name}' has {value.size} elements where its source input has {ends[-1]}")
        parts = np.split(value.ravel(), ends[:-1])
        return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]
