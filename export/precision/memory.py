"""Return memory to the system between two steps of an export, so that their peaks do not add up."""

from __future__ import annotations

import ctypes
import gc


def release() -> None:
    """Collect what nothing refers to (a torch module is full of cycles) and hand free pages of the heap back."""
    gc.collect()
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):  # glibc; elsewhere the allocator decides
        libc.malloc_trim(0)
