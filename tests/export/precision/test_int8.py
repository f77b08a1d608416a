"""INT8 graphs: what is chosen, with which types, and that the real models gain speed and keep their answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from product_model import Product, rows, weights, write_product
from scale_model import write_scale

from export import recipes
from export.errors import AccuracyError, ExportError
from export.graph import onnx_file, onnx_stream, signature
from export.models.pictures import digits
from export.models.text import minilm
from export.precision.int8 import Quantization, chosen_nodes
from export.precision.precision import INT8
from export.recipe.gate import gate
from export.recipe.measure import Measurement, Reference, measure
from export.recipe.recipe import Evaluation

RULE = Product.reduced["int8"]


def quantized(
    tmp_path: Path, excluded: tuple[str, ...] = (), keep_bytes: int = onnx_stream.LARGE
) -> tuple[Path, Path, Quantization]:
    full, small = tmp_path / "full.onnx", tmp_path / "small.onnx"
    write_product(full, weights())
    quantization = Quantization(full, rows(1, 64), RULE, excluded, tmp_path, keep_bytes=keep_bytes)
    quantization.write(small)
    return full, small, quantization


def test_weights_are_int8_per_channel_and_activations_uint8(tmp_path: Path) -> None:
    full, small, quantization = quantized(tmp_path)

    graph = onnx.load(small).graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    assert not [tensor.name for tensor in tensors.values() if tensor.dims == [16, 16] and tensor.data_type == 1]
    for node in graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in tensors:
            assert tensors[node.input[0]].data_type == TensorProto.INT8
            assert tensors[node.input[1]].dims == [16]
        if node.op_type == "QuantizeLinear":
            assert tensors[node.input[2]].data_type == TensorProto.UINT8
    assert signature.from_onnx(small)[0] == signature.from_onnx(full)[0]
    assert {entry.domain for entry in onnx.load(small).opset_import} <= {"", "com.microsoft"}
    record = quantization.record()
    assert record["quantised"] == {"MatMul": 3}
    assert record["calibration"]["rows"] == 64
    assert not list(tmp_path.glob("calibration*"))


def test_weights_read_from_a_file_are_quantised_like_those_of_a_graph_held_whole(tmp_path: Path) -> None:
    made = []
    for keep_bytes in (1 << 30, 100):
        (tmp_path / str(keep_bytes)).mkdir()
        made.append(onnx.load(quantized(tmp_path / str(keep_bytes), ("second",), keep_bytes)[1]))
    assert made[0] == made[1]


def test_the_same_inputs_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()

    assert quantized(tmp_path / "one")[1].read_bytes() == quantized(tmp_path / "other")[1].read_bytes()


def test_what_is_excluded_stays_in_fp32(tmp_path: Path) -> None:
    _, small, quantization = quantized(tmp_path, ("second",))

    products = {node.name: node.input[1] for node in onnx.load(small).graph.node if node.op_type == "MatMul"}
    assert products["second"] == "second_weight"
    assert products["first"] != "first_weight"
    assert quantization.record()["kept_float"] == ["second"]


def test_a_graph_without_products_is_refused(tmp_path: Path) -> None:
    write_scale(tmp_path / "scale.onnx")

    with pytest.raises(ExportError) as caught:
        Quantization(tmp_path / "scale.onnx", Evaluation({"x": np.ones((4, 3))}), RULE, (), tmp_path)
    assert (caught.value.field, caught.value.found) == ("precision", INT8)


def test_calibration_reports_how_far_it_is(tmp_path: Path) -> None:
    write_product(tmp_path / "full.onnx", weights())
    steps: list[tuple[str, int, int]] = []

    Quantization(tmp_path / "full.onnx", rows(1, 20), RULE, (), tmp_path, lambda *step: steps.append(step))

    assert steps == [("calibrate", done, 20) for done in range(0, 21, 2)]


def conv(name: str, take: str, give: str, channels: int, groups: int = 1) -> tuple[onnx.NodeProto, onnx.TensorProto]:
    weight = numpy_helper.from_array(np.ones((8, channels, 1, 1), np.float32), f"{name}_w")
    return helper.make_node("Conv", [take, f"{name}_w"], [give], name=name, group=groups), weight


def test_which_nodes_are_chosen() -> None:
    """Each node of this graph is a case; its name says whether it is to be quantised."""
    pairs = [
        conv("no: few channels", "picture", "c0", 3),
        conv("yes: many channels", "c0", "c1", 8),
        conv("yes: depthwise over many channels", "c1", "c2", 1, groups=8),
    ]
    node = helper.make_node
    nodes = [
        *(pair[0] for pair in pairs),
        node("Add", ["c1", "c2"], ["c3"], name="yes: between convolutions"),
        node("Clip", ["c3"], ["c4"], name="yes: after such an addition"),
        node("Add", ["c4", "picture"], ["c5"], name="no: one side is not in the chain"),
        node("MatMul", ["c5", "table"], ["m"], name="yes: weights on the right"),
        node("Add", ["m", "m"], ["s"], name="no: after a product"),
        node("MatMul", ["m", "s"], ["p"], name="no: two activations"),
        node("Gather", ["table", "ids"], ["g"], name="yes: rows of a table"),
        node("Gather", ["p", "ids"], ["h"], name="no: rows of an activation"),
        node("Softmax", ["h"], ["out"], name="no: softmax"),
    ]
    table = numpy_helper.from_array(np.ones((8, 8), np.float32), "table")
    model = helper.make_model(helper.make_graph(nodes, "g", [], [], [*(pair[1] for pair in pairs), table]))
    names = [each.name for each in nodes]

    assert chosen_nodes(model, ()) == [name for name in names if name.startswith("yes")]
    assert "yes: rows of a table" not in chosen_nodes(model, {"yes: rows of a table"})


def test_calibration_rows_are_not_evaluation_rows() -> None:
    texts = set(minilm.CALIBRATION.read_text(encoding="utf-8").splitlines())
    assert len(texts) >= 100
    assert not texts & set(minilm.texts().rows)
    pictures = {image.tobytes() for image in digits.calibration_pictures()}
    assert len(pictures) >= 150
    assert not pictures & {image.tobytes() for image in digits.held_out_pictures()[0]}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["minilm", "mobilenet_v2"])
def test_a_real_model_passes_its_gate(exported_repository: Path, tmp_path: Path, name: str) -> None:
    recipe = recipes.find(name)
    folder = exported_repository / name / "1"
    rule = recipe.reduced[INT8]
    calibration = recipe.load(recipe.resolve(None)).calibration
    assert calibration is not None
    quantization = Quantization(folder / "model.onnx", calibration(), rule, (), tmp_path)
    quantization.write(tmp_path / "small.onnx")
    reference = Reference.read(folder / "reference.npz")
    assert set(rule.keep_float) <= quantization.kept, "the recipe names nodes that the graph does not have"
    assert (tmp_path / "small.onnx").stat().st_size < 0.4 * (folder / "model.onnx").stat().st_size

    source = Measurement(recipe.score(reference.outputs, reference.evaluation, reference.outputs))
    measured = measure(recipe, onnx_file.session(tmp_path / "small.onnx"), reference)
    gate(recipe, "onnx", source, measured, rule)
    with pytest.raises(AccuracyError):  # FP32's own tolerances are tighter
        gate(recipe, "onnx", source, measured)
