"""Regions of memory shared with a server on this machine: large tensors go through them instead of the wire.

A region is a POSIX shared-memory object that the server maps when it is registered. Its name leaves /dev/shm as soon as
the server has it, so that nothing is left there however this process ends; what remains is the server's own mapping,
which `close` gives back by name. Names say who made them (`fathom-client-<pid namespace>-<pid>-<start time>-<random>`),
so that `sweep` and `dead_names` can tell the leftovers of killed processes, on this machine and in a server, from what
belongs to living ones, even where a process id was given out again. `multiprocessing.shared_memory`, on which
tritonclient's helpers rest, is not used: its resource tracker unlinks the regions of other processes.
"""

from __future__ import annotations

import mmap
import os
import secrets
import threading
import weakref
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from tritonclient.grpc import service_pb2

from .datatypes import Array
from .errors import InferenceError

FOLDER = Path("/dev/shm")
PREFIX = "fathom-client-"
ALIGNMENT = 64  # of tensors within a region: what vector instructions and DLPack consumers want
MOST_IDLE = 64  # regions kept for reuse
MOST_RETIRED = 64  # regions that a server may still be using after their call was given up


class SharedMemoryUnavailableError(InferenceError):
    """The server or this machine cannot share memory; the message says what to change."""

    label = "SharedMemoryUnavailable"


class Region:
    """One POSIX shared-memory object of `byte_size` bytes, reserved when it is made."""

    def __init__(self, byte_size: int) -> None:
        self.name = new_name()
        self.byte_size = byte_size
        descriptor = os.open(FOLDER / self.name, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
        self._unlink = weakref.finalize(self, _unlink, self.name, os.getpid())  # runs at exit too
        try:
            os.posix_fallocate(descriptor, 0, byte_size)  # a full /dev/shm is an error here, not a SIGBUS later
            self._bytes = np.frombuffer(mmap.mmap(descriptor, byte_size), np.uint8)
        except OSError as error:
            self.discard()
            raise SharedMemoryUnavailableError(
                f"no room for a region of {byte_size / 1e6:.1f} MB in {FOLDER} ({error.strerror}): make it larger "
                "(docker run --shm-size) or keep fewer requests in flight"
            ) from error
        finally:
            os.close(descriptor)

    def write(self, offset: int, data: Any) -> None:
        """Copy a buffer of bytes in."""
        source = np.frombuffer(data, np.uint8)
        self._bytes[offset : offset + source.size] = source

    def read(self, offset: int, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Array:
        """A copy of the tensor at `offset`: the region serves the next call while the caller keeps the answer."""
        return np.ndarray(shape, dtype, self._bytes, offset).copy()

    def registration(self) -> service_pb2.SystemSharedMemoryRegisterRequest:
        """The request that makes the region known to the server."""
        return service_pb2.SystemSharedMemoryRegisterRequest(
            name=self.name, key=f"/{self.name}", offset=0, byte_size=self.byte_size
        )

    def registered(self) -> None:
        """The server has mapped it: the name has done its work."""
        self.discard()

    def discard(self) -> None:
        """Remove the name; the memory goes when nobody maps it any more."""
        self._unlink()


class Pool:
    """Regions of one client, reused by size. Thread-safe, and without I/O to the server.

    A region is lent for one call (`lend`) and comes back with `give_back` after an answer, or with `retire` when the
    call was given up: the server may then still read or write it, so it is not used again.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: dict[int, deque[Region]] = {}
        self._lent: set[Region] = set()
        self._retired: deque[Region] = deque()
        sweep()

    def lend(self, byte_size: int) -> tuple[Region, bool] | None:
        """A region of at least `byte_size` bytes, and whether it is new and so has to be registered first.

        None when too many regions wait for the server to let go of them. Raises SharedMemoryUnavailableError.
        """
        size = size_class(byte_size)
        with self._lock:
            if waiting := self._idle.get(size):
                region = waiting.pop()
                self._lent.add(region)
                return region, False
            if len(self._retired) >= MOST_RETIRED:
                return None
            region = Region(size)
            self._lent.add(region)
            return region, True

    def give_back(self, region: Region) -> None:
        """Keep a region whose call was answered for the next call."""
        with self._lock:
            if region not in self._lent:
                return  # the pool was closed meanwhile
            self._lent.remove(region)
            if sum(map(len, self._idle.values())) >= MOST_IDLE:
                self._retired.append(next(waiting for waiting in self._idle.values() if waiting).popleft())
            self._idle.setdefault(region.byte_size, deque()).append(region)

    def retire(self, region: Region) -> None:
        """Never use a region again: its call was given up, or the server does not know it."""
        with self._lock:
            if region in self._lent:
                self._lent.remove(region)
                self._retired.append(region)

    def retire_idle(self) -> None:
        """Never use the waiting regions again: the server has restarted and knows none of them."""
        with self._lock:
            self._retired.extend(region for waiting in self._idle.values() for region in waiting)
            self._idle.clear()

    def retired(self) -> list[Region]:
        """Regions to unregister at the server and then to discard, each handed out once."""
        with self._lock:
            regions = list(self._retired)
            self._retired.clear()
            return regions

    def still_in_use(self, region: Region) -> None:
        """The server did not unregister a retired region, because a request is still using it."""
        with self._lock:
            self._retired.append(region)

    def close(self) -> list[Region]:
        """All regions, to unregister and discard; a call that is still running loses its own."""
        self.retire_idle()
        with self._lock:
            self._retired.extend(self._lent)
            self._lent.clear()
        return self.retired()


def size_class(byte_size: int) -> int:
    """`byte_size` rounded up to one of four sizes per power of two, whole pages: at most a quarter is unused."""
    step = max(mmap.PAGESIZE, 1 << max((byte_size - 1).bit_length() - 3, 0))
    return -(-byte_size // step) * step


def new_name() -> str:
    """A region name that identifies the process that made it."""
    return f"{PREFIX}{_namespace()}-{os.getpid()}-{_start_time('self')}-{secrets.token_hex(4)}"


def sweep() -> list[str]:
    """Remove the regions that killed processes left in /dev/shm; returns their names."""
    removed = dead_names(path.name for path in FOLDER.glob(PREFIX + "*"))
    for name in removed:
        (FOLDER / name).unlink(missing_ok=True)
    return removed


def _unlink(name: str, owner: int) -> None:
    if os.getpid() == owner:  # not in a fork of it
        (FOLDER / name).unlink(missing_ok=True)


def dead_names(names: Iterable[str]) -> list[str]:
    """The `names` that a process of this machine and pid namespace made which no longer lives."""
    own = _namespace()
    dead = []
    for name in names:
        if not name.startswith(PREFIX):
            continue
        namespace, pid, start, *_ = [*name.removeprefix(PREFIX).split("-"), "", ""]
        if namespace == own and pid.isdigit() and _start_time(pid) != start:
            dead.append(name)
    return dead


def _start_time(pid: str) -> str:
    """Clock ticks from boot to the start of a process, "" for one that is gone or a zombie. See proc(5)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    state, threads, start = fields[0], fields[17], fields[19]
    return "" if state in "ZX" and int(threads) <= 1 else start


def _namespace() -> str:
    return str(Path("/proc/self/ns/pid").stat().st_ino)
