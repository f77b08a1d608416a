"""The requests of each step, made by passing one through the pipeline."""

from __future__ import annotations

import numpy as np
from tritonclient.grpc import model_config_pb2, service_pb2

from loadtests.target.steps import by_class, shape_class, stacked, trace


def config(name):
    made = model_config_pb2.ModelConfig(name=name)
    if name == "outer":  # its steps stand in the wrong order
        last = made.ensemble_scheduling.step.add(model_name="last")
        last.input_map["z"] = "middle"
        last.input_map["text"] = "text"
        last.output_map["y"] = "answer"
        inner = made.ensemble_scheduling.step.add(model_name="inner")
        inner.input_map["a"] = "text"
        inner.output_map["b"] = "middle"
        made.output.add(name="answer")
    if name == "inner":
        step = made.ensemble_scheduling.step.add(model_name="first")
        step.input_map["x"] = "a"
        step.output_map["x2"] = "b"
        made.output.add(name="b")
    return made


def request(*values, name="text", model="outer"):
    made = service_pb2.ModelInferRequest(model_name=model)
    made.inputs.add(name=name, datatype="FP32", shape=[1, len(values)])
    made.raw_input_contents.append(np.asarray(values, np.float32).tobytes())
    return made


def infer(asked):
    """Every model appends a zero."""
    names = {"first": "x2", "last": "y"}
    answer = service_pb2.ModelInferResponse(model_name=asked.model_name)
    width = asked.inputs[0].shape[1] + 1
    answer.outputs.add(name=names[asked.model_name], datatype="FP32", shape=[1, width])
    answer.raw_output_contents.append(asked.raw_input_contents[0] + bytes(4))
    return answer


def test_each_model_gets_what_the_ones_before_it_answer():
    found = trace("outer", request(1.0, 2.0), infer, config)
    assert list(found) == ["first", "last"]
    assert [(each.name, list(each.shape)) for each in found["first"].inputs] == [("x", [1, 2])]
    assert {each.name: list(each.shape) for each in found["last"].inputs} == {"z": [1, 3], "text": [1, 2]}


def test_a_model_that_is_no_pipeline_gets_the_request_itself():
    asked = request(1.0, name="x", model="first")
    assert trace("first", asked, infer, config) == {"first": asked}


def test_rows_of_one_shape_become_one_request():
    whole = stacked([request(1.0, 2.0), request(3.0, 4.0), request(5.0, 6.0)])
    assert list(whole.inputs[0].shape) == [3, 2]
    assert np.frombuffer(whole.raw_input_contents[0], np.float32).tolist() == [1, 2, 3, 4, 5, 6]


def test_requests_fall_into_classes_of_shape_the_most_frequent_first():
    found = by_class([request(1.0), request(1.0, 2.0), request(3.0, 4.0)])
    assert list(found) == [2, 1]
    assert shape_class(request(1.0)) < shape_class(request(1.0, 2.0))
