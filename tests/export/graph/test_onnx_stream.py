"""ONNX files written and read beside their weights."""

from __future__ import annotations

import os
import random
from pathlib import Path

import numpy as np
import onnx
import pytest
from endless_graphs import unfolding
from onnx import numpy_helper
from product_model import weights, write_product

from export.errors import ContractError, FileError, LimitError
from export.graph import onnx_file, onnx_stream

X = np.random.default_rng(0).normal(size=(3, 16)).astype(np.float32)


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """Three products with their weights inside."""
    write_product(tmp_path / "whole.onnx", weights())
    return tmp_path / "whole.onnx"


@pytest.fixture
def parts(whole: Path, tmp_path: Path) -> Path:
    """The same model with its weights in a file beside it."""
    path = tmp_path / "parts" / "graph.onnx"
    path.parent.mkdir()
    onnx.save(
        onnx.load(str(whole)),
        str(path),
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=0,
    )
    return path


def skeleton(path: Path) -> onnx.ModelProto:
    return onnx.load(str(path), load_external_data=False)


def test_parts_become_one_file_with_the_same_answers(whole: Path, parts: Path, tmp_path: Path) -> None:
    target = tmp_path / "one.onnx"

    onnx_stream.write(skeleton(parts), parts.parent, target)

    assert onnx.load(str(target)) == onnx.load(str(whole))
    onnx.checker.check_model(str(target), full_check=True)
    assert (onnx_file.session(target)({"x": X})["y"] == onnx_file.session(whole)({"x": X})["y"]).all()
    again = tmp_path / "again.onnx"
    onnx_stream.write(skeleton(parts), parts.parent, again)
    assert again.read_bytes() == target.read_bytes()


def test_what_one_file_cannot_hold_stays_beside_it(whole: Path, parts: Path, tmp_path: Path) -> None:
    target = tmp_path / "large.onnx"

    onnx_stream.write(skeleton(parts), parts.parent, target, largest=1000)

    assert target.stat().st_size < 1000
    assert (tmp_path / "large.onnx.data").stat().st_size == 3 * 16 * 16 * 4
    assert (onnx_file.session(target)({"x": X})["y"] == onnx_file.session(whole)({"x": X})["y"]).all()


def test_reading_leaves_out_the_weights_alone(whole: Path, parts: Path) -> None:
    expected = onnx.load(str(whole))
    for tensor in expected.graph.initializer:
        tensor.ClearField("raw_data")

    assert onnx_stream.read_without_weights(whole) == expected
    assert onnx_stream.read_without_weights(parts) == skeleton(parts)


def test_float_data_and_metadata_are_kept(tmp_path: Path) -> None:
    write_product(tmp_path / "m.onnx", weights())
    model = onnx.load(str(tmp_path / "m.onnx"))
    model.graph.initializer.append(onnx.helper.make_tensor("typed", onnx.TensorProto.FLOAT, [2], [1.0, 2.0]))
    model.producer_name = "somebody"
    onnx.save(model, str(tmp_path / "m.onnx"))

    read = onnx_stream.read_without_weights(tmp_path / "m.onnx")

    assert read.producer_name == "somebody"
    assert list(numpy_helper.to_array(read.graph.initializer[-1])) == [1.0, 2.0]


def test_a_data_file_that_is_too_short_is_named(parts: Path, tmp_path: Path) -> None:
    data = parts.with_name("weights.bin")
    data.write_bytes(data.read_bytes()[:-1])

    with pytest.raises(ContractError) as caught:
        onnx_stream.write(skeleton(parts), parts.parent, tmp_path / "one.onnx")
    error = caught.value
    assert (error.file, error.tensor, error.found, error.expected) == ("weights.bin", "third_weight", 3071, 3072)


def test_what_is_no_model_is_a_value_error_whatever_its_bytes(whole: Path, tmp_path: Path) -> None:
    path = tmp_path / "damaged.onnx"
    content = whole.read_bytes()
    chance = random.Random(20_261_123)
    for _ in range(300):
        damaged = bytearray(content[: chance.randrange(1, len(content))])
        for _ in range(chance.randrange(4)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        path.write_bytes(damaged)
        try:
            onnx_stream.read_without_weights(path)
        except ValueError:
            continue


def nested(count: int) -> onnx.ModelProto:
    """A graph of one node with a graph of `count` nodes inside it."""
    node = onnx.helper.make_node("Identity", ["a"], ["b"])
    inner = onnx.helper.make_graph([node] * count, "inner", [], [])
    return onnx.helper.make_model(
        onnx.helper.make_graph([onnx.helper.make_node("If", ["a"], ["b"], then_branch=inner)], "g", [], [])
    )


PARTS = [
    (onnx.helper.make_model(onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])] * 60, "g", [], []))),
    (nested(60)),
    (unfolding(20)),
]


@pytest.mark.parametrize("model", PARTS, ids=["nodes", "nodes in a node", "functions"])
def test_a_model_of_more_parts_than_it_may_have(
    model: onnx.ModelProto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    onnx_stream.read_without_weights(tmp_path / "m.onnx")
    monkeypatch.setenv(onnx_stream.PARTS, "50")

    with pytest.raises(LimitError) as caught:
        onnx_stream.read_without_weights(tmp_path / "m.onnx")
    assert (caught.value.field, caught.value.expected) == (onnx_stream.PARTS, 50)


def test_a_pipe_in_the_place_of_a_model_is_refused_and_does_not_block(tmp_path):
    os.mkfifo(tmp_path / "model.onnx")

    with pytest.raises(FileError):
        onnx_stream.read_without_weights(tmp_path / "model.onnx")
