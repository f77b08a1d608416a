"""Lint rules for the model itself: its name, batch size, instances, cache, metrics and repository agents."""

from __future__ import annotations

from typing import Any

from export import files
from export.engine import gpu
from export.lint.finding import Findings, Subject, rule

AGENTS = ("checksum", "relocation")


def check(subject: Subject) -> Findings:
    """All rules of this file."""
    yield from _name(subject)
    yield from _max_batch_size(subject)
    yield from _instances(subject)
    yield from _gpu_here(subject)
    yield from _response_cache(subject)
    yield from _metrics(subject)
    yield from _agents(subject)
    yield from _op_library(subject)


@rule
def _name(subject: Subject) -> Findings:
    name, folder = subject.message.name, subject.folder.name
    if name and name != folder:
        yield subject.error("name", f"name is '{name}', the folder is '{folder}'", f'write name: "{folder}"')


@rule
def _max_batch_size(subject: Subject) -> Findings:
    size = subject.message.max_batch_size
    if size < 0:
        yield subject.error(
            "max_batch_size", f"max_batch_size is {size}", "write 0 for no batching, or the largest batch"
        )


@rule
def _instances(subject: Subject) -> Findings:
    for index, group in enumerate(subject.message.instance_group):
        field = f"instance_group[{index}]"
        kind = type(group).Kind.Name(group.kind)
        if group.count < 0:
            yield subject.error(
                f"{field}.count", f"count is {group.count}, which Triton takes without a word", "write 1 or more"
            )
        elif group.count == 0 and f"{field}.count" in subject.config.places:
            yield subject.warning(f"{field}.count", "count 0 means Triton's own default", "write how many instances")
        if kind in ("KIND_CPU", "KIND_MODEL") and group.gpus:
            yield subject.error(
                f"{field}.gpus", f"{kind} lists GPUs {list(group.gpus)}", "remove gpus, or write KIND_GPU"
            )
        for place, number in enumerate(group.gpus):
            if number < 0:
                yield subject.error(f"{field}.gpus[{place}]", f"GPU {number} cannot exist", "number GPUs from 0")
        yield from _profiles(subject, field, group)


def _profiles(subject: Subject, field: str, group: Any) -> Findings:
    if group.profile and subject.backend != "tensorrt":
        yield subject.error(
            f"{field}.profile",
            f"the backend '{subject.backend}' has no profiles",
            "only TensorRT has them: remove profile",
        )
        return
    for place, profile in enumerate(group.profile):
        if not profile.isdecimal():
            yield subject.error(f"{field}.profile[{place}]", f"profile is '{profile}'", 'write its number, as "0"')


@rule
def _gpu_here(subject: Subject) -> Findings:
    for index, group in enumerate(subject.message.instance_group):
        if group.kind == group.KIND_GPU and subject.variant is None and gpu.find() is None:
            yield subject.warning(
                f"instance_group[{index}].kind",
                "the instances need a GPU, and this machine has none: Triton refuses the model here",
                "serve it where there is one, or write a configuration for this machine in configs/cpu.pbtxt",
            )


@rule
def _response_cache(subject: Subject) -> Findings:
    message = subject.message
    if not message.response_cache.enable:
        return
    if message.HasField("sequence_batching"):
        yield subject.error("response_cache", "the response cache cannot serve sequences", "remove one of the two")
    if message.model_transaction_policy.decoupled:
        yield subject.error(
            "response_cache", "the response cache cannot serve a decoupled model", "remove one of the two"
        )


@rule
def _metrics(subject: Subject) -> Findings:
    for index, control in enumerate(subject.message.model_metrics.metric_control):
        field = f"model_metrics.metric_control[{index}]"
        if not control.metric_identifier.family:
            place = f"{field}.metric_identifier" if control.HasField("metric_identifier") else field
            yield subject.error(place, "the metric has no family", "write metric_identifier { family: ... }")
        if not control.histogram_options.buckets:
            place = f"{field}.histogram_options" if control.HasField("histogram_options") else field
            yield subject.error(place, "the histogram has no buckets", "list its buckets")


@rule
def _agents(subject: Subject) -> Findings:
    for index, agent in enumerate(subject.message.model_repository_agents.agents):
        if agent.name not in AGENTS:
            yield subject.error(
                f"model_repository_agents.agents[{index}].name",
                f"Triton brings no repository agent '{agent.name}' along",
                f"write one of {', '.join(AGENTS)}, or put libtritonrepoagent_{agent.name}.so on the server",
            )


@rule
def _op_library(subject: Subject) -> Findings:
    for index, name in enumerate(subject.message.model_operations.op_library_filename):
        if subject.backend == "onnxruntime" and (problem := files.problem(subject.folder, name)):
            yield subject.error(
                f"model_operations.op_library_filename[{index}]", f"{name} {problem}", "put the library there"
            )
