"""The ONNX file and the session that config.pbtxt asks for, in the official backend's names and values."""

from __future__ import annotations

import onnxruntime as ort
import triton_python_backend_utils as pb_utils

MODEL_FILE = "model.onnx"
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
# Ours: a batch is computed in runs of at most so many rows, where larger ones cost more time per row (a CPU's caches).
ROWS_PER_RUN = "rows_per_run"
CUDNN_SEARCH = {"0": "EXHAUSTIVE", "1": "HEURISTIC", "2": "DEFAULT"}
ARENA_EXTEND = {"0": "kNextPowerOfTwo", "1": "kSameAsRequested"}


def model_file(path, name):
    """The file in the place that config.pbtxt names, which may be a folder with a model.onnx."""
    if path.is_dir():
        path = path / MODEL_FILE
    if not path.is_file():
        raise pb_utils.TritonModelException(
            f"model file '{path.parent.name}/{path.name}' of '{name}' is missing: put it there (`fathom export` makes "
            "those of models with a recipe), or set default_model_filename"
        )
    return path


def session_options(config, parameters):
    """ONNX Runtime session options from config.pbtxt, named and valued as in the official backend."""
    known = SESSION_PARAMETERS | CUDA_PARAMETERS | {DEVICE_TENSORS, ROWS_PER_RUN}
    unknown = sorted(set(parameters) - known)
    if unknown:
        raise pb_utils.TritonModelException(
            f"unknown parameters key '{unknown[0]}': the onnxruntime backend knows {', '.join(sorted(known))}"
        )
    options = quiet_options()
    level = config.get("optimization", {}).get("graph", {}).get("level", 0)
    if level not in GRAPH_LEVEL:
        raise pb_utils.TritonModelException(f"optimization.graph.level is {level}: choose -1, 0, 1 or 2")
    options.graph_optimization_level = GRAPH_LEVEL[level]
    options.intra_op_num_threads = whole_number(parameters, "intra_op_thread_count")
    options.inter_op_num_threads = whole_number(parameters, "inter_op_thread_count")
    mode = _choice(parameters, "execution_mode", "0")
    options.execution_mode = ort.ExecutionMode.ORT_PARALLEL if mode == "1" else ort.ExecutionMode.ORT_SEQUENTIAL
    options.enable_cpu_mem_arena = _switch(parameters, "enable_mem_arena")
    options.enable_mem_pattern = _switch(parameters, "enable_mem_pattern")
    key = "session.use_device_allocator_for_initializers"
    if key in parameters:
        options.add_session_config_entry(key, _choice(parameters, key, "0"))
    return options


def add_operators(options, config):
    """Load the libraries of custom operators that config.pbtxt names, by paths as the dynamic linker reads them."""
    for library in config.get("model_operations", {}).get("op_library_filename", []):
        try:
            options.register_custom_ops_library(library)
        except Exception as error:
            raise pb_utils.TritonModelException(
                f"model_operations names the library '{library}', which cannot be loaded: {error}"
            ) from error


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


def quiet_options():
    """What every session here has: no log, and INT8 products without overflow on x86 that has no VNNI."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.x64quantprecision", "1")
    return options


def whole_number(parameters, key, meaning=" of threads, 0 for all cores"):
    text = parameters.get(key, "0")
    if not text.isdigit():
        raise pb_utils.TritonModelException(f"parameters {key} is '{text}': give a whole number{meaning}")
    return int(text)


def _switch(parameters, key):
    """True or False, true where nothing is written, in the spellings that the official backend reads."""
    return _choice({key: parameters.get(key, "1").lower()}, key, "1", ("1", "true", "0", "false")) in ("1", "true")


def _choice(parameters, key, default, choices=("0", "1")):
    text = parameters.get(key, default)
    if text not in choices:
        raise pb_utils.TritonModelException(f"parameters {key} is '{text}': choose {' or '.join(choices)}")
    return text
