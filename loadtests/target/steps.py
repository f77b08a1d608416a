"""The requests that each step of a pipeline gets when the pipeline gets one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

Infer = Callable[[Any], Any]
"""A ModelInferRequest to its ModelInferResponse."""


def trace(model: str, request: Any, infer: Infer, config_of: Callable[[str], Any]) -> dict[str, Any]:
    """The ModelInferRequest that each model behind `model` gets for this one, in order; a plain model gets it as it is.

    `config_of(name)` is a model's ModelConfig. Raises what `infer` raises.
    """
    found: dict[str, Any] = {}
    _pass_through(model, request, infer, config_of, found)
    return found


def _pass_through(
    model: str, request: Any, infer: Infer, config_of: Callable[[str], Any], found: dict[str, Any]
) -> Any:
    config = config_of(model)
    asked = type(request)()
    asked.CopyFrom(request)
    asked.model_name = model
    del asked.outputs[:]
    if not config.ensemble_scheduling.step:
        found.setdefault(model, asked)
        return infer(asked)
    known = {tensor.name: (tensor, raw) for tensor, raw in zip(request.inputs, request.raw_input_contents, strict=True)}
    waiting = list(config.ensemble_scheduling.step)
    while waiting:
        step = next((each for each in waiting if all(name in known for name in each.input_map.values())), None)
        if step is None:
            break  # an input that is optional and was not given
        waiting.remove(step)
        own = type(request)(model_name=step.model_name)
        for name, source in step.input_map.items():
            tensor, raw = known[source]
            own.inputs.add(name=name, datatype=tensor.datatype, shape=tensor.shape)
            own.raw_input_contents.append(raw)
        response = _pass_through(step.model_name, own, infer, config_of, found)
        answered = zip(response.outputs, response.raw_output_contents, strict=True)
        outputs = {tensor.name: (tensor, raw) for tensor, raw in answered}
        known |= {target: outputs[name] for name, target in step.output_map.items() if name in outputs}
    answer = response.__class__(model_name=model)
    for tensor in config.output:
        if tensor.name in known:
            made, raw = known[tensor.name]
            answer.outputs.add(name=tensor.name, datatype=made.datatype, shape=made.shape)
            answer.raw_output_contents.append(raw)
    return answer


def stacked(requests: Sequence[Any]) -> Any:
    """One request with the rows of all, which have equal shapes besides the first axis."""
    whole = type(requests[0])()
    whole.CopyFrom(requests[0])
    for at, tensor in enumerate(whole.inputs):
        tensor.shape[0] = sum(request.inputs[at].shape[0] for request in requests)
        whole.raw_input_contents[at] = b"".join(request.raw_input_contents[at] for request in requests)
    return whole


def shape_class(request: Any) -> int:
    """Values a row: equal for requests that may share a batch, larger for larger inputs."""
    return sum(_values(tensor.shape[1:]) for tensor in request.inputs)


def by_class(requests: Sequence[Any]) -> Mapping[int, list[Any]]:
    """The requests of each class, most frequent class first."""
    found: dict[int, list[Any]] = {}
    for request in requests:
        found.setdefault(shape_class(request), []).append(request)
    return dict(sorted(found.items(), key=lambda item: -len(item[1])))


def _values(shape: Sequence[int]) -> int:
    product = 1
    for size in shape:
        product *= size
    return product
