"""Lint rules for the tensors of an ensemble: each is made once, is taken, comes in time, and fits what takes it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from export.lint.finding import Findings, Subject, rule

_MEETS = "takes tensors of a decoupled step together with others, which come another number of times"
_APART = "take all from the same decoupled step, or answer once"


@dataclass(frozen=True)
class _Tensor:
    """One end of a connection: a tensor's type and shape, and whose it is. `full` is with the batch axis."""

    data_type: int
    dims: tuple[int, ...]
    batched: bool
    owner: str

    @property
    def full(self) -> tuple[int, ...]:
        return (-1, *self.dims) if self.batched else self.dims


def check(ensemble: Subject, models: Sequence[Any]) -> Findings:
    """All rules; `models` are the completed configurations of the steps' models."""
    yield from _made_twice(ensemble)
    yield from _unused(ensemble)
    yield from _never_ready(ensemble)
    yield from _fit(ensemble, models)
    yield from _streams(ensemble, models)


def _inputs(ensemble: Subject) -> set[str]:
    return {tensor.name for tensor in ensemble.message.input}


def _steps(ensemble: Subject) -> Iterator[tuple[str, Any]]:
    for index, step in enumerate(ensemble.message.ensemble_scheduling.step):
        yield f"ensemble_scheduling.step[{index}]", step


@rule
def _made_twice(ensemble: Subject) -> Findings:
    made = _inputs(ensemble)
    for field, step in _steps(ensemble):
        for name, target in step.output_map.items():
            if target in made:
                place = f'{field}.output_map["{name}"].value'
                yield ensemble.error(place, f"tensor '{target}' is made twice", "give one another name")
            made.add(target)


@rule
def _unused(ensemble: Subject) -> Findings:
    taken = {source for _, step in _steps(ensemble) for source in step.input_map.values()}
    given = {tensor.name for tensor in ensemble.message.output}
    for index, tensor in enumerate(ensemble.message.input):
        if tensor.name not in taken:
            place = f"input[{index}]"
            yield ensemble.error(
                place, f"no step takes input '{tensor.name}'", "map it to a step's input, or remove it"
            )
    for field, step in _steps(ensemble):
        for name, target in step.output_map.items():
            if target not in taken | given:
                yield ensemble.error(
                    f'{field}.output_map["{name}"].value',
                    f"no step takes tensor '{target}', and it is not an output of the ensemble",
                    "remove the mapping, or add the output",
                )


@rule
def _never_ready(ensemble: Subject) -> Findings:
    """What no step makes, and what waits for itself in a cycle of steps."""
    ready = _inputs(ensemble)
    waiting = dict(_steps(ensemble))
    while able := [field for field, step in waiting.items() if ready.issuperset(step.input_map.values())]:
        for field in able:
            ready |= {*waiting.pop(field).output_map.values()}
    made = ready | {target for step in waiting.values() for target in step.output_map.values()}
    for field, step in waiting.items():
        for name, source in step.input_map.items():
            if source not in ready:
                why = "waits for itself in a cycle of steps" if source in made else "is made by no step"
                yield ensemble.error(
                    f'{field}.input_map["{name}"].value',
                    f"tensor '{source}' {why}, and it is not an input of the ensemble",
                    f"take one of {', '.join(sorted(ready)) or 'the inputs that you add'}",
                )
    for index, output in enumerate(ensemble.message.output):
        if output.name not in made:
            yield ensemble.error(
                f"output[{index}].name",
                f"no step makes output '{output.name}'",
                f"map a step's output to it, or take one of {', '.join(sorted(made))}",
            )


@rule
def _fit(ensemble: Subject, models: Sequence[Any]) -> Findings:
    made: dict[str, _Tensor] = {}
    for tensor in ensemble.message.input:
        made[tensor.name] = _own(ensemble, tensor, "the ensemble's input")
    for (_, step), model in zip(_steps(ensemble), models, strict=True):
        for tensor in model.output:
            if tensor.name in step.output_map:
                made.setdefault(step.output_map[tensor.name], _of_step(step, model, tensor))
    for (field, step), model in zip(_steps(ensemble), models, strict=True):
        for tensor in model.input:
            if tensor.name in step.input_map:
                place = f'{field}.input_map["{tensor.name}"].value'
                taker = _of_step(step, model, tensor)
                yield from _joint(ensemble, place, step.input_map[tensor.name], made, taker)
    for index, output in enumerate(ensemble.message.output):
        taker = _own(ensemble, output, "the ensemble's output")
        yield from _joint(ensemble, f"output[{index}]", output.name, made, taker)


def _own(ensemble: Subject, tensor: Any, owner: str) -> _Tensor:
    dims = tensor.reshape.shape if tensor.HasField("reshape") else tensor.dims
    return _Tensor(tensor.data_type, tuple(dims), ensemble.message.max_batch_size > 0, owner)


def _of_step(step: Any, model: Any, tensor: Any) -> _Tensor:
    return _Tensor(tensor.data_type, tuple(tensor.dims), model.max_batch_size > 0, f"'{step.model_name}'")


def _joint(ensemble: Subject, field: str, name: str, made: Mapping[str, _Tensor], taker: _Tensor) -> Findings:
    """A tensor must have the type and a possible shape of what takes it, with or without the batch axis."""
    from tritonclient.grpc import model_config_pb2

    maker = made.get(name)
    if maker is None:  # `_never_ready` says so
        return
    if maker.data_type != taker.data_type:
        have, want = (model_config_pb2.DataType.Name(end.data_type) for end in (maker, taker))
        yield ensemble.error(
            field, f"tensor '{name}' is {have} from {maker.owner}, {taker.owner} takes {want}", "convert in a step"
        )
    if not (_possible(maker.dims, taker.dims) or _possible(maker.full, taker.full)):
        yield ensemble.error(
            field,
            f"tensor '{name}' has dims {list(maker.dims)} from {maker.owner}, {taker.owner} takes {list(taker.dims)}",
            "match them",
        )


def _possible(made: tuple[int, ...], taken: tuple[int, ...]) -> bool:
    return len(made) == len(taken) and all(
        -1 in (have, want) or have == want for have, want in zip(made, taken, strict=True)
    )


@rule
def _streams(ensemble: Subject, models: Sequence[Any]) -> Findings:
    """A decoupled step answers as often as it likes, so what it makes cannot meet tensors that do not come of it."""
    origin = dict.fromkeys(_inputs(ensemble), "")
    waiting = [(field, step, model) for (field, step), model in zip(_steps(ensemble), models, strict=True)]
    while able := [each for each in waiting if origin.keys() >= {*each[1].input_map.values()}]:
        waiting = [each for each in waiting if each not in able]
        for field, step, model in able:
            origins = {origin[source] for source in step.input_map.values()}
            if len(origins) > 1:
                yield ensemble.error(field, f"'{step.model_name}' {_MEETS}", _APART)
            own = field if model.model_transaction_policy.decoupled else min(origins, default="")
            origin |= dict.fromkeys(step.output_map.values(), own)
    if len({origin[output.name] for output in ensemble.message.output if output.name in origin}) > 1:
        yield ensemble.error("output", f"the ensemble {_MEETS}", _APART)
