"""What the proof ran on: the GPU with its driver and clocks, the CPU, and the version of every part."""

from __future__ import annotations

import contextlib
import importlib.metadata
import subprocess
from typing import Any

from export import gpu
from loadtests.hardware import describe_hardware

PACKAGES = (
    "nvidia-pytriton", "tritonclient", "onnxruntime-gpu", "onnxruntime", "torch", "tensorrt", "tensorrt-cu13", "numpy",
    "onnx", "cuda-bindings", "grpcio", "transformers",
)  # fmt: skip
FIELDS = {
    "name": "name",
    "driver": "driver_version",
    "compute_capability": "compute_cap",
    "memory": "memory.total",
    "power_limit": "power.limit",
    "ecc": "ecc.mode.current",
    "mig": "mig.mode.current",
    "pcie_generation": "pcie.link.gen.current",
    "pcie_width": "pcie.link.width.current",
    "sm_clock": "clocks.sm",
    "memory_clock": "clocks.mem",
    "largest_sm_clock": "clocks.max.sm",
    "largest_memory_clock": "clocks.max.mem",
    "temperature": "temperature.gpu",
}
"""Our word -> nvidia-smi's."""
CHANGING = ("sm_clock", "memory_clock", "temperature")


def describe() -> dict[str, Any]:
    """The machine as JSON; `gpu` is None where there is none."""
    versions = {}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return {"gpu": read_gpu(), "hardware": describe_hardware(), "versions": versions}


def read_gpu(words: tuple[str, ...] = tuple(FIELDS)) -> dict[str, str] | None:
    """The first GPU's state now, by our words; fields that this driver does not know are left out."""
    if gpu.find() is None:
        return None
    found: dict[str, str] = {}
    together = _ask(",".join(FIELDS[word] for word in words))
    if together is not None and len(together) == len(words):
        return dict(zip(words, together, strict=True))
    for word in words:  # one unknown field makes nvidia-smi refuse them all
        answer = _ask(FIELDS[word])
        if answer:
            found[word] = answer[0]
    return found


def _ask(query: str) -> list[str] | None:
    command = ["nvidia-smi", "--id=0", f"--query-gpu={query}", "--format=csv,noheader"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    return [part.strip() for part in told.splitlines()[0].split(",")] if told.strip() else None
