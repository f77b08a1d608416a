"""An ensemble that hands its inputs through a model that changes nothing to another: what a hand-over costs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clients.datatypes import NUMPY_TYPE
from export import config as configs

NAME, FRONT = "chain", "identity"


def write(repository: Path, behind: str) -> None:
    """Write the models `identity` and `chain` in front of a model whose config.pbtxt is `behind`."""
    import onnx
    from google.protobuf import text_format  # type: ignore[import-untyped]
    from onnx import helper

    last = configs.parse(behind)
    front = type(last)()
    front.CopyFrom(last)
    front.name = FRONT
    for field in ("output", "model_warmup"):
        front.ClearField(field)
    for tensor in last.input:
        front.output.add(name=_passed(tensor.name), data_type=tensor.data_type, dims=tensor.dims)

    whole = type(last)(name=NAME, platform="ensemble", max_batch_size=last.max_batch_size)
    whole.input.extend(last.input)
    for output in last.output:
        whole.output.add(name=output.name, data_type=output.data_type, dims=output.dims)
    first, second = (
        whole.ensemble_scheduling.step.add(model_name=name, model_version=-1) for name in (FRONT, last.name)
    )
    for tensor in last.input:
        first.input_map[tensor.name] = tensor.name
        first.output_map[_passed(tensor.name)] = _passed(tensor.name)
        second.input_map[tensor.name] = _passed(tensor.name)
    for output in last.output:
        second.output_map[output.name] = output.name

    (repository / NAME / "1").mkdir(parents=True)
    (repository / FRONT / "1").mkdir(parents=True)
    for message in (front, whole):
        text = text_format.MessageToString(message)
        (repository / message.name / "config.pbtxt").write_text(text, encoding="utf-8")
    nodes = [helper.make_node("Identity", [tensor.name], [_passed(tensor.name)]) for tensor in last.input]
    graph = helper.make_graph(
        nodes, FRONT, [_value(each, each.name) for each in last.input],
        [_value(each, _passed(each.name)) for each in last.input],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, str(repository / FRONT / "1" / "model.onnx"))


def _passed(name: str) -> str:
    return f"{name}_passed"


def _value(tensor: Any, name: str) -> Any:
    from onnx import helper
    from tritonclient.grpc import model_config_pb2

    datatype = model_config_pb2.DataType.Name(tensor.data_type).removeprefix("TYPE_")
    axes = [f"axis{number}" if size < 0 else int(size) for number, size in enumerate(tensor.dims)]
    kind = helper.np_dtype_to_tensor_dtype(NUMPY_TYPE[datatype])
    return helper.make_tensor_value_info(name, kind, ["batch", *axes])
