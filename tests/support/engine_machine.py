"""A machine with a GPU, played by two doubles: TensorRT's (of the real surface) and a CUDA driver on host memory.

The engine it builds takes the `scale` model and multiplies `x` by a gain, so that a right and a wrong engine can be
told apart by their answers.
"""

from __future__ import annotations

import ctypes
import struct
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorrt_double
from tensorrt_double import Recording, Tensor

from export.engine import plan_header
from export.recipe.measure import Reference
from export.recipe.recipe import Recipe

DRIVER = """
#include <stdlib.h>
#include <string.h>
static int live = 0;
int live_buffers(void) { return live; }
int cuInit(unsigned flags) { return 0; }
int cuDeviceGet(int *device, int ordinal) { *device = ordinal; return 0; }
int cuDevicePrimaryCtxRetain(void **context, int device) { *context = (void *)1; return 0; }
int cuCtxSetCurrent(void *context) { return context == (void *)1 ? 0 : 201; }
int cuMemAlloc_v2(unsigned long long *address, size_t size) {
    if (size > 1 << 28) return 2;
    *address = (unsigned long long)malloc(size); live++; return 0;
}
int cuMemFree_v2(unsigned long long address) { free((void *)address); live--; return 0; }
int cuMemcpyHtoD_v2(unsigned long long to, void *from, size_t size) { memcpy((void *)to, from, size); return 0; }
int cuMemcpyDtoH_v2(void *to, unsigned long long from, size_t size) { memcpy(to, (void *)from, size); return 0; }
int cuStreamCreate(void **stream, unsigned flags) { *stream = malloc(1); live++; return 0; }
int cuStreamSynchronize(void *stream) { return 0; }
int cuStreamDestroy_v2(void *stream) { free(stream); live--; return 0; }
"""


def compile_driver(folder: Path) -> Path:
    """The double of libcuda.so.1."""
    (folder / "cuda.c").write_text(DRIVER)
    library = folder / "libcuda-double.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", str(library), str(folder / "cuda.c")], check=True)
    return library


def plan_bytes(version: str) -> bytes:
    """A plan as far as its header goes."""
    numbers = [*plan_header.parse(version), 0, 0, 0][:4]
    return struct.pack("<II16x4B", plan_header.TAG, 0, *numbers) + b"engine of the double"


def tensorrt(
    surface: Mapping[str, Any], *, gain: float = 2.0, answers: Mapping[str, Callable[..., Any]] | None = None
) -> tuple[Any, Recording]:
    """TensorRT as if on a GPU, whose engines multiply by `gain`."""
    shapes: dict[str, tuple[int, ...]] = {}
    addresses: dict[str, int] = {}

    def array(name: str) -> np.ndarray:
        count = int(np.prod(shapes["x"]))
        return np.ctypeslib.as_array((ctypes.c_float * count).from_address(addresses[name])).reshape(shapes["x"])

    def execute(context: Any, stream: int) -> bool:
        array("y")[:] = array("x") * gain
        return True

    machine: dict[str, Callable[..., Any]] = {
        "INetworkDefinition.num_inputs": lambda network: 1,
        "INetworkDefinition.get_input": lambda network, index: Tensor(name="x", shape=(-1, 3)),
        "Builder.build_serialized_network": lambda builder, network, config: plan_bytes(surface["version"]),
        "ITimingCache.serialize": lambda cache: b"measured",
        "ICudaEngine.num_io_tensors": lambda engine: 2,
        "ICudaEngine.get_tensor_name": lambda engine, index: "xy"[index],
        "ICudaEngine.get_tensor_mode": lambda engine, name: getattr(
            module.TensorIOMode, {"x": "INPUT", "y": "OUTPUT"}[name]
        ),
        "ICudaEngine.get_tensor_dtype": lambda engine, name: module.DataType.FLOAT,
        "nptype": lambda dtype: np.float32,
        "EngineInspector.get_engine_information": lambda inspector, form: f'{{"Layers": ["{form.name}"]}}',
        "IExecutionContext.set_input_shape": lambda context, name, shape: shapes.update({name: shape}) is None,
        "IExecutionContext.set_tensor_address": lambda context, name, address: (
            addresses.update({name: address}) is None
        ),
        "IExecutionContext.infer_shapes": lambda context: [],
        "IExecutionContext.get_tensor_shape": lambda context, name: shapes["x"],
        "IExecutionContext.execute_async_v3": execute,
    }
    module, recording = tensorrt_double.make(surface, machine | dict(answers or {}))
    return module, recording


def write_reference(recipe: Recipe, folder: Path) -> None:
    """`1/reference.npz` of a model folder, as an export leaves it."""
    evaluation = recipe.evaluation()
    Reference(evaluation, {"y": evaluation.inputs["x"] * np.float32(2)}).write(folder / "1" / "reference.npz")
