"""Run a built engine on this machine's GPU as a station, time it, and list its layers.

Never made without a GPU: TensorRT's runtime then gives an object whose methods crash the process.
"""

from __future__ import annotations

import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from export.engine import library
from export.engine.cuda import Device
from export.errors import EngineError
from export.recipe.recipe import Array, Arrays, Predict

if TYPE_CHECKING:
    import tensorrt as trt

TIMED_RUNS = 30


def open_plan(trt: Any, plan: Path, *, version_compatible: bool = False) -> trt.ICudaEngine:
    """Deserialize a plan. Raises EngineError with TensorRT's reasons when it does not load."""
    messages = library.Messages()
    runtime = trt.Runtime(library.logger(trt, messages))
    if version_compatible:
        runtime.engine_host_code_allowed = True  # such a plan carries its own runtime; it was built here
    engine = runtime.deserialize_cuda_engine(plan.read_bytes())
    if engine is None:
        raise EngineError(
            f"TensorRT {trt.__version__} does not load {plan.name}{messages.reasons}",
            remedy="build it again",
            file=plan.name,
        )
    return engine


def layers_json(trt: Any, engine: trt.ICudaEngine) -> str:
    """The engine inspector's description of every layer, as JSON text."""
    inspector = engine.create_engine_inspector()
    text: str = inspector.get_engine_information(trt.LayerInformationFormat.JSON)
    return text


class EngineStation:
    """An engine with one optimization profile as a `Predict`: named arrays in, named arrays out.

    Raises EngineError for a tensor type that numpy lacks, an input that is missing, a shape outside the profile, or
    outputs whose shape depends on the data.
    """

    def __init__(self, trt: Any, engine: trt.ICudaEngine, device: Device, profile: int = 0) -> None:
        self._device = device
        self._context = make_context(engine, device, profile)
        self._inputs: dict[str, Any] = {}
        self._outputs: dict[str, Any] = {}
        for index in range(engine.num_io_tensors):
            name = engine.get_tensor_name(index)
            is_input = engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT
            kind = engine.get_tensor_dtype(name)
            try:
                (self._inputs if is_input else self._outputs)[name] = trt.nptype(kind)
            except TypeError:  # BF16 and FP8 have no numpy type
                raise EngineError(
                    f"tensor '{name}' is {kind}, which numpy has no type for",
                    remedy="keep inputs and outputs in FP32 or FP16",
                    tensor=name,
                    found=kind,
                ) from None

    def __call__(self, arrays: Arrays) -> dict[str, Array]:
        context: trt.IExecutionContext = self._context
        missing = self._inputs.keys() - arrays.keys()
        if missing:
            raise EngineError(
                f"the engine needs the inputs {sorted(missing)}: the station was given {sorted(arrays)}",
                tensor=min(missing),
                found=sorted(arrays),
            )
        for name, dtype in self._inputs.items():
            values = np.ascontiguousarray(arrays[name], dtype)
            if not context.set_input_shape(name, tuple(values.shape)):
                raise EngineError(
                    f"input '{name}' of shape {list(values.shape)} is outside the engine's profile",
                    tensor=name,
                    found=list(values.shape),
                )
            address = self._device.buffer(name, values.nbytes)
            self._device.upload(address, values)
            context.set_tensor_address(name, address)
        unknown = context.infer_shapes()
        shapes = {name: tuple(context.get_tensor_shape(name)) for name in self._outputs}
        if unknown or any(-1 in shape for shape in shapes.values()):
            raise EngineError(
                f"the shapes of {sorted(self._outputs)} depend on the data",
                remedy="serve the ONNX model",
                tensor=min(self._outputs),
            )
        for name, dtype in self._outputs.items():
            size = int(np.prod(shapes[name])) * np.dtype(dtype).itemsize
            context.set_tensor_address(name, self._device.buffer(name, size))
        if not context.execute_async_v3(self._device.stream):
            raise EngineError("TensorRT could not run the engine", remedy="see its log")
        self._device.wait()
        return {
            name: self._device.download(self._device.buffer(name, 0), shapes[name], dtype)
            for name, dtype in self._outputs.items()
        }


def make_context(engine: trt.ICudaEngine, device: Device, profile: int) -> trt.IExecutionContext:
    """An execution context on one profile. Raises EngineError when the GPU has no room for it."""
    context = engine.create_execution_context()
    if context is None:
        raise EngineError("TensorRT gave no execution context: the GPU's memory is probably full (`nvidia-smi`)")
    if profile and not context.set_optimization_profile_async(profile, device.stream):
        raise EngineError(f"TensorRT refused profile {profile}: the engine has {engine.num_optimization_profiles}")
    device.wait()
    return context


def latency_ms(station: Predict, arrays: Arrays) -> float:
    """The median of 30 calls in ms, copies included, by the host's clock, after 5 that do not count."""
    for _ in range(5):
        station(arrays)
    durations = []
    for _ in range(TIMED_RUNS):
        began = time.perf_counter()
        station(arrays)
        durations.append((time.perf_counter() - began) * 1e3)
    return median(durations)
