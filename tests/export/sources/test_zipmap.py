"""ZipMap behind a classifier's probabilities: it is cut off, and the file's own maps are what is compared with."""

import numpy as np
import onnx
import pytest
from imported_models import I64, F, matrix
from onnx import TensorProto, helper, numpy_helper

from export.add.add import AddOptions, add
from export.config import config as configs
from export.lint.lint import lint
from export.recipe.measure import Reference
from export.sources.from_onnx import load

KEYS = [
    ({"classlabels_int64s": [7, 3, 5]}, I64, ("7", "3", "5"), "whole numbers in an order of their own"),
    ({"classlabels_strings": ["no", "ja ö", ""]}, TensorProto.STRING, ("no", "ja ö", ""), "texts"),
]


def zipped(path, keys, kind, *, plain_too=False):
    """A classifier whose maps come from a ZipMap, and its numbers as well where they are `plain_too`."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["z"]),
        helper.make_node("Softmax", ["z"], ["numbers"], axis=1),
        helper.make_node("ZipMap", ["numbers"], ["probabilities"], domain="ai.onnx.ml", **keys),
    ]
    row = helper.make_map_type_proto(kind, helper.make_tensor_type_proto(F, []))
    outputs = [helper.make_value_info("probabilities", helper.make_sequence_type_proto(row))]
    if plain_too:
        outputs.append(helper.make_tensor_value_info("numbers", F, ["n", 3]))
    inputs = [helper.make_tensor_value_info("x", F, ["n", 4])]
    graph = helper.make_graph(nodes, "g", inputs, outputs, [numpy_helper.from_array(matrix(4, 3), "w")])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


@pytest.mark.parametrize(("keys", "kind", "labels", "why"), KEYS, ids=[row[-1] for row in KEYS])
def test_the_numbers_are_served_with_the_keys_as_labels(keys, kind, labels, why, tmp_path):
    repository = tmp_path / "model_repository"
    repository.mkdir()
    add("mine", AddOptions("onnx", str(zipped(tmp_path / "m.onnx", keys, kind))), repository)
    message = configs.load(repository / "mine" / "config.pbtxt").message
    assert [(output.name, list(output.dims), output.label_filename) for output in message.output] == [
        ("probabilities", [3], "labels.txt")
    ]
    assert (repository / "mine" / "labels.txt").read_text().split("\n")[:3] == list(labels)
    assert not [
        each for each in onnx.load(repository / "mine" / "1" / "model.onnx").graph.node if "Map" in each.op_type
    ]
    assert Reference.read(repository / "mine" / "1" / "reference.npz").outputs["probabilities"].shape[1:] == (3,)
    assert lint(repository) == []


def test_the_source_answers_with_the_maps_of_the_file_itself(tmp_path):
    path = zipped(tmp_path / "m.onnx", {"classlabels_int64s": [7, 3, 5]}, I64, plain_too=True)
    answer = load(str(path), tmp_path).predict({"x": np.ones((2, 4), np.float32)})
    assert answer["probabilities"].tolist() == answer["numbers"].tolist()
    assert answer["probabilities"].shape == (2, 3)
