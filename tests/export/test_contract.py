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

OTHER = [
    ("dims: [ 3 ]", "dims: [ 4 ]", "scale/config.pbtxt:10: input 'x' has dims [4], the graph's are [3]", "a size"),
    ("dims: [ 3 ]", "dims: [ 3, 1 ]", "input 'x' has dims [3, 1], the graph's are [3]", "another rank"),
    ("dims: [ 3 ]", "dims: [ -1, 3 ]", "dims [-1, 3], which counts the batch twice", "the batch in dims"),
    ("dims: [ 3 ]", "dims: [ 8, 3 ]", "dims [8, 3], which counts the batch twice", "the batch as a number"),
    ("dims: [ 3 ]", "dims: [ -1 ]", "has dims [-1], the graph's are [3]", "open where the graph is not"),
    ("TYPE_FP32", "TYPE_FP16", "data_type TYPE_FP16, the graph's is TYPE_FP32", "a type"),
    ('"x"', '"z"', "the graph needs input 'x' (TYPE_FP32 [-1, 3])", "a name"),
]
BREACHES = [(INPUT, INPUT.replace(old, new), words, why) for old, new, words, why in OTHER] + [
    ('name: "y"', 'name: "p"', "output 'p' is not in the graph, whose outputs are ['y']", "an output"),
    (FILE, FILE.replace("model.", "net."), "is 'net.onnx', the artefact is 'model.onnx'", "the file"),
]


@pytest.mark.parametrize(("old", "new", "words", "why"), BREACHES, ids=[row[-1] for row in BREACHES])
def test_a_breach_names_file_tensor_and_values(repository: Path, old: str, new: str, words: str, why: str) -> None:
    path = repository / "scale" / "config.pbtxt"
    replace(path, old, new)

    with pytest.raises(ContractError) as caught:
        contract.check(config.load(path), GRAPH)

    message = str(caught.value)
    assert message.startswith("scale/config.pbtxt:")
    assert words in message
    assert "; write" in message or "; name" in message or "; add" in message


def test_a_contract_that_is_kept(repository: Path) -> None:
    contract.check(config.load(repository / "scale" / "config.pbtxt"), GRAPH)


def test_a_fixed_batch_axis_cannot_be_batched(repository: Path) -> None:
    fixed = Signature((TensorSpec("x", "TYPE_FP32", (1, 3)),), GRAPH.outputs)

    with pytest.raises(ContractError, match="max_batch_size is 8, but the first axis of input 'x' is 1 in the graph"):
        contract.check(config.load(repository / "scale" / "config.pbtxt"), fixed)


def test_without_batching_dims_are_the_whole_shape(repository: Path) -> None:
    path = repository / "scale" / "config.pbtxt"
    replace(path, "max_batch_size: 8", "max_batch_size: 0")
    with pytest.raises(ContractError, match=r"dims \[3\], the graph's are \[-1, 3\]"):
        contract.check(config.load(path), GRAPH)

    text = path.read_text().replace("dims: [ 3 ]", "dims: [ -1, 3 ]")
    path.write_text(text)
    contract.check(config.load(path), GRAPH)


def test_an_open_axis_of_the_graph_may_be_narrowed_and_outputs_left_out(repository: Path) -> None:
    wide = Signature(
        (TensorSpec("x", "TYPE_FP32", (-1, -1)),),
        (TensorSpec("y", "TYPE_FP32", (-1, -1)), TensorSpec("unused", "TYPE_INT64", (-1,))),
    )

    contract.check(config.load(repository / "scale" / "config.pbtxt"), wide)


def test_the_shape_after_a_reshape_is_what_the_graph_sees(repository: Path) -> None:
    path = repository / "scale" / "config.pbtxt"
    replace(path, INPUT, f"{INPUT.replace('[ 3 ]', '[ 1, 3 ]')}\n    reshape {{ shape: [ 3 ] }}")

    contract.check(config.load(path), GRAPH)
