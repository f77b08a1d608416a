"""Shared memory in a call: which tensors go through it, and what is registered at the server."""

from __future__ import annotations

import contextlib
import functools
import math
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any, Protocol

from tritonclient.grpc import service_pb2

from . import codec, errors
from .addresses import is_balanced
from .codec import Outputs
from .datatypes import NUMPY_TYPE, Array
from .options import Headers, Retries
from .placement import Place, Placement
from .retries import Budget, is_retryable
from .servers import Server
from .shared_memory import ALIGNMENT, Pool, Region, SharedMemoryUnavailableError, dead_names
from .spec import ModelSpec

# Tensors of fewer bytes travel in the message: docs/guides/shared-memory.md has the measurement.
WORTH_BYTES = 128 * 1024
UNREGISTER_TIMEOUT_S = 2.0
CLOSING_PAUSES_S = (0.005, 0.02, 0.1, 0.0)
# The server has answered by itself, so it is done with the region.
_SERVERS_OWN = (
    errors.InvalidInputError,
    errors.ModelNotFoundError,
    errors.ModelNotReadyError,
    errors.OverloadedError,
    errors.ServerError,
)
Offset = int
ByteSize = int


class Caller(Protocol):
    """What a pool needs of the connection whose tensors it carries."""

    endpoint: str
    retries: Retries
    budget: Budget

    def within_s(self, timeout_s: float | None) -> float:
        """How long a call may take."""

    @property
    def call(self) -> Callable[..., Coroutine[Any, Any, Any]]:
        """Send a request; see `Connection.call`."""

    @property
    def pause(self) -> Callable[[float], Coroutine[Any, Any, None]]:
        """Wait for some seconds."""


class RegionPool:
    """The shared memory of one client (`shared_memory="system"`), and the server's knowledge of it."""

    def __init__(self, kind: str, addresses: Sequence[str], *, worth_bytes: int = WORTH_BYTES) -> None:
        if len(addresses) > 1 or is_balanced(addresses[0]):
            raise ValueError("shared memory is for one server on this machine: name it, or leave shared_memory out")
        if kind != "system":
            raise ValueError(f"shared_memory is {kind!r}: pass 'system', or leave it out")
        self._pool = Pool()
        self._swept = False
        self._worth_bytes = max(worth_bytes, 1)

    async def infer(
        self,
        connection: Caller,
        spec: ModelSpec,
        inputs: Mapping[str, Any],
        timeout_s: float | None,
        headers: Headers | None,
        server: Server | None,
        content: Mapping[str, Any],
    ) -> Outputs:
        """Infer through shared memory where possible; `content` are the other arguments of `codec.encode`."""
        timeout_s = connection.within_s(timeout_s)
        limits: dict[str, Any] = {"timeout_s": timeout_s, "deadline_s": time.monotonic() + timeout_s}
        call: Callable[..., Coroutine[Any, Any, bytes]] = functools.partial(
            connection.call, "ModelInfer", model=spec.name, headers=headers, server=server, **limits
        )
        outputs = content.get("outputs")
        outputs = [outputs] if isinstance(outputs, str) else outputs
        arrays = codec.check(spec, inputs, outputs)
        encode = functools.partial(codec.encode, spec, arrays, **content)
        wanted = () if content.get("classes") else spec.outputs if outputs is None else outputs
        for _ in range(2):  # again where the server was restarted and knows no region
            lent = await self._lend(connection, spec, arrays, wanted, limits["deadline_s"])
            if lent is None:
                break
            take_back = self._pool.retire  # after any end but the server's own, it may still write to the region
            try:
                answer = codec.decode(spec, await call(encode(placed=lent), retry=False), lent)
                take_back = self._pool.give_back
                return answer
            except errors.ModelNotFoundError as error:
                if "Unable to find shared memory region" not in error.details:
                    take_back = self._pool.give_back
                    raise
                self._pool.retire_idle()
            except errors.UnreachableError as error:
                again = spec.repeatable and is_retryable(error, connection.retries)
                if not (again and connection.budget.affords(error)):
                    raise
                break
            except _SERVERS_OWN as error:
                if error.status != "CANCELLED" and error.source == "server":
                    take_back = self._pool.give_back
                raise
            finally:
                take_back(lent.memory)
        return codec.decode(spec, await call(encode(), retry=spec.repeatable))

    async def _lend(
        self,
        connection: Caller,
        spec: ModelSpec,
        arrays: Mapping[str, Array],
        outputs: Iterable[str],
        deadline_s: float,
    ) -> Placement | None:
        """Copy the arrays that are worth it into a region that the server knows, and set room for outputs aside.

        None where nothing is, or no region can be had now: then the message carries everything. Raises
        SharedMemoryUnavailableError where the server or this machine will not share memory at all.
        """
        worth = [name for name, array in arrays.items() if _input_size(array) >= self._worth_bytes]
        raws = {name: codec.raw_bytes(spec, name, arrays[name]) for name in worth}
        sizes = {name: size for name in outputs if (size := output_size(spec, name, arrays)) >= self._worth_bytes}
        if not raws and not sizes:
            return None
        offsets = _lay_out([*(len(raw) for raw in raws.values()), *sizes.values()])
        lent = self._pool.lend(offsets[-1])
        if lent is None:
            return None
        region, new = lent
        placed = Placement(region)
        try:
            if new and not (await self._register(connection, region, deadline_s)):
                self._pool.retire(region)
                return None
            place = iter(offsets)
            for name, raw in raws.items():
                placed.inputs[name] = Place(region.name, len(raw), next(place))
                region.write(placed.inputs[name].offset, raw)
            for name, size in sizes.items():
                placed.outputs[name] = Place(region.name, size, next(place))
        except BaseException:
            self._pool.retire(region)
            raise
        return placed

    def renew(self) -> None:
        """Begin without regions, in a fork: those there are belong to its parent."""
        self._pool, self._swept = Pool(), False

    def discard(self) -> None:
        """Give the memory back without unregistering it at a server."""
        for region in self._pool.close():
            region.discard()

    async def close(self, connection: Caller) -> None:
        """Unregister every region by its name and give the memory back."""
        regions = self._pool.close()
        try:
            for pause_s in CLOSING_PAUSES_S:
                answered = await self._unregister(connection, regions)
                if not (waiting := self._pool.retired()):
                    break
                regions = waiting
                if not answered:
                    break
                await connection.pause(pause_s)  # a request is released a moment after its answer
        finally:
            for region in regions:
                region.discard()

    async def _register(self, connection: Caller, region: Region, deadline_s: float) -> bool:
        """Whether the server knows the region now. Lets go of retired ones, and once of those of dead processes."""
        if not self._swept:
            self._swept = True
            await self._sweep(connection, deadline_s)
        await self._unregister(connection, self._pool.retired(), deadline_s)
        try:
            await connection.call(
                "SystemSharedMemoryRegister", region.registration(), retry=False, deadline_s=deadline_s
            )
        except errors.InferenceError as error:
            if (reason := _refusal(error, connection.endpoint)) is not None:
                raise SharedMemoryUnavailableError(reason, endpoint=connection.endpoint, status=error.status) from error
            return False
        region.registered()
        return True

    async def _unregister(self, connection: Caller, regions: Iterable[Region], deadline_s: float = math.inf) -> bool:
        """Whether the server answers; from one that hangs they are to be taken once it goes on."""
        gone = hangs = False
        until_s = min(deadline_s, time.monotonic() + UNREGISTER_TIMEOUT_S)
        for region in regions:
            in_use = hangs
            if not (gone or hangs):
                try:
                    await self._unregister_one(connection, region.name, until_s)
                except errors.InferenceError as error:
                    hangs = isinstance(error, errors.DeadlineExceededError)
                    in_use = hangs or "currently in use" in error.details
                    gone = not in_use and not isinstance(error, _SERVERS_OWN)
            if in_use:
                self._pool.still_in_use(region)
            else:
                region.discard()
        return not hangs

    @staticmethod
    async def _unregister_one(connection: Caller, name: str, deadline_s: float) -> None:
        request = service_pb2.SystemSharedMemoryUnregisterRequest(name=name)
        await connection.call("SystemSharedMemoryUnregister", request, retry=False, deadline_s=deadline_s)

    async def _sweep(self, connection: Caller, deadline_s: float) -> None:
        """Let the server unmap what killed processes of this machine had registered."""
        status = service_pb2.SystemSharedMemoryStatusRequest()
        with contextlib.suppress(errors.InferenceError):  # the registration that follows says what is wrong
            known = await connection.call("SystemSharedMemoryStatus", status, retry=False, deadline_s=deadline_s)
            for name in dead_names(known.regions):
                with contextlib.suppress(errors.ServerError):  # a request of the dead is still using it
                    await self._unregister_one(connection, name, deadline_s)


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


def _input_size(array: Array) -> int:
    return sum(map(len, array.flat)) + 4 * array.size if array.dtype.kind == "O" else array.nbytes


def _refusal(error: errors.InferenceError, endpoint: str) -> str | None:
    """Why a server will never accept a region, and what to do; None where another try may succeed."""
    details = error.details or str(error)
    if "allow-client-shm" in details or "shared memory is disabled" in details:
        return (
            f"{endpoint} has shared memory switched off, the default since Triton 26.04: start it with "
            "--allow-client-shm=true, or leave shared_memory out"
        )
    if "protocol is restricted" in details:
        header = details.partition("expecting header '")[2].partition("'")[0] or "triton-grpc-protocol-..."
        return (
            f"{endpoint} restricts shared memory (--grpc-restricted-protocol=shared-memory:...): pass "
            f"headers={{'{header}': ...}}, or leave shared_memory out"
        )
    if "Unable to open shared memory region" in details:
        return (
            f"{endpoint} cannot open this process's regions: run both on one machine and as one user, containers "
            "with a common --ipc, or leave shared_memory out"
        )
    if error.status == "UNIMPLEMENTED":
        return f"{endpoint} has no shared-memory extension: leave shared_memory out"
    return f"{endpoint} refused to share memory: {details}" if isinstance(error, _SERVERS_OWN) else None
