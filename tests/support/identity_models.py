"""Model folders that answer each input, of whatever type and shape, with itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

CODE = """
import json
import time

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        config = json.loads(args["model_config"])
        tensors = config["input"]
        self.sleeps = "sleeps" in config["parameters"]
        self.without_numpy_type = {tensor["name"] for tensor in tensors if tensor["data_type"] == "TYPE_BF16"}

    def execute(self, requests):
        return [
            pb_utils.InferenceResponse([self.echo(tensor) for tensor in request.inputs()]) for request in requests
        ]

    def echo(self, tensor):
        if tensor.name() in self.without_numpy_type:
            return pb_utils.Tensor.from_dlpack(tensor.name() + "_out", tensor.to_dlpack())
        array = tensor.as_numpy()
        if self.sleeps:
            time.sleep(float(array.flat[0]))
        return pb_utils.Tensor(tensor.name() + "_out", array)
"""


def write_identity(
    folder: Path,
    inputs: Mapping[str, tuple[str, list[int]]],
    *,
    max_batch_size: int = 0,
    optional: bool = False,
    sleeps: bool = False,
    instances: int = 1,
) -> Path:
    """A python model that gives `<name>_out` for each input `name: (datatype, dims)`; returns the folder.

    With `sleeps` an answer takes as many seconds as the first number of the input.
    """
    lines = [
        f'backend: "python"\nmax_batch_size: {max_batch_size}\n',
        f"instance_group [ {{ count: {instances} kind: KIND_CPU }} ]\n",
        "dynamic_batching {}\n" if max_batch_size else "",
    ]
    if sleeps:
        lines.append('parameters { key: "sleeps" value: { string_value: "" } }\n')
    for name, (datatype, dims) in inputs.items():
        kind = "TYPE_STRING" if datatype == "BYTES" else f"TYPE_{datatype}"
        extra = " optional: true" if optional else ""
        lines.append(f'input [ {{ name: "{name}" data_type: {kind} dims: {dims}{extra} }} ]\n')
        lines.append(f'output [ {{ name: "{name}_out" data_type: {kind} dims: {dims} }} ]\n')
    (folder / "1").mkdir(parents=True)
    (folder / "config.pbtxt").write_text("".join(lines))
    (folder / "1" / "model.py").write_text(CODE)
    return folder
