"""Counts of work against the figures that papers and model zoos state."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from small_models import write_onnx

from export.errors import ExportError
from fathom.proof import graph_cost, resnet50

LIGHT = Path(onnx.__file__).parent / "backend/test/data/light"
STATED_GMACS = {"resnet50": 4.1, "squeezenet": 0.35, "inception_v1": 1.5}


@pytest.mark.parametrize("name", STATED_GMACS)
def test_the_light_models_have_the_gmacs_that_are_stated_for_them(name):
    path = LIGHT / f"light_{name}.onnx"
    graph = onnx.load(str(path)).graph
    (given,) = {each.name for each in graph.input} - {each.name for each in graph.initializer}
    found = graph_cost.count(path, {given: np.zeros((1, 3, 224, 224), np.float32)})
    assert found.macs / 1e9 == pytest.approx(STATED_GMACS[name], rel=0.06)


@pytest.mark.slow
def test_mobilenet_v2_at_224_has_three_hundred_million(tmp_path):
    import torch
    from transformers import MobileNetV2Config, MobileNetV2ForImageClassification

    from export.onnx_file import write_torch

    model = MobileNetV2ForImageClassification(MobileNetV2Config()).eval()

    class Logits(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, pixels):
            return self.model(pixels).logits

    path = tmp_path / "mobilenet.onnx"
    write_torch(Logits().eval(), {"pixels": torch.zeros(2, 3, 224, 224)}, {"pixels": {0: "batch"}}, "logits_out", path)
    found = graph_cost.count(path, {"pixels": np.zeros((1, 3, 224, 224), np.float32)})
    assert found.macs / 1e9 == pytest.approx(0.3, rel=0.05)


def product(tmp_path, kind=TensorProto.FLOAT):
    """y [n, 5] = x [n, 4] @ w [4, 5]."""
    path = tmp_path / "model.onnx"
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    weight = onnx.numpy_helper.from_array(np.ones((4, 5), dtype), "w")
    nodes = [helper.make_node("Constant", [], ["w"], value=weight), helper.make_node("MatMul", ["x", "w"], ["y"])]
    write_onnx(path, nodes, [("x", kind, ["n", 4])], [("y", kind, ["n", 5])])
    return path, {"x": np.ones((1, 4), dtype)}


@pytest.mark.parametrize(("kind", "word", "size"), [(TensorProto.FLOAT, "fp32", 4), (TensorProto.FLOAT16, "fp16", 2)])
def test_a_product_counts_its_weights_once_and_its_activations_per_row(tmp_path, kind, word, size):
    (found,) = graph_cost.count(*product(tmp_path, kind)).products
    assert (found.macs, found.kind) == (20, word)
    assert found.weight_bytes == 20 * size
    assert found.activation_bytes == 9 * size
    assert found.bytes(10) == (20 + 90) * size


def test_the_bound_takes_the_longer_of_moving_and_multiplying(tmp_path):
    cost = graph_cost.count(*product(tmp_path))
    moving, _ = cost.seconds(1, bytes_per_s=116.0, macs_per_s={"fp32": 1e9})
    assert moving == pytest.approx(1.0)
    multiplying, by_memory = cost.seconds(2, bytes_per_s=1e12, macs_per_s={"fp32": 20.0})
    assert multiplying == pytest.approx(2.0)
    assert by_memory == 0


def test_int8_operands_count_one_byte_each(tmp_path):
    path = tmp_path / "model.onnx"
    constants = {"scale": np.float32(0.1), "zero": np.uint8(0), "w": np.ones((4, 5), np.int8), "of_w": np.int8(0)}
    nodes = [
        *(helper.make_node("Constant", [], [name], value=onnx.numpy_helper.from_array(np.array(value), name))
          for name, value in constants.items()),
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["dx"]),
        helper.make_node("DequantizeLinear", ["w", "scale", "of_w"], ["dw"]),
        helper.make_node("MatMul", ["dx", "dw"], ["y"]),
    ]  # fmt: skip
    write_onnx(path, nodes, [("x", TensorProto.FLOAT, ["n", 4])], [("y", TensorProto.FLOAT, ["n", 5])])
    (found,) = graph_cost.count(path, {"x": np.ones((1, 4), np.float32)}).products
    assert (found.kind, found.macs) == ("int8", 20)
    assert found.weight_bytes == 20
    assert found.activation_bytes == 4 + 5 * 4


@pytest.mark.slow
def test_resnet50_in_int8_has_a_quarter_of_the_weights(tmp_path):
    full = tmp_path / "fp32"
    resnet50.write(full, rows=1)
    resnet50.write_reduced(full / "resnet50", tmp_path / "int8", "int8", tmp_path)
    example = {"pixels": np.zeros((1, 3, 224, 224), np.float32)}
    whole = graph_cost.count(full / "resnet50/1/model.onnx", example)
    reduced = graph_cost.count(tmp_path / "int8/resnet50/1/model.onnx", example)
    assert reduced.macs == whole.macs
    weights = [sum(product.weight_bytes for product in cost.products) for cost in (whole, reduced)]
    assert weights[0] / weights[1] == pytest.approx(4, rel=0.01)


def test_work_that_is_not_counted_is_refused_by_name(tmp_path):
    path = tmp_path / "model.onnx"
    nodes = [helper.make_node("Einsum", ["x", "x"], ["y"], equation="ij,ij->i")]
    write_onnx(path, nodes, [("x", TensorProto.FLOAT, ["n", 4])], [("y", TensorProto.FLOAT, ["n"])])
    with pytest.raises(ExportError, match="Einsum, whose work is not counted"):
        graph_cost.count(path, {"x": np.ones((1, 4), np.float32)})
