"""Signatures of ONNX graphs."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper
from small_models import write_onnx

from export.errors import ContractError
from export.graph.signature import Signature, TensorSpec, from_onnx


def test_names_types_and_shapes_with_open_axes_as_minus_one(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    write_onnx(
        path,
        [helper.make_node("Cast", ["a"], ["b"], to=TensorProto.INT64)],
        [("a", TensorProto.UINT8, ["n", 4, "m"])],
        [("b", TensorProto.INT64, ["n", 4, "m"])],
    )

    found, versions = from_onnx(path)

    assert found.inputs == (TensorSpec("a", "TYPE_UINT8", (-1, 4, -1)),)
    assert found.outputs == (TensorSpec("b", "TYPE_INT64", (-1, 4, -1)),)
    assert versions == {"ir_version": 9, "opset": 17}
    assert Signature.from_json(found.to_json()) == found


def test_a_sequence_and_a_file_that_is_not_onnx_are_refused(tmp_path: Path) -> None:
    tensor = helper.make_tensor_value_info("a", TensorProto.FLOAT, ["n"])
    sequence = helper.make_value_info(
        "b", helper.make_sequence_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, ["n"]))
    )
    graph = helper.make_graph([helper.make_node("SequenceConstruct", ["a"], ["b"])], "g", [tensor], [sequence])
    onnx.save(helper.make_model(graph), tmp_path / "sequence.onnx")
    with pytest.raises(ContractError) as caught:
        from_onnx(tmp_path / "sequence.onnx")
    assert (caught.value.tensor, caught.value.found) == ("b", "sequence")

    (tmp_path / "text.onnx").write_text("not a model, and long enough to be sure of it")
    with pytest.raises(ContractError) as caught:
        from_onnx(tmp_path / "text.onnx")
    assert caught.value.file == str(tmp_path / "text.onnx")
