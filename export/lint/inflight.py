"""Lint rule for `ensemble_scheduling.max_inflight_requests`, Triton's bound on what waits between an ensemble's steps.

A decoupled step may answer faster than the next one takes; what waits between them is held in memory without a bound.
Since 26.04 the field bounds it for each step, over all requests of the ensemble together. Older releases, the embedded
one among them, do not know the field and refuse the model.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from export.lint.finding import Findings, Subject, rule

SINCE = "26.04"
FIELD = "ensemble_scheduling.max_inflight_requests"
START = 16
"""Where to begin: NVIDIA advises a small value, adjusted by memory and throughput."""


@rule
def inflight_requests(
    repository: Mapping[str, Sequence[Subject]], models: Sequence[str], triton_tag: str | None
) -> Findings:
    """All rules of this file for every ensemble; `triton_tag` is the release that serves it, None where it is not
    known."""
    release = found[0] if (found := re.match(r"\d\d\.\d\d", triton_tag or "")) else None
    for name in models:
        subjects = repository.get(name, ())
        for subject in subjects:
            if not subject.is_ensemble:
                continue
            if _bound(subject):
                yield from _known(subject, release)
            elif release is not None and release >= SINCE and not _elsewhere(subject, subjects):
                yield from _unbounded(subject, repository)


def _bound(subject: Subject) -> int:
    """What the configuration says; 0 is no bound, as where the protocol of an older tritonclient lacks the field."""
    return int(getattr(subject.message.ensemble_scheduling, "max_inflight_requests", 0))


def _known(subject: Subject, release: str | None) -> Findings:
    if release is not None and release < SINCE:
        yield subject.error(
            FIELD, f"Triton {release} refuses it, it came with {SINCE}", "remove it, or deploy a newer one"
        )
    elif subject.variant is None:
        yield subject.warning(
            FIELD, "the embedded Triton (24.10) refuses it", "move it into configs/gpu.pbtxt, a copy of this file"
        )


def _elsewhere(subject: Subject, subjects: Sequence[Subject]) -> bool:
    """Whether this is the main configuration of a model whose named one has the bound."""
    return subject.variant is None and any(_bound(each) for each in subjects if each.variant)


def _unbounded(subject: Subject, repository: Mapping[str, Sequence[Subject]]) -> Findings:
    steps = subject.message.ensemble_scheduling.step
    taken = {source for step in steps for source in step.input_map.values()}
    for index, step in enumerate(steps):
        decoupled = any(each.message.model_transaction_policy.decoupled for each in repository.get(step.model_name, ()))
        if decoupled and taken & {*step.output_map.values()}:
            yield subject.warning(
                f"ensemble_scheduling.step[{index}]",
                f"'{step.model_name}' is decoupled, and its answers wait for the next step without a bound",
                f"write max_inflight_requests: {START} in ensemble_scheduling of configs/gpu.pbtxt",
            )
