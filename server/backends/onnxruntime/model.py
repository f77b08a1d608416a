"""ONNX Runtime as a Triton python-based backend.

Loads any model folder with `backend: "onnxruntime"`, unchanged, in a server that ships no C++ ONNX Runtime backend. It
honours the official backend's options and refuses, by name, what it does not know: a typing error in config.pbtxt that
the official backend would ignore becomes a failed load with a reason.

Runs inside Triton's python stub, so it imports only numpy, onnxruntime, the stub's own module and its neighbour here.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime as ort
import triton_python_backend_utils as pb_utils
from fathom_device_io import DeviceIO

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

# optimization { graph { level } } as the official backend reads it.
GRAPH_LEVEL = {
    0: ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
    -1: ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    1: ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    2: ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
}

SESSION_PARAMETERS = {
    "execution_mode",
    "intra_op_thread_count",
    "inter_op_thread_count",
    "enable_mem_arena",
    "enable_mem_pattern",
    "session.use_device_allocator_for_initializers",
    "memory.enable_memory_arena_shrinkage",
}
CUDA_PARAMETERS = {"cudnn_conv_algo_search", "gpu_mem_limit", "arena_extend_strategy", "do_copy_in_default_stream"}
# Triton's own parameter of python backends; with "no", tensors are handed over on the instance's device, both ways.
DEVICE_TENSORS = "FORCE_CPU_ONLY_INPUT_TENSORS"
CUDNN_SEARCH = {"0": "EXHAUSTIVE", "1": "HEURISTIC", "2": "DEFAULT"}
ARENA_EXTEND = {"0": "kNextPowerOfTwo", "1": "kSameAsRequested"}
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
        session = ort.InferenceSession(str(path), _quiet_options(), providers=["CPUExecutionProvider"])
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
                    dims = _dims(tensor.shape)
                    add({"name": tensor.name, "data_type": _triton_type(tensor), "dims": dims[1:] if batched else dims})
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
        graph_types = {t.name: t.type for t in [*self.session.get_inputs(), *self.session.get_outputs()]}
        self.strings = {name for name, type_ in graph_types.items() if type_ == "tensor(string)"}
        # Strings have no DLPack form.
        self.device_io = None
        if parameters.get(DEVICE_TENSORS) == "no" and not self.strings:
            device = ("cuda", device_id) if on_gpu else ("cpu", 0)
            self.device_io = DeviceIO(self.session, *device, self.inputs, self.outputs)
            pb_utils.Logger.log_info(f"'{self.name}' takes and gives tensors on {device[0]}:{device[1]}")
        self.run_options = None
        shrink = parameters.get("memory.enable_memory_arena_shrinkage")
        if shrink:
            self.run_options = ort.RunOptions()
            self.run_options.add_run_config_entry("memory.enable_memory_arena_shrinkage", shrink)

    def execute(self, requests):
        """Run all requests as one batch; if that fails, each alone, so that only the guilty one gets the error."""
        live, responses = [], [None] * len(requests)
        for index, request in enumerate(requests):
            if request.is_cancelled():
                responses[index] = _failed("the client cancelled the request", pb_utils.TritonError.CANCELLED)
            else:
                live.append(index)
        batch = [requests[index] for index in live]
        try:
            answers = self._run(batch) if batch else []
        except Exception:
            answers = [self._run_alone(request) for request in batch]
        for index, answer in zip(live, answers, strict=True):
            responses[index] = answer
        return responses

    def _run_alone(self, request):
        try:
            return self._run([request])[0]
        except Exception as error:
            return _failed(f"ONNX Runtime could not run '{self.name}': {error}", pb_utils.TritonError.INTERNAL)

    def _run(self, requests):
        if self.device_io is not None and (self.batched or len(requests) == 1):
            return [pb_utils.InferenceResponse(tensors) for tensors in self.device_io.run(requests, self.run_options)]
        feeds = [self._feed(request) for request in requests]
        if len(feeds) == 1:
            (feed,) = feeds
        elif self.batched:
            feed = {name: np.concatenate([f[name] for f in feeds]) for name in self.inputs}
        else:
            return [self._run([request])[0] for request in requests]
        results = self.session.run(self.outputs, feed, self.run_options)
        responses, start = [], 0
        for request, own in zip(requests, feeds, strict=True):
            wanted = set(request.requested_output_names())
            end = start + len(own[self.inputs[0]]) if len(feeds) > 1 else None
            tensors = [
                self._tensor(name, value[start:end] if end is not None else value)
                for name, value in zip(self.outputs, results, strict=True)
                if name in wanted
            ]
            responses.append(pb_utils.InferenceResponse(tensors))
            start = end
        return responses

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


def session_options(config, parameters):
    """ONNX Runtime session options from config.pbtxt, named and valued as in the official backend."""
    known = SESSION_PARAMETERS | CUDA_PARAMETERS | {DEVICE_TENSORS}
    unknown = sorted(set(parameters) - known)
    if unknown:
        raise pb_utils.TritonModelException(
            f"unknown parameters key '{unknown[0]}': the onnxruntime backend knows {', '.join(sorted(known))}"
        )
    options = _quiet_options()
    level = config.get("optimization", {}).get("graph", {}).get("level", 0)
    if level not in GRAPH_LEVEL:
        raise pb_utils.TritonModelException(f"optimization.graph.level is {level}: choose -1, 0, 1 or 2")
    options.graph_optimization_level = GRAPH_LEVEL[level]
    options.intra_op_num_threads = _count(parameters, "intra_op_thread_count")
    options.inter_op_num_threads = _count(parameters, "inter_op_thread_count")
    mode = _choice(parameters, "execution_mode", "0")
    options.execution_mode = ort.ExecutionMode.ORT_PARALLEL if mode == "1" else ort.ExecutionMode.ORT_SEQUENTIAL
    options.enable_cpu_mem_arena = _choice(parameters, "enable_mem_arena", "1") == "1"
    options.enable_mem_pattern = _choice(parameters, "enable_mem_pattern", "1") == "1"
    key = "session.use_device_allocator_for_initializers"
    if key in parameters:
        options.add_session_config_entry(key, _choice(parameters, key, "0"))
    return options


def execution_providers(config, parameters, on_gpu, device_id):
    """The execution providers of one instance, best first; GPU accelerators are read on GPU instances only."""
    accelerators = config.get("optimization", {}).get("execution_accelerators", {})
    for accelerator in accelerators.get("cpu_execution_accelerator", []):
        raise pb_utils.TritonModelException(
            f"cpu_execution_accelerator '{accelerator['name']}' is not available in this server: remove it for the CPU"
        )
    if not on_gpu:
        return ["CPUExecutionProvider"]
    cuda = {"device_id": device_id, "arena_extend_strategy": "kNextPowerOfTwo", "do_copy_in_default_stream": "1"}
    providers = []
    for accelerator in accelerators.get("gpu_execution_accelerator", []):
        given = accelerator.get("parameters", {})
        if accelerator["name"] == "cuda":
            cuda |= given
        elif accelerator["name"] == "tensorrt":
            providers.append(("TensorrtExecutionProvider", {"device_id": device_id} | tensorrt_options(given)))
        else:
            raise pb_utils.TritonModelException(
                f"gpu_execution_accelerator '{accelerator['name']}' is unknown: choose tensorrt or cuda"
            )
    if "cudnn_conv_algo_search" in parameters:
        cuda["cudnn_conv_algo_search"] = CUDNN_SEARCH[_choice(parameters, "cudnn_conv_algo_search", "0", CUDNN_SEARCH)]
    if "arena_extend_strategy" in parameters:
        cuda["arena_extend_strategy"] = ARENA_EXTEND[_choice(parameters, "arena_extend_strategy", "0", ARENA_EXTEND)]
    for key in ("gpu_mem_limit", "do_copy_in_default_stream"):
        if key in parameters:
            cuda[key] = parameters[key]
    return [*providers, ("CUDAExecutionProvider", cuda), "CPUExecutionProvider"]


def refuse_fallback(model, wanted, given):
    """Refuse a session that lacks a provider it was made for: ONNX Runtime then runs on what is left, and only logs."""
    names = [each if isinstance(each, str) else each[0] for each in wanted]
    lacking = [name for name in names if name not in given]
    if "CUDAExecutionProvider" in lacking:
        raise pb_utils.TritonModelException(
            f"'{model}' asks for a GPU, but ONNX Runtime fell back to the CPU: install onnxruntime-gpu with "
            "its CUDA libraries, or choose a configuration with KIND_CPU"
        )
    if lacking:
        raise pb_utils.TritonModelException(
            f"'{model}' asks for {lacking[0]}, but ONNX Runtime fell back to {given[0]}: install its libraries, or "
            "leave the accelerator out"
        )


def tensorrt_options(given):
    """Options of ONNX Runtime's TensorRT provider from the official backend's accelerator parameters."""
    options = {}
    for key, value in given.items():
        if key == "precision_mode":
            if value not in ("FP32", "FP16", "BF16", "INT8"):
                raise pb_utils.TritonModelException(f"precision_mode is '{value}': choose FP32, FP16, BF16 or INT8")
            options |= {"FP32": {}, "FP16": {"trt_fp16_enable": "1"}, "BF16": {"trt_bf16_enable": "1"}}.get(
                value, {"trt_int8_enable": "1"}
            )
        elif key == "max_workspace_size_bytes":
            options["trt_max_workspace_size"] = value
        elif key.startswith("int8_"):
            options["trt_" + key] = value
        elif key.startswith("trt_"):
            options[key] = value
        else:
            raise pb_utils.TritonModelException(f"unknown parameter '{key}' of the tensorrt accelerator")
    return options


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
        if tensor["data_type"] != _triton_type(actual[name]):
            raise pb_utils.TritonModelException(
                f"{kind} '{name}' is {tensor['data_type']} by config.pbtxt, {_triton_type(actual[name])} in the graph"
            )
        reshape = tensor.get("reshape", {}).get("shape")
        dims = [int(d) for d in (tensor["dims"] if reshape is None else reshape)]
        full, graph_dims = ([-1, *dims] if batched else dims), _dims(actual[name].shape)
        if not graph_dims:
            continue  # the graph leaves even the rank open
        if len(full) != len(graph_dims) or any(g not in (-1, f) for f, g in zip(full, graph_dims, strict=True)):
            batch = " with the batch axis in front" if batched else ""
            raise pb_utils.TritonModelException(
                f"{kind} '{name}' is {full}{batch} by config.pbtxt but {graph_dims} in the graph"
            )


def _require(path, name):
    if not path.is_file():
        raise pb_utils.TritonModelException(
            f"model file '{path.parent.name}/{path.name}' of '{name}' is missing: run `fathom export {name}`, "
            "or set default_model_filename"
        )


def _quiet_options():
    options = ort.SessionOptions()
    options.log_severity_level = 3
    return options


def _count(parameters, key):
    text = parameters.get(key, "0")
    if not text.isdigit():
        raise pb_utils.TritonModelException(
            f"parameters {key} is '{text}': give a whole number of threads, 0 for all cores"
        )
    return int(text)


def _choice(parameters, key, default, choices=("0", "1")):
    text = parameters.get(key, default)
    if text not in choices:
        raise pb_utils.TritonModelException(f"parameters {key} is '{text}': choose {' or '.join(choices)}")
    return text


def _dims(shape):
    return [d if isinstance(d, int) else -1 for d in shape]


def _triton_type(tensor):
    if tensor.type not in TRITON_TYPE:
        raise pb_utils.TritonModelException(
            f"'{tensor.name}' is {tensor.type}, which Triton cannot carry: export tensors (scikit-learn: zipmap off)"
        )
    return TRITON_TYPE[tensor.type]


def _failed(message, code):
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, code))
