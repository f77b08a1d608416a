"""ResNet-50 from the onnx package's light models: the graph with a dynamic batch, and weights made here.

The light models carry constants instead of trained weights, which would make every answer the same. Random weights of
ordinary magnitude cost as much to run and let answers be compared; there is no accuracy to speak of.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from export.float16 import HalfPrecision
from export.measure import Reference
from export.onnx_file import session
from export.quantize import Quantization
from export.recipe import Evaluation, Reduced, Tolerance

NAME, LIGHT = "resnet50", "backend/test/data/light/light_resnet50.onnx"
INPUT, OUTPUT = "pixels", "probabilities"
OPSET = 17
ROWS, CALIBRATION_ROWS = 64, 8
SPREAD = 2.0  # standard deviation of the logits
RULE = Reduced(Tolerance(1.0, 0.0))
CONFIG = f"""# ResNet-50 of the onnx package's light models, with a dynamic batch and random weights.
name: "{NAME}"
backend: "onnxruntime"
default_model_filename: "model.onnx"
max_batch_size: 64
input [ {{ name: "{INPUT}" data_type: TYPE_FP32 dims: [ 3, 224, 224 ] }} ]
output [ {{ name: "{OUTPUT}" data_type: TYPE_FP32 dims: [ 1000 ] }} ]
dynamic_batching {{ }}
instance_group [ {{ count: 2 kind: KIND_AUTO }} ]
"""


def write(repository: Path, *, rows: int = ROWS) -> None:
    """Write the FP32 model folder into a repository, with the rows it is judged on."""
    import onnx

    folder = repository / NAME
    (folder / "1").mkdir(parents=True)
    (folder / "config.pbtxt").write_text(CONFIG, encoding="utf-8")
    model = make_model()
    _tell_apart(model)
    onnx.save(model, str(folder / "1" / "model.onnx"))
    evaluation = Evaluation({INPUT: _pictures(rows, seed=1)})
    predict = session(folder / "1" / "model.onnx")
    parts = [predict(batch)[OUTPUT] for batch in evaluation.batches(8)]
    Reference(evaluation, {OUTPUT: np.concatenate(parts)}).write(folder / "1" / "reference.npz")


def write_reduced(full: Path, repository: Path, precision: str, room: Path) -> None:
    """The same at "fp16" or "int8", from the FP32 folder, by the code that exports the bundled models."""
    folder = repository / NAME
    (folder / "1").mkdir(parents=True)
    for name in ("config.pbtxt", "1/reference.npz"):
        (folder / name).write_bytes((full / name).read_bytes())
    target = folder / "1" / "model.onnx"
    if precision == "fp16":
        HalfPrecision(full / "1" / "model.onnx", RULE, ()).write(target)
        return
    calibration = Evaluation({INPUT: _pictures(CALIBRATION_ROWS, seed=2)})
    Quantization(full / "1" / "model.onnx", calibration, RULE, (), room).write(target)


def make_model() -> Any:
    """The ONNX model. Each residual branch ends in a small scale, as trained ones do, so that sixteen add up."""
    import onnx
    from onnx import helper, numpy_helper, version_converter

    light = onnx.load(str(Path(onnx.__file__).parent / LIGHT))
    graph = light.graph
    initial = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    generator = np.random.default_rng(0)
    weights = {
        node.output[0]: _weight(node.output[0], tuple(initial[node.input[0]]), generator)
        for node in graph.node
        if node.op_type == "ConstantOfShape"
    }
    made = {**{name: values for name, values in initial.items() if not name.endswith("__SHAPE")}, **weights}
    kept = [node for node in graph.node if node.op_type != "ConstantOfShape"]
    for node in kept:
        if node.op_type == "BatchNormalization":
            _set_statistics(node, made)
        if node.op_type == "Reshape":  # [1, 2048]: the batch was part of it
            made[node.input[1]] = np.array([-1, 2048], np.int64)
    used = {name for node in kept for name in node.input}
    source, target = graph.input[0].name, graph.output[0].name
    for node in kept:
        node.input[:] = [INPUT if name == source else name for name in node.input]
        node.output[:] = [OUTPUT if name == target else name for name in node.output]
        node.name = node.output[0].replace("/", "_")
    whole = helper.make_graph(
        kept,
        NAME,
        [helper.make_tensor_value_info(INPUT, onnx.TensorProto.FLOAT, ["batch", 3, 224, 224])],
        [helper.make_tensor_value_info(OUTPUT, onnx.TensorProto.FLOAT, ["batch", 1000])],
        [numpy_helper.from_array(values, name) for name, values in made.items() if name in used and name != source],
    )
    model = helper.make_model(whole, opset_imports=[helper.make_opsetid("", 9)], ir_version=8)
    model = version_converter.convert_version(model, OPSET)
    onnx.checker.check_model(model)
    return model


def _tell_apart(model: Any) -> None:
    """Shift and scale the last layer so that pictures get different labels: untrained features are nearly alike."""
    from onnx import numpy_helper

    logarithms = np.log(session(model.SerializeToString())({INPUT: _pictures(8, seed=3)})[OUTPUT] + 1e-12)
    mean = logarithms.mean(axis=0)
    factor = SPREAD / float((logarithms - mean).std())
    for tensor in model.graph.initializer:
        if tensor.name.endswith("pred_w_0"):
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(factor), tensor.name))
        elif tensor.name.endswith("pred_b_0"):
            tensor.CopyFrom(numpy_helper.from_array((-factor * mean).astype(np.float32), tensor.name))


def _weight(name: str, shape: tuple[int, ...], generator: np.random.Generator) -> Any:
    """He's initialisation for what multiplies; the rest is set by what uses it."""
    if len(shape) < 2:
        return np.zeros(shape, np.float32)
    return (generator.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))).astype(np.float32)


def _set_statistics(node: Any, made: dict[str, Any]) -> None:
    scale, bias, mean, variance = node.input[1:5]
    last_of_branch = "branch2c" in scale
    made[scale] = np.full(made[scale].shape, 0.3 if last_of_branch else 1.0, np.float32)
    made[bias], made[mean] = (np.zeros(made[name].shape, np.float32) for name in (bias, mean))
    made[variance] = np.ones(made[variance].shape, np.float32)


def _pictures(count: int, *, seed: int) -> Any:
    """Smooth random fields, normalised: what a picture's statistics are like, unlike white noise."""
    coarse = np.random.default_rng(seed).standard_normal((count, 3, 14, 14)).astype(np.float32)
    fine = coarse.repeat(16, axis=2).repeat(16, axis=3)
    return np.ascontiguousarray(fine)
