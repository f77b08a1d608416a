"""The ceilings of a roofline, measured on the device itself with torch: bytes copied and multiplications a second."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from fathom.proof.settings import Settings

TIMES = 7


@dataclass(frozen=True)
class Ceilings:
    """`bytes_per_s` counts reading and writing. `macs_per_s` has fp32 (TF32 where the device has it), fp16 and int8."""

    bytes_per_s: float
    macs_per_s: dict[str, float]
    strict_fp32_macs_per_s: float

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary."""
        return asdict(self)


def measure(settings: Settings) -> Ceilings:
    """Copy and multiply on the settings' device, the best of seven each: a ceiling is what was reached once."""
    import torch

    device = settings.device
    wait: Callable[[], Any] = torch.cuda.synchronize if device == "cuda" else (lambda: None)
    copied = _copied_per_s(torch, settings.copy_mb << 20, device, wait)
    size = settings.product_size

    def product(dtype: Any, tf32: bool) -> float:
        torch.backends.cuda.matmul.allow_tf32 = tf32
        if dtype == torch.int8:
            one = torch.randint(-9, 9, (size, size), dtype=dtype, device=device)
            return float(size**3 / _best(lambda: torch._int_mm(one, one.t()), wait))
        one = torch.randn(size, size, dtype=dtype, device=device)
        return float(size**3 / _best(lambda: one @ one, wait))

    strict = product(torch.float32, False)
    rates = {
        "fp32": max(strict, product(torch.float32, True)),
        "fp16": product(torch.float16, True),
        "int8": product(torch.int8, True),
    }
    return Ceilings(copied, rates, strict)


def _copied_per_s(torch: Any, size: int, device: str, wait: Callable[[], Any]) -> float:
    source = torch.empty(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return float(2 * size / _best(lambda: target.copy_(source), wait))


def _best(run: Callable[[], Any], wait: Callable[[], Any]) -> float:
    """Seconds of the fastest of several runs of a few."""
    run()
    wait()
    began = time.perf_counter()
    run()
    wait()
    few = max(1, int(0.02 / max(time.perf_counter() - began, 1e-6)))
    taken = []
    for _ in range(TIMES):
        began = time.perf_counter()
        for _ in range(few):
            run()
        wait()
        taken.append((time.perf_counter() - began) / few)
    return min(taken)
