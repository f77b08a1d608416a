"""Tensors that stay on an instance's device: taken from Triton as DLPack, bound to the session, given back as DLPack.

Between two models of an ensemble on one GPU nothing then passes through host memory; a tensor that is in host memory is
copied by ONNX Runtime, and one that leaves the server by Triton. The same code runs on the CPU, where it saves nothing.
"""

from __future__ import annotations

import ctypes

import onnxruntime as ort
import triton_python_backend_utils as pb_utils
from fathom_ragged import Ragged
from fathom_signature import controls, states
from fathom_split import require_rows


class DeviceIO:
    """Runs of one session with inputs and outputs on `device`, "cuda" or "cpu"."""

    @staticmethod
    def takes(session, config):
        """Whether this model can be run so. Texts have no DLPack form; the others go through host memory as yet."""
        tensors = [*session.get_inputs(), *session.get_outputs()]
        plain = all(tensor.type != "tensor(string)" and tensor.shape for tensor in tensors)
        optional = any(tensor.get("optional") for tensor in config["input"])
        return plain and not optional and not Ragged(config) and not states(config) and not list(controls(config))

    def __init__(self, session, device, device_id, config):
        self._session = session
        self._device, self._device_id = device, device_id
        self._inputs = [tensor["name"] for tensor in config["input"]]
        self._outputs = [tensor["name"] for tensor in config["output"]]
        self._batched = config["max_batch_size"] > 0
        self._memory = CudaMemory(device_id) if device == "cuda" else HostMemory()

    def run(self, requests, run_options):
        """One list of output tensors per request, of the outputs that it asks for; the requests run as one batch.

        Raises ValueError where their shapes do not form a batch, SplitError where the outputs' are none, and whatever
        ONNX Runtime does.
        """
        parts = {name: [_value(request, name) for request in requests] for name in self._inputs}
        rows = [part.shape()[0] for part in parts[self._inputs[0]]] if self._batched else [None]
        binding = self._session.io_binding()
        held = []  # a binding does not keep alive what it points to
        for name, values in parts.items():
            held.append(self._joined(name, values))
            binding.bind_ortvalue_input(name, held[-1])
        for name in self._outputs:
            binding.bind_output(name, self._device, self._device_id)
        self._memory.wait()  # ONNX Runtime's stream does not wait for the copies above
        binding.synchronize_inputs()
        self._session.run_with_iobinding(binding, run_options)
        binding.synchronize_outputs()
        outputs = dict(zip(self._outputs, binding.get_outputs(), strict=True))
        splittable = self._outputs if len(requests) > 1 else requests[0].requested_output_names()
        for name in splittable if self._batched else ():
            require_rows(name, outputs[name].shape(), sum(rows))
        answers, start = [], 0
        for request, count in zip(requests, rows, strict=True):
            wanted = set(request.requested_output_names())
            answers.append(
                [
                    _tensor(name, value if len(requests) == 1 else self._rows(value, start, count))
                    for name, value in outputs.items()
                    if name in wanted
                ]
            )
            start += count or 0
        self._memory.wait()
        return answers

    def _joined(self, name, values):
        """The requests' tensors one behind the other, on the device."""
        if len(values) == 1:
            return values[0]
        shapes = {tuple(value.shape()[1:]) for value in values}
        if len(shapes) > 1:
            raise ValueError(f"the shapes of '{name}' do not form a batch: {sorted(shapes)}")
        whole = self._new([sum(value.shape()[0] for value in values), *shapes.pop()], values[0].element_type())
        at = whole.data_ptr()
        for value in values:
            self._memory.copy(at, value.data_ptr(), value.tensor_size_in_bytes())
            at += value.tensor_size_in_bytes()
        return whole

    def _rows(self, whole, start, count):
        """A copy of some rows of an output, since a DLPack tensor begins where its memory does."""
        shape = whole.shape()
        size = whole.tensor_size_in_bytes() // shape[0]
        part = self._new([count, *shape[1:]], whole.element_type())
        self._memory.copy(part.data_ptr(), whole.data_ptr() + start * size, count * size)
        return part

    def _new(self, shape, element_type):
        return ort.OrtValue.ortvalue_from_shape_and_type(shape, element_type, self._device, self._device_id)


class HostMemory:
    """Copies within this process's memory."""

    def copy(self, to, source, size):
        ctypes.memmove(to, source, size)

    def wait(self):
        """Nothing: every copy is done when it returns."""


class CudaMemory:
    """Copies to and within one GPU's memory, by the driver that ONNX Runtime uses too."""

    def __init__(self, device_id):
        self._driver = ctypes.CDLL("libcuda.so.1")
        self._driver.cuMemcpy.argtypes = (ctypes.c_uint64, ctypes.c_uint64, ctypes.c_size_t)
        device, context = ctypes.c_int(), ctypes.c_void_p()
        self._call("cuInit", 0)
        self._call("cuDeviceGet", ctypes.byref(device), device_id)
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        self._context = context

    def copy(self, to, source, size):
        """Either side may be host memory: addresses are unified."""
        if size:
            self._call("cuCtxSetCurrent", self._context)
            self._call("cuMemcpy", to, source, size)

    def wait(self):
        """Until every copy is done: between two places on the GPU they are not when they return."""
        self._call("cuCtxSetCurrent", self._context)
        self._call("cuCtxSynchronize")

    def _call(self, name, *arguments):
        status = getattr(self._driver, name)(*arguments)
        if status:
            raise RuntimeError(f"the CUDA driver's {name} failed with CUresult {status}")


def _value(request, name):
    return ort.OrtValue.from_dlpack(pb_utils.get_input_tensor_by_name(request, name))


def _tensor(name, value):
    if value.tensor_size_in_bytes() == 0:  # Triton refuses the strides of an empty DLPack tensor
        return pb_utils.Tensor(name, value.numpy())
    return pb_utils.Tensor.from_dlpack(name, value)
