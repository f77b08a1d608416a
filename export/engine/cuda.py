"""The part of the CUDA driver that one engine needs: memory, copies, one stream.

Called through ctypes because the driver is there wherever an engine can run, and no further package need be.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from export.errors import EngineError, EngineUnavailableError
from export.recipe.recipe import Array

LIBRARY = "libcuda.so.1"
_POINTER, _SIZE = ctypes.c_uint64, ctypes.c_size_t
_CALLS: dict[str, tuple[Any, ...]] = {
    "cuInit": (ctypes.c_uint,),
    "cuDeviceGet": (ctypes.POINTER(ctypes.c_int), ctypes.c_int),
    "cuDevicePrimaryCtxRetain": (ctypes.POINTER(ctypes.c_void_p), ctypes.c_int),
    "cuCtxSetCurrent": (ctypes.c_void_p,),
    "cuMemAlloc_v2": (ctypes.POINTER(_POINTER), _SIZE),
    "cuMemFree_v2": (_POINTER,),
    "cuMemcpyHtoD_v2": (_POINTER, ctypes.c_void_p, _SIZE),
    "cuMemcpyDtoH_v2": (ctypes.c_void_p, _POINTER, _SIZE),
    "cuStreamCreate": (ctypes.POINTER(ctypes.c_void_p), ctypes.c_uint),
    "cuStreamSynchronize": (ctypes.c_void_p,),
    "cuStreamDestroy_v2": (ctypes.c_void_p,),
}


class Device:
    """GPU 0 with a stream, in the context that TensorRT uses too; `close` gives everything back.

    Raises EngineUnavailableError where there is no driver, EngineError where a call of it fails.
    """

    def __init__(self, library: str = LIBRARY) -> None:
        try:
            self._driver = ctypes.CDLL(library)
        except OSError as error:
            raise EngineUnavailableError(f"the CUDA driver cannot be loaded ({error})") from None
        for name, types in _CALLS.items():
            getattr(self._driver, name).argtypes = types
        self._buffers: dict[str, tuple[int, int]] = {}
        device, context, stream = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_void_p()
        self._call("cuInit", 0)
        self._call("cuDeviceGet", ctypes.byref(device), 0)
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        self._call("cuCtxSetCurrent", context)
        self._call("cuStreamCreate", ctypes.byref(stream), 0)
        self.stream = int(stream.value or 0)

    def buffer(self, name: str, size: int) -> int:
        """The address of the named buffer, which is made, or grown, to at least `size` bytes."""
        address, held = self._buffers.get(name, (0, 0))
        if held < max(size, 1):
            self._free(name)
            pointer = _POINTER()
            self._call("cuMemAlloc_v2", ctypes.byref(pointer), max(size, 1))
            address = pointer.value
            self._buffers[name] = (address, max(size, 1))
        return address

    def upload(self, address: int, values: Array) -> None:
        """Copy a contiguous array to the GPU."""
        if values.nbytes:
            self._call("cuMemcpyHtoD_v2", address, values.ctypes.data, values.nbytes)

    def download(self, address: int, shape: tuple[int, ...], dtype: Any) -> Array:
        """Copy an array from the GPU."""
        values = np.empty(shape, dtype)
        if values.nbytes:
            self._call("cuMemcpyDtoH_v2", values.ctypes.data, address, values.nbytes)
        return values

    def wait(self) -> None:
        """Wait for everything on the stream."""
        self._call("cuStreamSynchronize", self.stream)

    def close(self) -> None:
        """Free the buffers and the stream. The context stays: it is the process's."""
        for name in list(self._buffers):
            self._free(name)
        self._call("cuStreamDestroy_v2", self.stream)

    def _free(self, name: str) -> None:
        address, _ = self._buffers.pop(name, (0, 0))
        if address:
            self._call("cuMemFree_v2", address)

    def _call(self, name: str, *arguments: Any) -> None:
        status = getattr(self._driver, name)(*arguments)
        if status != 0:
            raise EngineError(f"the CUDA driver's {name} failed with CUresult {status}", remedy="see `nvidia-smi`")
