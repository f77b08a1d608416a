"""The batching trial: which graphs are served in batches, and with which axes."""

import numpy as np
import onnx
import onnxruntime
import pytest
from added_models import add_onnx, dims, notes_with
from imported_models import I64, F, matrix, node, write
from onnx import TensorProto

from export import recipes
from export.exporter import export_model
from export.graph import edit, interface
from export.lint.lint import lint
from export.recipe.measure import Reference

DENSE = [node("MatMul", ["x", "w"], ["y"])]
WEIGHTS = {"w": matrix(3, 2)}


def test_weights_listed_as_inputs_become_constants(repository, tmp_path):
    shapes = [("x", F, ["rows", 3])], [("y", F, ["rows", 2])]
    path = write(tmp_path / "m.onnx", DENSE, *shapes, WEIGHTS, opset=9, ir_version=3, weights_as_inputs=True)
    made, message = add_onnx(repository, path)
    assert [tensor.name for tensor in message.input] == ["x"]
    assert notes_with(made, "inputs")
    assert len(onnx.load(str(repository / "mine" / "1" / "model.onnx")).graph.input) == 1


def test_a_batch_fixed_at_one_is_opened_through_its_reshapes(repository, tmp_path):
    nodes = [
        node("Reshape", ["x", "flat"], ["a"]),
        node("MatMul", ["a", "w"], ["b"]),
        node("Reshape", ["b", "split"], ["y"]),
    ]
    weights = {"flat": np.array([1, 6]), "split": np.array([1, 2, -1]), "w": matrix(6, 4)}
    path = write(tmp_path / "m.onnx", nodes, [("x", F, [1, 2, 3])], [("y", F, [1, 2, 2])], weights)
    made, message = add_onnx(repository, path)
    assert message.max_batch_size == 8
    assert dims(message) == {"x": [2, 3], "y": [2, 2]}
    assert notes_with(made, "open")
    assert made.exported.manifest.stations["onnx"].parity.max_abs < 1e-5


NOT_A_BATCH = {
    "rows that look at one another": (
        [node("Softmax", ["x"], ["y"], axis=0)],
        [("x", F, ["n", 3])],
        [("y", F, ["n", 3])],
        {"n": 5},
        "--dim",
    ),
    "an expansion that holds on to one row": (
        [node("Expand", ["x", "two"], ["a"]), node("Split", ["a"], ["y", "z"], axis=0)],
        [("x", F, [1, 3])],
        [("y", F, [1, 3])],
        {},
        "Split",
    ),
    "a batch fixed at four": (
        [node("Relu", ["x"], ["y"])],
        [("x", F, [4, 3])],
        [("y", F, [4, 3])],
        {},
        "'x' 4",
    ),
    "one input of one row and one of four": (
        [node("Add", ["x", "z"], ["y"])],
        [("x", F, [4, 3]), ("z", F, [1, 3])],
        [("y", F, [4, 3])],
        {},
        "'x' 4, 'z' 1",
    ),
}


@pytest.mark.parametrize(("nodes", "inputs", "outputs", "sizes", "why"), NOT_A_BATCH.values(), ids=NOT_A_BATCH.keys())
def test_what_is_no_batch_is_served_whole(nodes, inputs, outputs, sizes, why, repository, tmp_path):
    weights = {"two": np.array([2, 3])} if "two" in nodes[0].input else {}
    path = write(tmp_path / "m.onnx", nodes, inputs, outputs, weights, opset=13)
    made, message = add_onnx(repository, path, dims=sizes)
    assert message.max_batch_size == made.max_batch_size == 0
    assert notes_with(made, why), made.notes
    assert notes_with(made, "max_batch_size")
    assert [finding for finding in lint(repository) if finding.severity == "error"] == []


def test_a_first_axis_that_is_no_batch_stays_open(repository, tmp_path):
    nodes = [node("Softmax", ["x"], ["y"], axis=0)]
    path = write(tmp_path / "m.onnx", nodes, [("x", F, ["steps", 3])], [("y", F, ["steps", 3])])
    made, message = add_onnx(repository, path)
    assert (message.max_batch_size, dims(message)) == (0, {"x": [-1, 3], "y": [-1, 3]})
    assert notes_with(made, "Softmax")


def test_batching_can_be_declined(repository, tmp_path):
    path = write(tmp_path / "m.onnx", DENSE, [("x", F, ["rows", 3])], [("y", F, ["rows", 2])], WEIGHTS)
    _, message = add_onnx(repository, path, max_batch_size=0, dims={"rows": 5})
    assert (message.max_batch_size, dims(message)) == (0, {"x": [-1, 3], "y": [-1, 2]})
    assert Reference.read(repository / "mine" / "1" / "reference.npz").evaluation.inputs["x"].shape[1:] == (5, 3)


def test_tensors_with_the_batch_alone_get_an_axis_of_one(repository, tmp_path):
    nodes = [node("Mul", ["x", "x"], ["y"]), node("Greater", ["y", "x"], ["z"])]
    outputs = [("y", F, ["n"]), ("z", TensorProto.BOOL, ["n"])]
    path = write(tmp_path / "m.onnx", nodes, [("x", F, ["n"])], outputs)
    made, message = add_onnx(repository, path)
    assert dims(message) == {"x": [1], "y": [1], "z": [1]}
    assert notes_with(made, "'x', 'y', 'z'")


def test_outputs_without_shapes_get_those_of_a_run(repository, tmp_path):
    nodes = [node("MatMul", ["x", "w"], ["y"]), node("ReduceMax", ["x"], ["top"], keepdims=0)]
    path = write(tmp_path / "m.onnx", nodes, [("x", F, [2, 3])], [("y", F, None), ("top", F, None)], WEIGHTS, opset=13)
    _, message = add_onnx(repository, path)
    assert dims(message) == {"x": [2, 3], "y": [2, 2], "top": [1]}


@pytest.mark.parametrize(
    "kind", [TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BOOL, TensorProto.UINT8, TensorProto.STRING]
)
def test_every_type_that_numpy_has_is_taken(kind, repository, tmp_path):
    path = write(
        tmp_path / "m.onnx",
        [node("Identity", ["a/b:0"], ["c d"])],
        [("a/b:0", kind, ["n", 3])],
        [("c d", kind, ["n", 3])],
    )
    made, message = add_onnx(repository, path)
    assert message.input[0].name == "a/b:0"
    assert made.exported.manifest.stations["onnx"].accuracy == {"matching_rows": 1.0}
    assert bool(notes_with(made, "float64")) == (kind == TensorProto.DOUBLE)


def test_control_flow_is_taken(repository, tmp_path):
    branches = {
        name: onnx.helper.make_graph(
            [node(operator, ["x"], [f"{name}_out"])],
            name,
            [],
            [onnx.helper.make_tensor_value_info(f"{name}_out", F, None)],
        )
        for name, operator in (("then_branch", "Relu"), ("else_branch", "Neg"))
    }
    nodes = [node("ReduceSum", ["x"], ["sum"], keepdims=0), node("Greater", ["sum", "zero"], ["positive"])]
    nodes.append(onnx.helper.make_node("If", ["positive"], ["y"], **branches))
    path = write(
        tmp_path / "m.onnx",
        nodes,
        [("x", F, ["n", 3])],
        [("y", F, ["n", 3])],
        {"zero": np.array(0, np.float32)},
        opset=13,
    )
    _, message = add_onnx(repository, path, dims={"n": 2})  # one branch for all rows: no batch
    assert message.max_batch_size == 0


def test_random_answers_are_reported_and_allowed_for(repository, tmp_path):
    nodes = [node("RandomNormalLike", ["x"], ["noise"]), node("Add", ["x", "noise"], ["y"])]
    path = write(tmp_path / "m.onnx", nodes, [("x", F, [4, 3])], [("y", F, [4, 3])])
    made, _ = add_onnx(repository, path)
    assert notes_with(made, "RandomNormalLike")


def test_scalars_are_served_with_an_axis_of_one(repository, tmp_path):
    """As of a voice detector that takes its sample rate so; one of the outputs is a constant."""
    nodes = [node("Cast", ["rate"], ["r"], to=F), node("Mul", ["x", "r"], ["y"]), node("Identity", ["rate"], ["same"])]
    path = write(
        tmp_path / "m.onnx",
        nodes,
        [("x", F, [2, 3]), ("rate", I64, [])],
        [("y", F, [2, 3]), ("same", I64, []), ("constant", F, [])],
        {"constant": np.array(3, np.float32)},
    )
    made, message = add_onnx(repository, path)
    assert (message.max_batch_size, dims(message)) == (
        0,
        {"x": [2, 3], "rate": [1], "y": [2, 3], "same": [1], "constant": [1]},
    )
    assert notes_with(made, "'rate'")
    assert export_model(recipes.find("mine", repository), repository, force=True).manifest.files


def test_an_output_that_somebody_only_named_gets_its_type(repository, tmp_path):
    nodes = [node("MatMul", ["x", "w"], ["inner"]), node("ArgMax", ["inner"], ["y"], axis=1)]
    path = write(tmp_path / "m.onnx", nodes, [("x", F, ["n", 3])], [("y", I64, ["n", 1])], WEIGHTS)
    model = onnx.load(path)
    model.graph.output.add(name="inner")
    onnx.save(model, path)
    _, message = add_onnx(repository, path)
    assert dims(message) == {"x": [3], "y": [1], "inner": [2]}


def test_a_model_that_does_not_batch_lints_clean_with_its_bounded_queue(repository, tmp_path):
    path = write(tmp_path / "m.onnx", [node("Softmax", ["x"], ["y"], axis=0)], [("x", F, [4, 2])], [("y", F, [4, 2])])
    add_onnx(repository, path)
    assert lint(repository) == []
    config = repository / "mine" / "config.pbtxt"
    config.write_text(config.read_text().replace("dynamic_batching {", "dynamic_batching {\n  preserve_ordering: true"))
    assert "dynamic_batching" in [finding.field for finding in lint(repository)]


def test_a_batch_opened_by_hand_may_leave_the_old_shapes_inside(repository, tmp_path):
    nodes = [node("MatMul", ["x", "w"], ["inner"]), node("Relu", ["inner"], ["y"])]
    path = write(tmp_path / "m.onnx", nodes, [("x", F, ["n", 3])], [("y", F, [1, 2])], WEIGHTS)
    model = onnx.load(path)
    model.graph.value_info.append(onnx.helper.make_tensor_value_info("inner", F, [1, 2]))
    onnx.save(model, path)
    _, message = add_onnx(repository, path)
    assert dims(message) == {"x": [3], "y": [2]}
    served = onnxruntime.InferenceSession(str(repository / "mine" / "1" / "model.onnx"))
    assert served.get_outputs()[0].shape == ["batch", 2], "Triton's backend holds config.pbtxt to this"
    assert export_model(recipes.find("mine", repository), repository, precision="fp16").manifest.precision == "fp16"


ANCHORS = [node("Relu", ["x"], ["y"])], [("x", F, ["n", 4])], {"anchors": np.array([1, 2, 3], np.float32)}


def test_an_output_that_is_a_weight_has_no_batch_and_is_served_in_every_precision(repository, tmp_path):
    nodes, inputs, weights = ANCHORS
    path = write(tmp_path / "m.onnx", nodes, inputs, [("y", F, ["n", 4]), ("anchors", F, [3])], weights)
    made, message = add_onnx(repository, path)
    assert notes_with(made, "'anchors'")
    assert (message.max_batch_size, dims(message)) == (0, {"x": [-1, 4], "y": [-1, 4], "anchors": [3]})
    served = made.exported.manifest.stations["onnx"]
    assert served.accuracy == {"matching_rows": 1.0}
    assert export_model(made.recipe, repository, precision="fp16").manifest.precision == "fp16"


def test_an_output_that_is_a_weight_has_the_weights_own_type(repository, tmp_path):
    nodes, inputs, _ = ANCHORS
    outputs, weights = [("y", F, ["n", 4]), ("anchors", F, [3])], {"anchors": np.array([[1, 2]])}
    made, message = add_onnx(repository, write(tmp_path / "m.onnx", nodes, inputs, outputs, weights))
    assert dims(message)["anchors"] == [1, 2]
    assert made.exported.manifest.signature.outputs[1].data_type == "TYPE_INT64"


def test_an_output_that_is_a_weight_is_renamed_like_any_other(tmp_path):
    nodes, inputs, weights = ANCHORS
    path = write(tmp_path / "m.onnx", nodes, inputs, [("y", F, ["n", 4]), ("anchors", F, [3])], weights)
    model = onnx.load(path)
    interface.rename_outputs(model, {"y": "logits", "anchors": "y"})
    assert edit.fixed_outputs(model) == ["y"]
    answer = onnxruntime.InferenceSession(model.SerializeToString()).run(["y"], {"x": matrix(2, 4)})
    np.testing.assert_array_equal(answer[0], [1, 2, 3])
