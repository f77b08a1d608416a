"""A small repository of our own (a scaling model, a python model in front, an ensemble) and a recipe for its model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper
from small_models import write_onnx

from export.graph.signature import from_onnx
from export.recipe.limits import Figure, Tolerance
from export.recipe.recipe import BUNDLED, Evaluation, Recipe, Source, Weights
from export.repository.manifest import Manifest, file_records

SCALE_CONFIG = """\
name: "scale"                     # three numbers in, three out
backend: "onnxruntime"
default_model_filename: "model.onnx"
max_batch_size: 8

input [
  {
    name: "x"
    data_type: TYPE_FP32
    dims: [ 3 ]
  }
]
output [
  {
    name: "y"
    data_type: TYPE_FP32
    dims: [ 3 ]
    label_filename: "labels.txt"
  }
]

dynamic_batching {
  preferred_batch_size: [ 4, 8 ]
  default_queue_policy {
    max_queue_size: 64
    default_timeout_microseconds: 1000000
    allow_timeout_override: true
  }
}

instance_group [ { count: 1 kind: KIND_CPU } ]

parameters { key: "intra_op_thread_count" value { string_value: "1" } }

model_warmup [
  {
    name: "one"
    batch_size: 1
    inputs { key: "x" value { data_type: TYPE_FP32 dims: [ 3 ] zero_data: true } }
  }
]
"""

PREPARE_CONFIG = """\
backend: "python"
max_batch_size: 8
input [ { name: "raw" data_type: TYPE_FP32 dims: [ 3 ] } ]
output [ { name: "x" data_type: TYPE_FP32 dims: [ 3 ] } ]
dynamic_batching { default_queue_policy { max_queue_size: 64 default_timeout_microseconds: 1000000 } }
instance_group [ { count: 1 kind: KIND_CPU } ]
parameters { key: "gain" value { string_value: "2" } }
"""

PYTHON_MODEL = "class TritonPythonModel: ...\n"

CHAIN_CONFIG = """\
platform: "ensemble"
max_batch_size: 8
input [ { name: "raw" data_type: TYPE_FP32 dims: [ 3 ] } ]
output [ { name: "y" data_type: TYPE_FP32 dims: [ 3 ] } ]
ensemble_scheduling {
  step [
    {
      model_name: "prepare"
      model_version: -1
      input_map { key: "raw" value: "raw" }
      output_map { key: "x" value: "prepared" }
    },
    {
      model_name: "scale"
      model_version: -1
      input_map { key: "x" value: "prepared" }
      output_map { key: "y" value: "y" }
    }
  ]
}
"""


def write_scale(path: Path, *, gain: float = 2.0, inputs: str = "x", shape: tuple[str | int, ...] = ("n", 3)) -> None:
    """An ONNX file that multiplies `x` FP32 [n, 3] by `gain` into `y`."""
    constant = helper.make_node(
        "Constant", [], ["gain"], value=helper.make_tensor("gain", TensorProto.FLOAT, [1], [gain])
    )
    write_onnx(
        path,
        [constant, helper.make_node("Mul", [inputs, "gain"], ["y"])],
        [(inputs, TensorProto.FLOAT, list(shape))],
        [("y", TensorProto.FLOAT, list(shape))],
    )


def write_repository(repository: Path) -> Path:
    """The models `scale`, `prepare` and `chain`, with a manifest beside scale's artefact."""
    scale = repository / "scale"
    write_scale(scale / "1" / "model.onnx")
    (scale / "config.pbtxt").write_text(SCALE_CONFIG)
    (scale / "labels.txt").write_text("low\nmiddle\nhigh\n")
    for name, config in (("prepare", PREPARE_CONFIG), ("chain", CHAIN_CONFIG)):
        (repository / name / "1").mkdir(parents=True)
        (repository / name / "config.pbtxt").write_text(config)
    (repository / "prepare" / "1" / "model.py").write_text(f'PARAMETERS = {{"gain": "a factor"}}\n{PYTHON_MODEL}')
    names = ("1/model.onnx", "labels.txt")
    Manifest(
        model="scale",
        created="2026-11-22T00:00:00Z",
        files=file_records({name: scale / name for name in names}),
        build={},
        source={"sha256": "1" * 64},
        signature=from_onnx(scale / "1" / "model.onnx")[0],
    ).write(scale / "1" / "manifest.json")
    return repository


def replace(path: Path, old: str, new: str) -> None:
    """Put `new` for `old`, which the file must hold exactly once, into a new file of that name."""
    text = path.read_text()
    assert text.count(old) == 1, f"{path.name} has {old!r} {text.count(old)} times"
    path.unlink()
    path.write_text(text.replace(old, new))


def tree(folder: Path) -> dict[str, bytes]:
    """Every file of a folder with its bytes."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class Scale(Recipe):
    """A recipe for the small `scale` model: what an export does, without torch and in milliseconds."""

    name = "scale"
    summary = "three numbers doubled"
    figures = (Figure("hit_rate", "fraction of rows doubled", tolerance=0.1),)
    tolerance = Tolerance(max_abs=1e-6, min_cosine=0.999)

    def __init__(self, weights: Path, onnx_gain: float = 2.0, name: str = "x", shape: tuple[str | int, ...] = ("n", 3)):
        self.weights = weights
        self.onnx_gain = onnx_gain
        self.input = name
        self.shape = shape

    def resolve(self, weights: str | None) -> Weights:
        return Weights(
            "a file", {"gain.txt": self.weights}, custom=weights not in (None, BUNDLED), explicit=weights is not None
        )

    def load(self, weights: Weights) -> Source:
        def predict(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
            return {"y": arrays["x"] * np.float32(2)}

        def write_onnx(path: Path) -> None:
            write_scale(path, gain=self.onnx_gain, inputs=self.input, shape=self.shape)

        width = self.shape[1]
        labels = tuple(f"label {index}" for index in range(width)) if weights.custom else ("low", "middle", "high")
        return Source(predict, write_onnx, self.evaluation(), {"labels.txt": labels})

    def evaluation(self) -> Evaluation:
        width = self.shape[1]
        assert isinstance(width, int)
        return Evaluation({"x": np.arange(10 * width, dtype=np.float32).reshape(10, width)})

    def score(self, outputs, evaluation, source=None) -> dict[str, float]:
        return {"hit_rate": float(np.isclose(outputs["y"], evaluation.inputs["x"] * 2).all(axis=1).mean())}

    def interpret(self, outputs, labels=()) -> list[str]:
        return [str(row) for row in outputs["y"]]
