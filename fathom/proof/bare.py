"""ONNX Runtime without a server, bound to its device: the loop that everything served is a share of."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from export.recipe import Array, Arrays

PROVIDERS = {"cuda": "CUDAExecutionProvider", "cpu": "CPUExecutionProvider"}
WARM_RUNS = 3


class FallbackError(Exception):
    """ONNX Runtime did not take the device it was asked for: nothing it does may be called a result of that device."""


class Bare:
    """A session of a graph on "cuda" or "cpu". Raises FallbackError where ONNX Runtime falls back to another device."""

    def __init__(self, onnx_file: Path, device: str, *, profile: Path | None = None) -> None:
        import onnxruntime

        self._runtime = onnxruntime
        self.device = device
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        if profile is not None:
            options.enable_profiling = True
            options.profile_file_prefix = str(profile)
        providers: list[Any] = [PROVIDERS["cpu"]]
        if device == "cuda":
            onnxruntime.preload_dlls()
            providers = [(PROVIDERS["cuda"], {"device_id": 0}), *providers]
        self.session = onnxruntime.InferenceSession(str(onnx_file), options, providers=providers)
        require(self.session.get_providers(), device)
        self.outputs = [output.name for output in self.session.get_outputs()]

    def __call__(self, arrays: Arrays) -> dict[str, Array]:
        """Named arrays in host memory in, and out."""
        return dict(zip(self.outputs, self.session.run(self.outputs, dict(arrays)), strict=True))

    def from_host(self, arrays: Arrays) -> Callable[[], Any]:
        """A run whose inputs come from host memory and whose outputs go there."""
        return lambda: self.session.run(self.outputs, dict(arrays))

    def on_device(self, arrays: Arrays) -> Callable[[], Any]:
        """A run whose inputs and outputs stay in the device's memory."""
        make = self._runtime.OrtValue.ortvalue_from_numpy
        binding = self.session.io_binding()
        held = {name: make(np.ascontiguousarray(array), self.device, 0) for name, array in arrays.items()}
        for name, value in held.items():
            binding.bind_ortvalue_input(name, value)
        for name in self.outputs:
            binding.bind_output(name, self.device, 0)

        def run() -> None:
            self.session.run_with_iobinding(binding)
            binding.synchronize_outputs()

        run.held = held  # type: ignore[attr-defined]  # a binding does not keep its inputs alive
        return run


def require(given: list[str], device: str) -> None:
    """Raise FallbackError unless a session's first provider is the device's."""
    if not given or given[0] != PROVIDERS[device]:
        raise FallbackError(
            f"ONNX Runtime was asked for {PROVIDERS[device]} and runs on {', '.join(given) or 'nothing'}: this is no "
            f"{device.upper()} result"
        )


def rate_per_s(run: Callable[[], Any], seconds: float) -> float:
    """Runs a second over about `seconds`, after three that do not count."""
    for _ in range(WARM_RUNS):
        run()
    count, began = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - began) < seconds:
        run()
        count += 1
    return count / elapsed


def nodes_by_provider(onnx_file: Path, device: str, arrays: Arrays, room: Path) -> dict[str, int]:
    """How many operators each execution provider ran, from a profile of one run."""
    bare = Bare(onnx_file, device, profile=room / "profile")
    bare(arrays)
    path = Path(bare.session.end_profiling())
    events = json.loads(path.read_text(encoding="utf-8"))
    path.unlink()
    named = {
        event["name"]: event["args"]["provider"]
        for event in events
        if event.get("cat") == "Node" and event.get("args", {}).get("provider")
    }
    return dict(Counter(named.values()))
