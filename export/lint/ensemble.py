"""Lint rules for ensembles: steps that exist, tensors that connect and fit, under every named configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from export.lint.finding import Findings, Subject

Repository = Mapping[str, Sequence[Subject]]


@dataclass(frozen=True)
class _Tensor:
    """A tensor between steps: where its type and shape come from."""

    data_type: int
    dims: tuple[int, ...]
    of: str


def check(repository: Repository, models: Sequence[str]) -> Findings:
    """All rules, for every ensemble under config.pbtxt and under each name that any model has a configuration for.

    Triton takes configs/NAME.pbtxt where a model has it and config.pbtxt where it has not, so a step's named
    configuration can break an ensemble that has none.
    """
    named = {subject.variant for subjects in repository.values() for subject in subjects if subject.variant}
    for name in models:
        for variant in (None, *sorted(named)):
            ensemble = _effective(repository, name, variant)
            if ensemble is not None and ensemble.is_ensemble:
                yield from _ensemble(ensemble, repository, variant)


def _effective(repository: Repository, name: str, variant: str | None) -> Subject | None:
    """The configuration of a model that Triton uses under --model-config-name=VARIANT."""
    by_variant = {subject.variant: subject for subject in repository.get(name, ())}
    return by_variant.get(variant) or by_variant.get(None)


def _ensemble(ensemble: Subject, repository: Repository, variant: str | None) -> Findings:
    message = ensemble.message
    if message.platform != "ensemble":
        yield ensemble.error("platform", f"platform is '{message.platform}'", 'write platform: "ensemble"')
    if message.backend:
        yield ensemble.error("backend", f"an ensemble has no backend, this has '{message.backend}'", "remove it")
    if message.instance_group:
        yield ensemble.error("instance_group", "an ensemble has no instances of its own", "remove instance_group")
    if not message.ensemble_scheduling.step:
        yield ensemble.error("ensemble_scheduling", "there are no steps", "add a step for each model")
        return
    produced = {tensor.name: _tensor(tensor, "the ensemble's input") for tensor in message.input}
    sources: dict[str, int] = {}
    for index, step in enumerate(message.ensemble_scheduling.step):
        model = _effective(repository, step.model_name, variant)
        field = f"ensemble_scheduling.step[{index}]"
        if step.model_name not in repository:
            yield ensemble.error(
                f"{field}.model_name",
                f"there is no model '{step.model_name}' in the repository",
                f"name one of {', '.join(name for name in repository if name != ensemble.folder.name)}",
            )
        if model is None:
            return
        yield from _batch(ensemble, field, model)
        for name, target in step.output_map.items():
            output = next((tensor for tensor in model.message.output if tensor.name == name), None)
            if output is None:
                yield ensemble.error(
                    f'{field}.output_map["{name}"]',
                    f"'{step.model_name}' has no output '{name}'",
                    _one_of(model.message.output),
                )
            elif target in produced:
                yield ensemble.error(
                    f'{field}.output_map["{name}"].value', f"tensor '{target}' is made twice", "give one another name"
                )
            else:
                produced[target] = _tensor(output, f"'{step.model_name}'")
                sources[target] = index
    for index, step in enumerate(message.ensemble_scheduling.step):
        model = _effective(repository, step.model_name, variant)
        if model is not None:
            yield from _inputs(ensemble, index, step, model, produced, sources)
    yield from _outputs(ensemble, produced)


def _batch(ensemble: Subject, field: str, model: Subject) -> Findings:
    whole, part = ensemble.message.max_batch_size, model.message.max_batch_size
    if whole > part:
        yield ensemble.error(
            "max_batch_size",
            f"max_batch_size is {whole}, but step '{model.folder.name}' takes {part} at most ({model.config.label})",
            f"write max_batch_size: {part}, or raise the step's",
        )


def _inputs(
    ensemble: Subject,
    index: int,
    step: Any,
    model: Subject,
    produced: Mapping[str, _Tensor],
    sources: Mapping[str, int],
) -> Findings:
    field = f"ensemble_scheduling.step[{index}]"
    inputs = {tensor.name: tensor for tensor in model.message.input}
    for name, tensor in inputs.items():
        if name not in step.input_map and not tensor.optional:
            yield ensemble.error(
                field,
                f"input '{name}' of '{step.model_name}' is not mapped",
                f'add input_map {{ key: "{name}" value: ... }}',
            )
    for name, source in step.input_map.items():
        place = f'{field}.input_map["{name}"]'
        if name not in inputs:
            yield ensemble.error(place, f"'{step.model_name}' has no input '{name}'", _one_of(model.message.input))
        elif source not in produced:
            yield ensemble.error(
                f"{place}.value",
                f"no step makes tensor '{source}', and it is no input of the ensemble",
                f"take one of {', '.join(sorted(produced))}",
            )
        elif sources.get(source, -1) == index:
            yield ensemble.error(
                f"{place}.value", f"'{step.model_name}' would wait for its own '{source}'", "map another"
            )
        else:
            yield from _joint(
                ensemble, f"{place}.value", produced[source], inputs[name], f"'{step.model_name}'", source
            )


def _outputs(ensemble: Subject, produced: Mapping[str, _Tensor]) -> Findings:
    for index, output in enumerate(ensemble.message.output):
        if output.name not in produced:
            yield ensemble.error(
                f"output[{index}].name",
                f"no step makes output '{output.name}'",
                f"map a step's output to it, or take one of {', '.join(sorted(produced))}",
            )
        else:
            yield from _joint(
                ensemble, f"output[{index}]", produced[output.name], output, "the ensemble's output", output.name
            )


def _joint(ensemble: Subject, field: str, made: _Tensor, taken: Any, taker: str, name: str) -> Findings:
    """A tensor must have the type and a possible shape of what takes it."""
    from tritonclient.grpc import model_config_pb2

    if made.data_type != taken.data_type:
        have, want = (model_config_pb2.DataType.Name(number) for number in (made.data_type, taken.data_type))
        yield ensemble.error(
            field, f"tensor '{name}' is {have} from {made.of}, {taker} takes {want}", "convert in a step"
        )
    want_dims = tuple(taken.dims)
    fits = len(made.dims) == len(want_dims) and all(
        -1 in (have, want) or have == want for have, want in zip(made.dims, want_dims, strict=True)
    )
    if not fits:
        yield ensemble.error(
            field,
            f"tensor '{name}' has dims {list(made.dims)} from {made.of}, {taker} takes {list(want_dims)}",
            "match them",
        )


def _tensor(tensor: Any, of: str) -> _Tensor:
    return _Tensor(tensor.data_type, tuple(tensor.dims), of)


def _one_of(tensors: Any) -> str:
    return f"name one of {', '.join(tensor.name for tensor in tensors)}"
