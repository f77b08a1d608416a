"""Tensors in host memory: taken from Triton as numpy arrays, joined into one batch, run, and divided again."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import triton_python_backend_utils as pb_utils
from fathom_ragged import Ragged
from fathom_signature import controls
from fathom_split import require_rows
from fathom_states import States


class InputError(Exception):
    """What a request brought cannot be given to the graph."""


def has_bfloat16(session):
    """Whether a tensor of the graph has no numpy form."""
    return any("bfloat16" in tensor.type for tensor in [*session.get_inputs(), *session.get_outputs()])


class HostIO:
    """Runs of one session with inputs and outputs in host memory, in runs of at most `rows_per_run` rows, 0 for all."""

    def __init__(self, session, config, rows_per_run):
        if has_bfloat16(session):
            raise pb_utils.TritonModelException(
                "BF16 tensors cannot be served beside texts, scalars, optional or ragged inputs, states or sequence "
                "controls in this server: convert them in the graph"
            )
        self._session = session
        self._batched = config["max_batch_size"] > 0
        self._states = States(config)
        self._ragged = Ragged(config)
        self._rows_per_run = 0 if self._ragged else rows_per_run
        given = [*config["input"], *controls(config)]
        self._inputs = [tensor["name"] for tensor in given] + list(self._states.names)
        # A state may be an output too.
        self._outputs = list(dict.fromkeys([*(t["name"] for t in config["output"]), *self._states.names.values()]))
        graph = [*session.get_inputs(), *session.get_overridable_initializers(), *session.get_outputs()]
        self._texts = {tensor.name for tensor in graph if tensor.type == "tensor(string)"}
        # Triton has no scalars: theirs are dims of ones.
        scalars = set() if self._batched else {tensor.name for tensor in graph if not tensor.shape}
        self._scalar_inputs = scalars.intersection(self._inputs)
        self._scalar_outputs = {t["name"]: t["dims"] for t in config["output"] if t["name"] in scalars}

    def run(self, requests, run_options):
        """One list of output tensors per request, of the outputs that it asks for; the requests run as one batch.

        Raises InputError for a request that the graph cannot take, ValueError where their shapes do not form a batch,
        SplitError where the outputs' are none, and whatever ONNX Runtime does.
        """
        feeds = [self._feed(request) for request in requests]
        if self._rows_per_run == 1:
            answers = [self._compute([r], [feed], run_options)[0] for r, feed in zip(requests, feeds, strict=True)]
        else:
            answers = self._compute(requests, feeds, run_options)
        tensors = [self._tensors(request, values) for request, values in zip(requests, answers, strict=True)]
        if self._states.names:  # at last: what raises above is run again, from the same states
            for request, values in zip(requests, answers, strict=True):
                self._states.keep(request, values)
        return tensors

    def _feed(self, request):
        feed = {}
        for name in self._inputs:
            tensor = pb_utils.get_input_tensor_by_name(request, name)
            if tensor is not None:  # an optional one, for which the graph has a value
                feed[name] = self._array(name, tensor)
        return feed | self._states.feed(request) if self._states.names else feed

    def _array(self, name, tensor):
        array = tensor.as_numpy() if tensor.is_cpu() else ort.OrtValue.from_dlpack(tensor).numpy()
        if name in self._texts:
            try:
                array = np.array([text.decode() for text in array.ravel()], dtype=object).reshape(array.shape)
            except UnicodeDecodeError as error:
                raise InputError(f"input '{name}' holds a text that is not UTF-8: {error}") from error
        return array.reshape(()) if name in self._scalar_inputs else array

    def _compute(self, requests, feeds, run_options):
        """{output: array} of each request, of one batch."""
        rows = [len(feed[self._inputs[0]]) if self._batched else 0 for feed in feeds]
        splittable = self._outputs
        if len(feeds) == 1:
            splittable = {*requests[0].requested_output_names(), *self._states.names.values()}
        joined = feeds[0]
        if len(feeds) > 1 or self._ragged:
            joined = {name: self._ragged.join(name, [feed[name] for feed in feeds]) for name in joined}
            joined |= self._ragged.batch_inputs(feeds)
        values = self._compute_rows(joined, sum(rows), splittable, run_options)
        if len(feeds) == 1 and not self._ragged:
            return [dict(zip(self._outputs, values, strict=True))]
        ends = np.cumsum(rows)
        parts = [
            self._ragged.scatter(name, value, feeds)
            if self._ragged.scatters(name)
            else [value[end - count : end] for end, count in zip(ends, rows, strict=True)]
            for name, value in zip(self._outputs, values, strict=True)
        ]
        return [dict(zip(self._outputs, part, strict=True)) for part in zip(*parts, strict=True)]

    def _compute_rows(self, feed, rows, splittable, run_options):
        """The outputs, in their order, in runs of `rows_per_run` rows where that is set.

        Raises SplitError for an output named in `splittable` that has other rows than the input.
        """
        step = self._rows_per_run or rows
        if rows <= step:
            return self._compute_once(feed, rows, splittable, run_options)
        runs = [
            self._compute_once(
                {name: value[at : at + step] for name, value in feed.items()},
                min(step, rows - at),
                splittable,
                run_options,
            )
            for at in range(0, rows, step)
        ]
        return [np.concatenate(parts) for parts in zip(*runs, strict=True)]

    def _compute_once(self, feed, rows, splittable, run_options):
        values = self._session.run(self._outputs, feed, run_options)
        if self._batched:
            for name, value in zip(self._outputs, values, strict=True):
                if name in splittable and not self._ragged.scatters(name):
                    require_rows(name, value.shape, rows)
        return values

    def _tensors(self, request, values):
        wanted = set(request.requested_output_names())
        return [self._tensor(name, value) for name, value in values.items() if name in wanted]

    def _tensor(self, name, value):
        if name in self._texts:
            value = np.array([text.encode() for text in value.ravel()], dtype=object).reshape(value.shape)
        if not value.shape and name in self._scalar_outputs:
            value = value.reshape([int(size) for size in self._scalar_outputs[name]])
        return pb_utils.Tensor(name, value)
