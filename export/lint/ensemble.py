"""Lint rules for ensembles: what they may not have, steps that exist, and a batch that every step takes.

How tensors flow between the steps is `flow`'s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from export.lint import flow, versions
from export.lint.complete import completed
from export.lint.finding import Findings, Subject, rule

Repository = Mapping[str, Sequence[Subject]]
NOT_OWN = {
    "backend": "an ensemble has no backend",
    "instance_group": "an ensemble has no instances of its own",
    "optimization": "an ensemble has nothing to optimize",
    "model_warmup": "an ensemble has no warm-up of its own: its steps are warm",
}


def check(repository: Repository, models: Sequence[str]) -> Findings:
    """All rules, for every ensemble under config.pbtxt and under each name that any model has a configuration for.

    Triton takes configs/NAME.pbtxt where a model has it and config.pbtxt where it has not, so a step's named
    configuration can break an ensemble that has none.
    """
    named = {subject.variant for subjects in repository.values() for subject in subjects if subject.variant}
    for name in models:
        for variant in (None, *sorted(named)):
            ensemble = _effective(repository, name, variant)
            if ensemble is None or not ensemble.is_ensemble:
                continue
            yield from _ensemble(ensemble)
            yield from _ensemble_step(ensemble, repository, variant)
            yield from _ensemble_cycle(ensemble, repository, variant)
            steps = ensemble.message.ensemble_scheduling.step
            taken = [_effective(repository, step.model_name, variant) for step in steps]
            known = [subject for subject in taken if subject is not None]
            if steps and len(known) == len(steps):
                messages = [completed(subject) for subject in known]
                yield from _ensemble_batch(ensemble, known, messages)
                yield from flow.check(ensemble, messages)


def _effective(repository: Repository, name: str, variant: str | None) -> Subject | None:
    """The configuration of a model that Triton uses under --model-config-name=VARIANT."""
    by_variant = {subject.variant: subject for subject in repository.get(name, ())}
    return by_variant.get(variant) or by_variant.get(None)


@rule
def _ensemble(ensemble: Subject) -> Findings:
    message = ensemble.message
    if message.platform != "ensemble":
        yield ensemble.error("platform", f"platform is '{message.platform}'", 'write platform: "ensemble"')
    for field, reason in NOT_OWN.items():
        value = getattr(message, field)
        if value and (field != "optimization" or message.HasField(field)):
            yield ensemble.error(field, reason, f"remove {field}")
    if not message.ensemble_scheduling.step:
        yield ensemble.error("ensemble_scheduling", "there are no steps", "add a step for each model")


@rule
def _ensemble_step(ensemble: Subject, repository: Repository, variant: str | None) -> Findings:
    for index, step in enumerate(ensemble.message.ensemble_scheduling.step):
        field = f"ensemble_scheduling.step[{index}]"
        for kind in ("input_map", "output_map"):
            if not getattr(step, kind):
                yield ensemble.error(field, f"the step has no {kind}", f"add {kind} {{ key: ... value: ... }}")
        if step.model_name not in repository:
            yield ensemble.error(
                f"{field}.model_name",
                f"there is no model '{step.model_name}' in the repository",
                f"name one of {', '.join(name for name in repository if name != ensemble.folder.name)}",
            )
        elif (model := _effective(repository, step.model_name, variant)) is not None:
            yield from _version(ensemble, field, step, model)
            yield from _mapped(ensemble, field, step, completed(model))


def _version(ensemble: Subject, field: str, step: Any, model: Subject) -> Findings:
    served = [path.name for path in model.versions]
    if step.model_version != -1 and versions.present(model.folder) and str(step.model_version) not in served:
        yield ensemble.error(
            f"{field}.model_version",
            f"version {step.model_version} of '{step.model_name}' is not served",
            f"write -1 for the latest, or one of {', '.join(served)}",
        )


def _mapped(ensemble: Subject, field: str, step: Any, message: Any) -> Findings:
    """The step maps each input that the model needs, and nothing that it has not.

    A model that writes no inputs has its backend complete them, which is known of ONNX graphs only.
    """
    for kind, tensors, written in (
        ("input", message.input, step.input_map),
        ("output", message.output, step.output_map),
    ):
        names = [tensor.name for tensor in tensors]
        for name in written:
            if names and name not in names:
                yield ensemble.error(
                    f'{field}.{kind}_map["{name}"]',
                    f"'{step.model_name}' has no {kind} '{name}'",
                    f"name one of {', '.join(names)}",
                )
    for tensor in message.input:
        if tensor.name not in step.input_map and not tensor.optional:
            yield ensemble.error(
                field,
                f"input '{tensor.name}' of '{step.model_name}' is not mapped",
                f'add input_map {{ key: "{tensor.name}" value: ... }}',
            )


@rule
def _ensemble_cycle(ensemble: Subject, repository: Repository, variant: str | None) -> Findings:
    own = ensemble.folder.name
    for index, step in enumerate(ensemble.message.ensemble_scheduling.step):
        if own in _reached(step.model_name, repository, variant):
            yield ensemble.error(
                f"ensemble_scheduling.step[{index}].model_name",
                f"'{step.model_name}' is or needs '{own}' itself",
                "let one of the ensembles do without the other",
            )


def _reached(name: str, repository: Repository, variant: str | None) -> set[str]:
    """A model and all that it needs as steps of steps."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        found.add(name := waiting.pop())
        model = _effective(repository, name, variant)
        steps = model.message.ensemble_scheduling.step if model is not None else ()
        waiting += [step.model_name for step in steps if step.model_name not in found]
    return found


@rule
def _ensemble_batch(ensemble: Subject, models: Sequence[Subject], messages: Sequence[Any]) -> Findings:
    """A step that does not batch takes whole tensors, whatever the batch."""
    whole = ensemble.message.max_batch_size
    for model, message in zip(models, messages, strict=True):
        part = message.max_batch_size
        if 0 < part < whole:
            yield ensemble.error(
                "max_batch_size",
                f"max_batch_size is {whole}, but step '{model.folder.name}' takes {part} at most "
                f"({model.config.label})",
                f"write max_batch_size: {part}, or raise the step's",
            )
