"""Regions of GPU memory shared with a server on the same machine, through CUDA's inter-process handles.

Written against cuda-bindings 12 and 13, whose names and error values were checked without a GPU; no request has gone
through it on one yet.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from tritonclient.grpc import service_pb2

from clients.datatypes import Array
from clients.shared_memory import SharedMemoryUnavailable, new_name

BLOCK = 2 << 20  # a handle always opens a whole allocation block: smaller ones would share it with other data


class CudaRegion:
    """`byte_size` bytes on one GPU. The driver frees them when this process ends, however it ends."""

    kind = "Cuda"

    def __init__(self, byte_size: int, device: int = 0) -> None:
        self._cuda = _runtime()
        self.name = new_name()
        self.byte_size = byte_size
        self.device = device
        self._call("cudaSetDevice", device)
        self._address: int | None = int(self._call("cudaMalloc", -(-byte_size // BLOCK) * BLOCK))

    def write(self, offset: int, data: Any) -> None:
        """Copy a buffer of host bytes to the GPU."""
        source = np.frombuffer(data, np.uint8)
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call("cudaMemcpy", self._at(offset), source.ctypes.data, source.size, kind)

    def read(self, offset: int, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Array:
        """A copy in host memory of the tensor at `offset`."""
        array = np.empty(shape, dtype)
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call("cudaMemcpy", array.ctypes.data, self._at(offset), array.nbytes, kind)
        return array

    def registration(self) -> service_pb2.CudaSharedMemoryRegisterRequest:
        """The request that makes the region known to the server."""
        handle = self._call("cudaIpcGetMemHandle", self._at(0))
        raw = ctypes.string_at(handle.getPtr(), self._cuda.CUDA_IPC_HANDLE_SIZE)
        return service_pb2.CudaSharedMemoryRegisterRequest(
            name=self.name, raw_handle=raw, device_id=self.device, byte_size=self.byte_size
        )

    def registered(self) -> None:
        """The server has opened the handle; nothing to do."""

    def discard(self) -> None:
        """Free the memory; CUDA wants the server to have closed its handle before."""
        if self._address is not None:
            address, self._address = self._address, None
            self._call("cudaFree", address)

    def _at(self, offset: int) -> int:
        if self._address is None:
            raise SharedMemoryUnavailable(f"the GPU region {self.name} was freed: the client is closed")
        return self._address + offset

    def _call(self, function: str, *arguments: Any) -> Any:
        status, *results = getattr(self._cuda, function)(*arguments)
        if int(status) != 0:
            raise SharedMemoryUnavailable(f"{function} failed with {status.name}{_hint(status.name)}")
        return results[0] if results else None


def _hint(error: str) -> str:
    if error in ("cudaErrorInsufficientDriver", "cudaErrorNoDevice"):
        return ': no usable NVIDIA GPU here; choose shared_memory="system"'
    return ": keep fewer requests in flight" if error == "cudaErrorMemoryAllocation" else ""


def _runtime() -> Any:
    try:
        import cuda.bindings.runtime as runtime  # type: ignore[import-not-found]
    except ImportError:
        raise SharedMemoryUnavailable(
            'shared_memory="cuda" needs the package cuda-bindings (pip install cuda-bindings) and an NVIDIA GPU'
        ) from None
    return runtime
