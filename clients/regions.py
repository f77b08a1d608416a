"""Shared memory in a call: which tensors go through it, and what the server has to be told. Without I/O, as steps."""

from __future__ import annotations

import atexit
import contextlib
import inspect
import math
import os
import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from tritonclient.grpc import service_pb2

from clients import codec, errors
from clients.codec import Placement
from clients.datatypes import NUMPY_TYPE, Array
from clients.shared_memory import ALIGNMENT, Pool, Region, SharedMemoryUnavailable, SystemRegion, dead_names
from clients.spec import ModelSpec

if TYPE_CHECKING:
    from clients.connection import Connection, Steps

    AnyConnection = Connection[Any, Any, Any]

# Tensors of fewer bytes travel in the message: docs/shared-memory.md has the measurement.
WORTH_BYTES = 128 * 1024
UNREGISTER_TIMEOUT_S = 2.0
CLOSING_PAUSES_S = (0.005, 0.02, 0.1, 0.0)
# The server has answered by itself, so it is done with the region; after any other end it may still write to it.
_SERVERS_OWN = (
    errors.InvalidInput, errors.ModelNotFound, errors.ModelNotReady, errors.Overloaded, errors.ServerError,
)  # fmt: skip
_users: weakref.WeakSet[AnyConnection] = weakref.WeakSet()
Offset = int
ByteSize = int


class RegionPool:
    """The shared memory of one client (`shared_memory="system"` or `"cuda"`), and the server's knowledge of it."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._pool = Pool(_maker(kind))
        self._swept = False

    def lend(
        self,
        connection: AnyConnection,
        spec: ModelSpec,
        arrays: Mapping[str, Array],
        outputs: Iterable[str],
    ) -> Steps[Placement | None]:
        """Copy the arrays that are worth it into a region that the server knows, and set room for outputs aside.

        None where nothing is, or no region can be had now: then the message carries everything. Raises
        SharedMemoryUnavailable where the server or this machine will not share memory at all.
        """
        raws = {name: codec.raw_bytes(spec, name, array) for name, array in arrays.items() if _is_worth_it(array)}
        sizes = {name: size for name in outputs if (size := output_size(spec, name, arrays)) >= max(WORTH_BYTES, 1)}
        if not raws and not sizes:
            return None
        offsets = _lay_out([*(len(raw) for raw in raws.values()), *sizes.values()])
        lent = self._pool.lend(offsets[-1])
        if lent is None:
            return None
        region, new = lent
        placed = Placement(region)
        try:
            if new and not (yield from self._register(connection, region)):
                self._pool.retire(region)
                return None
            place = iter(offsets)
            for name, raw in raws.items():
                placed.inputs[name] = codec.Region(region.name, len(raw), next(place))
                region.write(placed.inputs[name].offset, raw)
            for name, size in sizes.items():
                placed.outputs[name] = codec.Region(region.name, size, next(place))
        except BaseException:
            self._pool.retire(region)
            raise
        return placed

    def take_back(self, lent: Placement, end: BaseException | None) -> None:
        """The call is over: answered, or ended by `end`."""
        if end is None or (isinstance(end, _SERVERS_OWN) and end.status != "CANCELLED"):
            self._pool.give_back(lent.memory)
        else:
            self._pool.retire(lent.memory)

    def forget(self, lent: Placement) -> None:
        """The server has restarted: it knows no region any more."""
        self._pool.retire(lent.memory)
        self._pool.retire_idle()

    def is_own(self) -> bool:
        """Whether this process made the regions, and not one that it was forked from."""
        return self._pool.owner == os.getpid()

    def close(self, connection: AnyConnection) -> Steps[None]:
        """Unregister every region by its name and give the memory back."""
        regions = self._pool.close()
        try:
            for pause_s in CLOSING_PAUSES_S:
                yield from self._unregister(connection, regions)
                if not (waiting := self._pool.retired()):
                    break
                regions = waiting
                yield from _pause(pause_s)  # a request is released a moment after its answer
        finally:
            for region in regions:
                region.discard()

    def _register(self, connection: AnyConnection, region: Region) -> Steps[bool]:
        """Whether the server knows the region now. Lets go of retired ones, and once of those of dead processes."""
        if not self._swept:
            self._swept = True
            yield from self._sweep(connection, region.kind)
        yield from self._unregister(connection, self._pool.retired())
        try:
            yield from connection.call(f"{region.kind}SharedMemoryRegister", region.registration(), retry=False)
        except errors.InferenceError as error:
            if (reason := _refusal(error, connection.endpoint)) is not None:
                raise SharedMemoryUnavailable(reason, endpoint=connection.endpoint, status=error.status) from error
            return False
        region.registered()
        _users.add(connection)
        return True

    def _unregister(self, connection: AnyConnection, regions: Iterable[Region]) -> Steps[None]:
        gone = False
        for region in regions:
            if not gone:
                request = getattr(service_pb2, f"{region.kind}SharedMemoryUnregisterRequest")(name=region.name)
                try:
                    yield from connection.call(
                        f"{region.kind}SharedMemoryUnregister", request, retry=False, timeout_s=UNREGISTER_TIMEOUT_S
                    )
                except errors.InferenceError as error:
                    if "currently in use" in error.details:
                        self._pool.still_in_use(region)
                        continue
                    gone = not isinstance(error, _SERVERS_OWN)
            region.discard()

    def _sweep(self, connection: AnyConnection, kind: str) -> Steps[None]:
        """Let the server unmap what killed processes of this machine had registered."""
        status = getattr(service_pb2, f"{kind}SharedMemoryStatusRequest")()
        with contextlib.suppress(errors.InferenceError):  # the registration that follows says what is wrong
            known = yield from connection.call(f"{kind}SharedMemoryStatus", status, retry=False)
            for name in dead_names(known.regions):
                with contextlib.suppress(errors.ServerError):  # a request of the dead is still using it
                    request = getattr(service_pb2, f"{kind}SharedMemoryUnregisterRequest")(name=name)
                    yield from connection.call(f"{kind}SharedMemoryUnregister", request, retry=False)


@atexit.register
def _close_at_exit() -> None:
    """Unregister what clients that nobody closed have registered; those of asyncio have no loop any more."""
    for connection in list(_users):
        run = getattr(connection, "run", None)
        if connection.pool is not None and connection.pool.is_own() and not inspect.iscoroutinefunction(run):
            with contextlib.suppress(Exception):
                connection.run(connection.pool.close(connection))


def _pause(seconds: float) -> Steps[None]:
    from clients.connection import Pause

    yield Pause(seconds)


def forgot_regions(error: errors.InferenceError) -> bool:
    """Whether the server does not know the region of a request: it was started after the registration."""
    return "Unable to find shared memory region" in error.details


def output_size(spec: ModelSpec, name: str, arrays: Mapping[str, Array]) -> int:
    """Bytes of an output before it is computed; 0 where the model leaves that open."""
    tensor = spec.outputs[name]
    if tensor.datatype == "BYTES" or min(tensor.dims, default=0) < 0:
        return 0
    batch = next(iter(arrays.values())).shape[0] if spec.batched and arrays else 1
    return batch * math.prod(tensor.dims) * NUMPY_TYPE[tensor.datatype].itemsize


def _lay_out(sizes: Iterable[ByteSize]) -> list[Offset]:
    """Where each of the tensors begins, and the size of all."""
    offsets = [0]
    for size in sizes:
        offsets.append(offsets[-1] + -(-size // ALIGNMENT) * ALIGNMENT)
    return offsets


def _is_worth_it(array: Array) -> bool:
    if array.dtype.kind == "O":
        return sum(map(len, array.flat)) + 4 * array.size >= WORTH_BYTES
    return array.nbytes >= WORTH_BYTES


def _refusal(error: errors.InferenceError, endpoint: str) -> str | None:
    """Why a server will never take a region, and what to do; None for what another try may mend."""
    said = error.details or str(error)
    if "allow-client-shm" in said or "shared memory is disabled" in said:
        return (
            f"{endpoint} has shared memory switched off, the default since Triton 26.04: start it with "
            "--allow-client-shm=true, or leave shared_memory out"
        )
    if "protocol is restricted" in said:
        header = said.partition("expecting header '")[2].partition("'")[0] or "triton-grpc-protocol-..."
        return (
            f"{endpoint} restricts shared memory (--grpc-restricted-protocol=shared-memory:...): pass "
            f"headers={{'{header}': ...}}, or leave shared_memory out"
        )
    if "Unable to open shared memory region" in said:
        return (
            f"{endpoint} cannot open this process's regions: run both on one machine and as one user, containers "
            "with a common --ipc, or leave shared_memory out"
        )
    if error.status == "UNIMPLEMENTED":
        return f"{endpoint} has no shared-memory extension: leave shared_memory out"
    return f"{endpoint} refused to share memory: {said}" if isinstance(error, _SERVERS_OWN) else None


def _maker(kind: str) -> Callable[[int], Region]:
    if kind == "system":
        return SystemRegion
    if kind != "cuda":
        raise ValueError(f"shared_memory is '{kind}': choose 'system' or 'cuda'")
    from clients.cuda_memory import CudaRegion

    CudaRegion(1).discard()  # says at once where there is no GPU
    return CudaRegion
