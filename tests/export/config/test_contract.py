"""config.pbtxt against the graph."""

from __future__ import annotations

from pathlib import Path

import pytest
from scale_model import replace

from export.config import config, contract
from export.errors import ContractError
from export.graph.signature import Signature, TensorSpec

GRAPH = Signature((TensorSpec("x", "TYPE_FP32", (-1, 3)),), (TensorSpec("y", "TYPE_FP32", (-1, 3)),))
INPUT = '"x"\n    data_type: TYPE_FP32\n    dims: [ 3 ]'
FILE = 'default_model_filename: "model.onnx"'

# (what is replaced, by what, the line, the field, the tensor, its value, the graph's, the row in a sentence)
OTHER = [
    ("dims: [ 3 ]", "dims: [ 4 ]", 10, "input[0].dims", "x", [4], [3], "a size"),
    ("dims: [ 3 ]", "dims: [ -1, 3 ]", 10, "input[0].dims", "x", [-1, 3], [3], "the batch in dims"),
    ("TYPE_FP32", "TYPE_FP16", 9, "input[0].data_type", "x", "TYPE_FP16", "TYPE_FP32", "a type"),
    ('"x"', '"z"', 7, "input", "x", None, GRAPH.inputs[0], "a name"),
]
BREACHES = [(INPUT, INPUT.replace(old, new), *row) for old, new, *row in OTHER] + [
    ('name: "y"', 'name: "p"', 15, "output[0].name", "p", None, ["y"], "an output"),
    (FILE, FILE.replace("model.", "net."), 3, "default_model_filename", None, "net.onnx", "model.onnx", "the file"),
]


@pytest.mark.parametrize(
    ("old", "new", "line", "field", "tensor", "found", "expected", "why"), BREACHES, ids=[row[-1] for row in BREACHES]
)
def test_a_breach_names_file_tensor_and_values(
    repository: Path,
    old: str,
    new: str,
    line: int,
    field: str,
    tensor: str | None,
    found: object,
    expected: object,
    why: str,
) -> None:
    path = repository / "scale" / "config.pbtxt"
    replace(path, old, new)

    with pytest.raises(ContractError) as caught:
        contract.check(config.load(path), GRAPH)

    error = caught.value
    assert (error.file, error.line, error.field) == ("scale/config.pbtxt", line, field)
    assert (error.tensor, error.found, error.expected) == (tensor, found, expected)


def test_a_contract_that_is_kept(repository: Path) -> None:
    contract.check(config.load(repository / "scale" / "config.pbtxt"), GRAPH)


def test_a_fixed_batch_axis_cannot_be_batched(repository: Path) -> None:
    fixed = Signature((TensorSpec("x", "TYPE_FP32", (1, 3)),), GRAPH.outputs)

    with pytest.raises(ContractError) as caught:
        contract.check(config.load(repository / "scale" / "config.pbtxt"), fixed)
    error = caught.value
    assert (error.field, error.tensor, error.found, error.expected) == ("max_batch_size", "x", 8, 0)


def test_without_batching_dims_are_the_whole_shape(repository: Path) -> None:
    path = repository / "scale" / "config.pbtxt"
    replace(path, "max_batch_size: 8", "max_batch_size: 0")
    with pytest.raises(ContractError) as caught:
        contract.check(config.load(path), GRAPH)
    assert (caught.value.field, caught.value.found, caught.value.expected) == ("input[0].dims", [3], [-1, 3])

    text = path.read_text().replace("dims: [ 3 ]", "dims: [ -1, 3 ]")
    path.write_text(text)
    contract.check(config.load(path), GRAPH)


def test_an_open_axis_of_an_input_may_be_narrowed_and_outputs_left_out(repository: Path) -> None:
    wide = Signature(
        (TensorSpec("x", "TYPE_FP32", (-1, -1)),), (*GRAPH.outputs, TensorSpec("unused", "TYPE_INT64", (-1,)))
    )

    contract.check(config.load(repository / "scale" / "config.pbtxt"), wide)


def test_an_open_axis_of_an_output_may_not_be_narrowed(repository: Path) -> None:
    wide = Signature(GRAPH.inputs, (TensorSpec("y", "TYPE_FP32", (-1, -1)),))

    with pytest.raises(ContractError) as caught:
        contract.check(config.load(repository / "scale" / "config.pbtxt"), wide)
    assert (caught.value.field, caught.value.found, caught.value.expected) == ("output[0].dims", [3], [-1])


def test_the_shape_after_a_reshape_is_what_the_graph_sees(repository: Path) -> None:
    path = repository / "scale" / "config.pbtxt"
    replace(path, INPUT, f"{INPUT.replace('[ 3 ]', '[ 1, 3 ]')}\n    reshape {{ shape: [ 3 ] }}")

    contract.check(config.load(path), GRAPH)
