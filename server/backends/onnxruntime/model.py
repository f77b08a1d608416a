"""ONNX Runtime as a Triton python-based backend.

Loads any model folder with `backend: "onnxruntime"`, unchanged, in a server that ships no C++ ONNX Runtime backend. It
honours the official backend's options and refuses, by name, what it does not know: a typing error in config.pbtxt that
the official backend would ignore becomes a failed load with a reason.

Runs inside Triton's python stub, so it imports only numpy, onnxruntime, the stub's own module and its neighbours here.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import onnxruntime as ort
import triton_python_backend_utils as pb_utils
from fathom_device_io import DeviceIO
from fathom_rows import AUTO, measured_rows
from fathom_session import (
    DEVICE_TENSORS,
    ROWS_PER_RUN,
    execution_providers,
    quiet_options,
    refuse_fallback,
    session_options,
    whole_number,
)
from fathom_signature import check_signature, dims, triton_type
from fathom_split import PROVING, SplitError, require_rows, same_first_axis

DEFAULT_MAX_BATCH_SIZE = 4  # what the official backend fills in for a model whose first axes are all dynamic


class TritonPythonModel:
    """One model instance: one ONNX Runtime session."""

    @staticmethod
    def auto_complete_config(config):
        """Fill inputs, outputs and max_batch_size from the graph where config.pbtxt leaves them out."""
        given = config.as_dict()
        if given["input"] and given["output"]:
            return config
        # Triton does not say here where the model lies; its stub process has the file as first argument.
        path = Path(Path("/proc/self/cmdline").read_bytes().split(b"\0")[1].decode())
        _require(path, given["name"])
        session = ort.InferenceSession(str(path), quiet_options(), providers=["CPUExecutionProvider"])
        tensors = [*session.get_inputs(), *session.get_outputs()]
        batchable = all(t.shape and not isinstance(t.shape[0], int) for t in tensors)
        batched = given["max_batch_size"] > 0 or batchable
        if batched and given["max_batch_size"] == 0:
            config.set_max_batch_size(DEFAULT_MAX_BATCH_SIZE)
            config.set_dynamic_batching()
        named = {t["name"] for t in [*given["input"], *given["output"]]}
        for tensors, add in ((session.get_inputs(), config.add_input), (session.get_outputs(), config.add_output)):
            for tensor in tensors:
                if tensor.name not in named:
                    shape = dims(tensor.shape)[1:] if batched else dims(tensor.shape)
                    add({"name": tensor.name, "data_type": triton_type(tensor), "dims": shape})
        return config

    def initialize(self, args):
        config = json.loads(args["model_config"])
        self.name = config["name"]
        path = (
            Path(args["model_repository"]) / args["model_version"] / (config["default_model_filename"] or "model.onnx")
        )
        _require(path, self.name)
        parameters = {key: value["string_value"] for key, value in config.get("parameters", {}).items()}
        on_gpu = args["model_instance_kind"] == "GPU"
        device_id = int(args["model_instance_device_id"])
        try:
            options = session_options(config, parameters)
            providers = execution_providers(config, parameters, on_gpu, device_id)
            if on_gpu and hasattr(ort, "preload_dlls"):
                ort.preload_dlls()  # CUDA's libraries from the nvidia-* packages, which no search path names
            self.session = ort.InferenceSession(str(path), options, providers=providers)
        except pb_utils.TritonModelException:
            raise
        except Exception as error:
            raise pb_utils.TritonModelException(
                f"ONNX Runtime {ort.__version__} cannot load '{path}': {error}"
            ) from error
        refuse_fallback(self.name, providers, self.session.get_providers())
        self.batched = config["max_batch_size"] > 0
        check_signature(config["input"], self.session.get_inputs(), self.batched, "input")
        check_signature(config["output"], self.session.get_outputs(), self.batched, "output")
        self.inputs = [t["name"] for t in config["input"]]
        self.outputs = [t["name"] for t in config["output"]]
        self.joins = self.batched  # until a run shows that its outputs cannot be split
        self.proving = 0 if same_first_axis(self.session) else PROVING
        graph_types = {t.name: t.type for t in [*self.session.get_inputs(), *self.session.get_outputs()]}
        self.strings = {name for name, type_ in graph_types.items() if type_ == "tensor(string)"}
        # Strings have no DLPack form.
        self.device_io = None
        if parameters.get(DEVICE_TENSORS) == "no" and not self.strings:
            device = ("cuda", device_id) if on_gpu else ("cpu", 0)
            self.device_io = DeviceIO(self.session, *device, self.inputs, self.outputs, self.batched)
            pb_utils.Logger.log_info(f"'{self.name}' takes and gives tensors on {device[0]}:{device[1]}")
        self.rows_per_run = self._rows_per_run(config, parameters, on_gpu)
        # Triton's batchers drop cancelled requests themselves; asking costs 0.1 ms, a message to the server and back.
        self.asks_if_cancelled = "dynamic_batching" not in config and "sequence_batching" not in config
        self.run_options = None
        shrink = parameters.get("memory.enable_memory_arena_shrinkage")
        if shrink:
            self.run_options = ort.RunOptions()
            self.run_options.add_run_config_entry("memory.enable_memory_arena_shrinkage", shrink)

    def _rows_per_run(self, config, parameters, on_gpu):
        auto = parameters.get(ROWS_PER_RUN) == AUTO
        given = 0 if auto else whole_number(parameters, ROWS_PER_RUN, " of rows, 0 for all at once, or auto")
        if not self.batched or not auto or self.device_io is not None:
            return given if self.batched else 0
        own_thread = not on_gpu and self.session.get_session_options().intra_op_num_threads == 1
        return measured_rows(self.session, config, time.thread_time if own_thread else time.perf_counter)

    def execute(self, requests):
        """Run all requests as one batch; if that fails, each alone, so that only the guilty one gets the error."""
        live, responses = [], [None] * len(requests)
        for index, request in enumerate(requests):
            if self.asks_if_cancelled and request.is_cancelled():
                responses[index] = _failed("the client cancelled the request", pb_utils.TritonError.CANCELLED)
            else:
                live.append(index)
        for index, answer in zip(live, self._answers([requests[index] for index in live]), strict=True):
            responses[index] = answer
        return responses

    def _answers(self, batch):
        if len(batch) > 1 and self.joins and not self.proving:
            try:
                return self._run(batch)
            except SplitError as error:
                self._join_no_more(error)
            except Exception:  # of one request or of their joining: each alone shows which
                pass
        return [self._run_alone(request) for request in batch]

    def _run_alone(self, request):
        try:
            answer = self._run([request])[0]
            self.proving = max(0, self.proving - 1)
            return answer
        except SplitError as error:
            self._join_no_more(error)
            return _failed(f"'{self.name}': {error}", pb_utils.TritonError.INTERNAL)
        except Exception as error:
            return _failed(f"ONNX Runtime could not run '{self.name}': {error}", pb_utils.TritonError.INTERNAL)

    def _join_no_more(self, error):
        """From now on each request is run alone: of such a graph, equal sums of rows would prove nothing."""
        if self.joins:
            self.joins = False
            pb_utils.Logger.log_warn(f"'{self.name}' runs each request alone from now on: {error}")

    def _run(self, requests):
        """The responses, of one run for all requests. Raises SplitError, and whatever ONNX Runtime does."""
        if self.device_io is not None:
            return [pb_utils.InferenceResponse(tensors) for tensors in self.device_io.run(requests, self.run_options)]
        feeds = [self._feed(request) for request in requests]
        if len(feeds) == 1 or self.rows_per_run == 1:
            return [self._answer_alone(request, feed) for request, feed in zip(requests, feeds, strict=True)]
        joined = {name: np.concatenate([feed[name] for feed in feeds]) for name in self.inputs}
        values = self._compute(joined, self.outputs)
        answers, start = [], 0
        for request, feed in zip(requests, feeds, strict=True):
            end = start + len(feed[self.inputs[0]])
            answers.append(self._answer(request, [value[start:end] for value in values]))
            start = end
        return answers

    def _answer_alone(self, request, feed):
        return self._answer(request, self._compute(feed, request.requested_output_names()))

    def _compute(self, feed, splittable):
        """The outputs, in their order; in runs of `rows_per_run` rows where that is set.

        Raises SplitError for an output named in `splittable` that has other rows than the input.
        """
        rows = len(feed[self.inputs[0]]) if self.batched else 0
        step = self.rows_per_run or rows
        if rows <= step:
            return self._compute_once(feed, rows, splittable)
        runs = [
            self._compute_once(
                {name: value[at : at + step] for name, value in feed.items()}, min(step, rows - at), splittable
            )
            for at in range(0, rows, step)
        ]
        return [np.concatenate(parts) for parts in zip(*runs, strict=True)]

    def _compute_once(self, feed, rows, splittable):
        values = self.session.run(self.outputs, feed, self.run_options)
        if self.batched:
            for name, value in zip(self.outputs, values, strict=True):
                if name in splittable:
                    require_rows(name, value.shape, rows)
        return values

    def _answer(self, request, values):
        wanted = set(request.requested_output_names())
        tensors = [
            self._tensor(name, value) for name, value in zip(self.outputs, values, strict=True) if name in wanted
        ]
        return pb_utils.InferenceResponse(tensors)

    def _feed(self, request):
        feed = {}
        for name in self.inputs:
            array = pb_utils.get_input_tensor_by_name(request, name).as_numpy()
            if name in self.strings:
                array = np.array([s.decode() for s in array.ravel()], dtype=object).reshape(array.shape)
            feed[name] = array
        return feed

    def _tensor(self, name, value):
        if name in self.strings:
            value = np.array([s.encode() for s in value.ravel()], dtype=object).reshape(value.shape)
        return pb_utils.Tensor(name, value)


def _require(path, name):
    if not path.is_file():
        raise pb_utils.TritonModelException(
            f"model file '{path.parent.name}/{path.name}' of '{name}' is missing: run `fathom export {name}`, "
            "or set default_model_filename"
        )


def _failed(message, code):
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, code))
