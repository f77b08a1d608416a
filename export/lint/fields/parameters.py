"""Lint rules for `parameters` and accelerators: free text to Triton, so a misspelt key is silently nothing."""

from __future__ import annotations

import ast
from collections.abc import Collection, Mapping
from difflib import get_close_matches
from typing import Any

from export import files, recipes
from export.config.config import TENSORRT
from export.errors import FileError
from export.lint.finding import Findings, Subject, rule

ONNXRUNTIME = {
    "execution_mode", "intra_op_thread_count", "inter_op_thread_count", "enable_mem_arena", "enable_mem_pattern",
    "session.use_device_allocator_for_initializers", "memory.enable_memory_arena_shrinkage",
    "cudnn_conv_algo_search", "gpu_mem_limit", "arena_extend_strategy", "do_copy_in_default_stream",
    "FORCE_CPU_ONLY_INPUT_TENSORS", "rows_per_run",
}  # fmt: skip
"""What Triton's ONNX Runtime backend reads (onnxruntime.cc), and what only the embedded server's does: the last two."""

MODEL_CLASS = "TritonPythonModel"
PYTHON = {"EXECUTION_ENV_PATH", "FORCE_CPU_ONLY_INPUT_TENSORS"}

WHOLE_NUMBERS = ("intra_op_thread_count", "inter_op_thread_count", "gpu_mem_limit", "rows_per_run")

SWITCH = ("1", "true", "0", "false")
CHOICES = {"execution_mode": ("0", "1"), "enable_mem_arena": SWITCH, "enable_mem_pattern": SWITCH}

GRAPH_LEVELS = (-1, 0, 1, 2)

TENSORRT_PROVIDER = {
    "precision_mode", "max_workspace_size_bytes", "int8_calibration_table_name",
    "int8_use_native_calibration_table", "trt_max_partition_iterations", "trt_min_subgraph_size", "trt_dla_enable",
    "trt_dla_core", "trt_engine_cache_enable", "trt_engine_cache_path", "trt_engine_cache_prefix",
    "trt_dump_subgraphs", "trt_force_sequential_engine_build", "trt_context_memory_sharing_enable",
    "trt_layer_norm_fp32_fallback", "trt_timing_cache_enable", "trt_timing_cache_path", "trt_force_timing_cache",
    "trt_detailed_build_log", "trt_build_heuristics_enable", "trt_sparsity_enable",
    "trt_builder_optimization_level", "trt_auxiliary_streams", "trt_tactic_sources", "trt_extra_plugin_lib_paths",
    "trt_profile_min_shapes", "trt_profile_max_shapes", "trt_profile_opt_shapes", "trt_cuda_graph_enable",
    "trt_dump_ep_context_model", "trt_ep_context_file_path", "trt_ep_context_embed_mode",
}  # fmt: skip
"""What the backend passes to ONNX Runtime's TensorRT provider; any other key fails the load."""


def check(subject: Subject) -> Findings:
    """All rules of this file."""
    if subject.backend == "onnxruntime":
        yield from _parameters(subject, ONNXRUNTIME, "the ONNX Runtime backend")
        yield from _whole_numbers(subject)
        yield from _choices(subject)
        yield from _graph_level(subject)
        yield from _threads(subject)
        yield from _cpu_accelerators(subject)
        yield from _gpu_accelerators(subject)
    elif subject.backend == "tensorrt":
        yield from _parameters(subject, TENSORRT, "the TensorRT backend")
    elif subject.backend == "python":
        yield from _python_model(subject)


def _declared(model: ast.Module) -> dict[str, Any] | None:
    """The keys of the literal `PARAMETERS` (set, dict, list or tuple) at the top of a model.py, with the values that a
    dictionary gives them, or None."""
    for node in model.body:
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        if not any(isinstance(target, ast.Name) and target.id == "PARAMETERS" for target in targets):
            continue
        value = getattr(node, "value", None)
        if isinstance(value, ast.Call) and value.args:  # frozenset({...})
            value = value.args[0]
        try:
            keys = ast.literal_eval(value) if value is not None else None
            return None if keys is None else {str(key): keys[key] if isinstance(keys, dict) else None for key in keys}
        except (ValueError, TypeError):
            return None
    return None


def _has_model(model: ast.Module) -> bool:
    """Whether a model.py can define the class that Triton looks for: by a class, an import or an assignment."""
    names: set[str] = set()
    for node in ast.walk(model):
        if isinstance(node, ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.alias):
            names.add(node.asname or node.name)
        elif isinstance(node, ast.Name):
            names.add(node.id)
    return bool(names & {MODEL_CLASS, "*"})


@rule
def _python_model(subject: Subject) -> Findings:
    paths = [path for version in subject.versions for path in subject.model_files(version)]
    if subject.message.runtime or not paths or files.problem(subject.folder, paths[-1]):
        return
    place = f"{paths[-1].parent.name}/{paths[-1].name}"
    try:
        model = ast.parse(files.read(paths[-1]), str(paths[-1]))
        declared, has_model = _declared(model), _has_model(model)
    except SyntaxError as error:
        where = f"{subject.folder.name}/{place}, line {error.lineno}"
        yield subject.error("default_model_filename", f"{where} is not Python ({error.msg})", "correct the file")
        return
    except (FileError, ValueError, RecursionError, MemoryError) as error:
        why = error.why if isinstance(error, FileError) else f"is not Python ({error or type(error).__name__})"
        yield subject.error("default_model_filename", f"{subject.folder.name}/{place} {why}", "correct the file")
        return
    if not has_model:
        yield subject.error(
            "default_model_filename", f"{place} has no class {MODEL_CLASS}", f"write one: class {MODEL_CLASS}: ..."
        )
    own = [key for key in subject.message.parameters if key not in PYTHON]
    if declared is not None:
        yield from _unknown(subject, declared.keys() | PYTHON, f"{subject.folder.name}/{place}")
        if recipes.bundled(subject.folder.name):  # in those a number is the least; elsewhere it may be a default
            yield from _at_least(subject, {key: least for key, least in declared.items() if type(least) is int})
    elif own:
        yield subject.warning(
            f'parameters["{own[0]}"]',
            f"{place} does not say which parameters it reads",
            "declare PARAMETERS = {...} at its top",
        )


def _at_least(subject: Subject, least: Mapping[str, int]) -> Findings:
    for key in least.keys() & subject.message.parameters.keys():
        value = subject.message.parameters[key].string_value
        if not (value.isascii() and value.isdecimal() and int(value) >= least[key]):
            yield subject.error(
                f'parameters["{key}"].value',
                f"{key} is '{value}', and the model takes a whole number from {least[key]} on",
                f'write one in quotes, as string_value: "{least[key]}"',
            )


@rule
def _threads(subject: Subject) -> Findings:
    if "intra_op_thread_count" not in subject.message.parameters:
        yield subject.warning(
            "parameters",
            "intra_op_thread_count is not set, so every instance takes a thread per core",
            "write it: instances x threads should equal the cores",
        )


@rule
def _parameters(subject: Subject, known: Collection[str], reader: str) -> Findings:
    yield from _unknown(subject, known, reader)


def _unknown(subject: Subject, known: Collection[str], reader: str) -> Findings:
    for key in subject.message.parameters:
        if key not in known:
            yield subject.error(
                f'parameters["{key}"]',
                f"'{key}' is not a parameter of {reader}, which would ignore it",
                _suggest(key, known),
            )


@rule
def _whole_numbers(subject: Subject) -> Findings:
    for key in WHOLE_NUMBERS:
        if key in subject.message.parameters:
            value = subject.message.parameters[key].string_value
            if (key, value) == ("rows_per_run", "auto"):
                yield from _measured_rows(subject)
            elif not value.isdecimal():
                yield subject.error(
                    f'parameters["{key}"].value',
                    f"{key} is '{value}'",
                    'write a whole number in quotes, as string_value: "1"',
                )


@rule
def _choices(subject: Subject) -> Findings:
    for key, choices in CHOICES.items():
        value = subject.message.parameters[key].string_value if key in subject.message.parameters else choices[0]
        if value.lower() not in choices:
            yield subject.error(f'parameters["{key}"].value', f"{key} is '{value}'", f"write {' or '.join(choices)}")


@rule
def _graph_level(subject: Subject) -> Findings:
    level = subject.message.optimization.graph.level
    if level not in GRAPH_LEVELS:
        yield subject.error(
            "optimization.graph.level",
            f"there is no level {level}",
            f"write one of {', '.join(map(str, GRAPH_LEVELS))}",
        )


def _measured_rows(subject: Subject) -> Findings:
    for tensor in subject.message.input:
        if min(tensor.dims, default=0) < 0:
            yield subject.error(
                'parameters["rows_per_run"].value',
                f"rows_per_run is 'auto', but input '{tensor.name}' has dims {list(tensor.dims)}: what is fastest "
                "depends on its size, and the embedded server would not load the model",
                "write a number of rows",
            )


@rule
def _cpu_accelerators(subject: Subject) -> Findings:
    accelerators = subject.message.optimization.execution_accelerators.cpu_execution_accelerator
    for index, accelerator in enumerate(accelerators):
        if accelerator.name != "openvino":
            yield subject.error(
                f"optimization.execution_accelerators.cpu_execution_accelerator[{index}].name",
                f"there is no CPU accelerator '{accelerator.name}'",
                "write openvino, or remove it",
            )


@rule
def _gpu_accelerators(subject: Subject) -> Findings:
    groups = subject.message.instance_group
    never = bool(groups) and all(group.kind == group.KIND_CPU for group in groups)
    report = subject.warning if never else subject.error  # Triton reads them for an instance on a GPU
    accelerators = subject.message.optimization.execution_accelerators.gpu_execution_accelerator
    for index, accelerator in enumerate(accelerators):
        field = f"optimization.execution_accelerators.gpu_execution_accelerator[{index}]"
        if accelerator.name not in ("tensorrt", "cuda"):
            yield report(f"{field}.name", f"there is no GPU accelerator '{accelerator.name}'", "write tensorrt or cuda")
        for key in accelerator.parameters if accelerator.name == "tensorrt" else ():
            if key not in TENSORRT_PROVIDER:
                yield report(
                    f'{field}.parameters["{key}"]',
                    f"'{key}' is not a parameter of the TensorRT accelerator: the model would not load",
                    _suggest(key, TENSORRT_PROVIDER),
                )


def _suggest(key: str, known: Collection[str]) -> str:
    close = get_close_matches(key, known, n=1)
    return f"did you mean '{close[0]}'?" if close else f"known are {', '.join(sorted(known)) or 'none'}"
