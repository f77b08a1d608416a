"""One configuration to try with `fathom check` and with Triton, and the blocks that cases are written with."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from onnx import TensorProto, helper
from small_models import write_onnx

X = 'input [ { name: "x" data_type: TYPE_FP32 dims: [ 2 ] } ]'
Y = 'output [ { name: "y" data_type: TYPE_FP32 dims: [ 2 ] } ]'
CPU = "instance_group [ { count: 1 kind: KIND_CPU } ]"
PYTHON, ONNX = 'backend: "python"', 'backend: "onnxruntime"'

MODEL_PY = """\
import triton_python_backend_utils as pb_utils

PARAMETERS = {"gain"}


class TritonPythonModel:
    def execute(self, requests):
        answers = []
        for request in requests:
            x = pb_utils.get_input_tensor_by_name(request, "x")
            answers.append(pb_utils.InferenceResponse([pb_utils.Tensor("y", x.as_numpy())]))
        return answers
"""


@dataclass(frozen=True, eq=False)
class Case:
    """A model folder by a sentence: what Triton does with it, and what `check` says.

    `loads` is Triton's answer. `rule` and `field` are those of the error that `check` reports; without a rule it
    reports no error. `files` are the folder's files beside config.pbtxt; a graph stands for an ONNX file. `gap` is what
    the embedded backend may lack beside the official one, which `loads` is about.
    """

    why: str
    loads: bool
    config: str | None
    files: Mapping[str, str | Graph]
    rule: str = ""
    field: str = ""
    gap: str = ""

    @property
    def name(self) -> str:
        """The model's name: the sentence without what a folder's name cannot hold."""
        return re.sub(r"\W+", "_", self.why.lower())

    @property
    def is_complete(self) -> bool:
        """Whether nothing is left to Triton to complete, which takes a second process of the backend."""
        parts = ("input [", "output [", "max_batch_size:", "instance_group [")
        return re.match("backend:", self.config or "") is not None and all(part in str(self.config) for part in parts)

    def write(self, repository: Path) -> None:
        """Write the model folder."""
        folder = repository / self.name
        folder.mkdir()
        if self.config is not None:
            (folder / "config.pbtxt").write_text(self.config)
        for name, content in self.files.items():
            path = folder / name
            if name.endswith("/"):
                path.mkdir(parents=True)
            elif isinstance(content, Graph):
                content.write(path)
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(content)


Shape = list[int | str]


@dataclass(frozen=True)
class Graph:
    """A small ONNX graph: its nodes as (operator, inputs, outputs), and tensors as name -> shape or (type, shape)."""

    nodes: tuple[tuple[str, list[str], list[str]], ...] = (("Add", ["x", "x"], ["y"]),)
    inputs: Mapping[str, Shape | tuple[int, Shape]] = field(default_factory=lambda: {"x": ["n", 2]})
    outputs: Mapping[str, Shape | tuple[int, Shape]] = field(default_factory=lambda: {"y": ["n", 2]})
    initializers: Mapping[str, list[float]] = field(default_factory=dict)

    def write(self, path: Path) -> None:
        """Write the ONNX file."""
        write_onnx(
            path,
            [helper.make_node(*node) for node in self.nodes],
            [_tensor(*row) for row in self.inputs.items()],
            [_tensor(*row) for row in self.outputs.items()],
            [helper.make_tensor(name, TensorProto.FLOAT, [len(v)], v) for name, v in self.initializers.items()],
        )


def _tensor(name: str, what: Shape | tuple[int, Shape]) -> tuple[str, int, Shape]:
    return (name, *what) if isinstance(what, tuple) else (name, TensorProto.FLOAT, what)


def model(
    more: str = "", *, backend: str = PYTHON, batch: int = 8, x: str = X, y: str = Y, instances: str = CPU
) -> str:
    """The text of a config.pbtxt: of a python model that batches, unless told otherwise."""
    return "\n".join((backend, f"max_batch_size: {batch}", x, y, instances, more))


def tensor(kind: str, body: str) -> str:
    """An `input` or `output` block of one tensor; the body is all but name and type."""
    return f'{kind} [ {{ name: "{"x" if kind == "input" else "y"}" data_type: TYPE_FP32 {body} }} ]'


def two(kind: str, other: str, more: str = "") -> str:
    """An `input` or `output` block of two tensors alike; `more` is the second one's."""
    alike = "data_type: TYPE_FP32 dims: [ 2 ]"
    first = "x" if kind == "input" else "y"
    return f'{kind} [ {{ name: "{first}" {alike} }}, {{ name: "{other}" {alike} {more} }} ]'


def served(
    why: str, config: str | None = None, files: Mapping[str, str | Graph] | None = None, *, gap: str = ""
) -> Case:
    """Triton serves it, and check reports no error."""
    return Case(why, True, config, _files(config, files), gap=gap)


def stricter(why: str, rule: str, field: str, config: str, files: Mapping[str, str | Graph] | None = None) -> Case:
    """Triton serves it, and check reports an error on purpose."""
    return Case(why, True, config, _files(config, files), rule, field)


def refused(
    why: str,
    rule: str,
    field: str,
    config: str | None,
    files: Mapping[str, str | Graph] | None = None,
    *,
    gap: str = "",
) -> Case:
    """Triton refuses it, and check reports an error."""
    return Case(why, False, config, _files(config, files), rule, field, gap)


def _files(config: str | None, files: Mapping[str, str | Graph] | None) -> Mapping[str, str | Graph]:
    if files is not None:
        return files
    if config and "ensemble" in config:
        return {"1/": ""}
    return {"1/model.onnx": Graph()} if config and "onnx" in config else {"1/model.py": MODEL_PY}
