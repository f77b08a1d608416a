"""Model folders that answer each input, of whatever type and shape, with itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

CODE = """
import json

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        tensors = json.loads(args["model_config"])["input"]
        self.without_numpy_type = {tensor["name"] for tensor in tensors if tensor["data_type"] == "TYPE_BF16"}

    def execute(self, requests):
        return [
            pb_utils.InferenceResponse([self.echo(tensor) for tensor in request.inputs()]) for request in requests
        ]

    def echo(self, tensor):
        if tensor.name() in self.without_numpy_type:
            return pb_utils.Tensor.from_dlpack(tensor.name() + "_out", tensor.to_dlpack())
        return pb_utils.Tensor(tensor.name() + "_out", tensor.as_numpy())
"""


def write_identity(
    folder: Path, inputs: Mapping[str, tuple[str, list[int]]], *, max_batch_size: int = 0, optional: bool = False
) -> Path:
    """A python model that gives `<name>_out` for each input `name: (datatype, dims)`; returns the folder."""
    lines = [f'backend: "python"\nmax_batch_size: {max_batch_size}\n']
    for name, (datatype, dims) in inputs.items():
        kind = "TYPE_STRING" if datatype == "BYTES" else f"TYPE_{datatype}"
        extra = " optional: true" if optional else ""
        lines.append(f'input [ {{ name: "{name}" data_type: {kind} dims: {dims}{extra} }} ]\n')
        lines.append(f'output [ {{ name: "{name}_out" data_type: {kind} dims: {dims} }} ]\n')
    (folder / "1").mkdir(parents=True)
    (folder / "config.pbtxt").write_text("".join(lines))
    (folder / "1" / "model.py").write_text(CODE)
    return folder
