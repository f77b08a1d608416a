"""Lint rules for the queue in front of a model: batching, priorities, bounds and timeouts."""

from __future__ import annotations

from typing import Any

from export.lint.finding import Findings, Subject, rule

REJECT, DELAY = 0, 1


def check(subject: Subject) -> Findings:
    """All rules of this file."""
    message = subject.message
    if message.HasField("dynamic_batching"):
        yield from _preferred_size(subject, "dynamic_batching", message.dynamic_batching)
        yield from _priorities(subject, message.dynamic_batching)
        yield from _ordering(subject, message.dynamic_batching)
        yield from _queue(subject, message.dynamic_batching)
        yield from _never_batched(subject)
    elif message.HasField("sequence_batching"):
        yield from _preferred_size(subject, "sequence_batching.oldest", message.sequence_batching.oldest)
    elif not subject.is_ensemble:
        yield from _no_queue(subject)


@rule
def _no_queue(subject: Subject) -> Findings:
    """A decoupled model can take each request at once, and have a queue of its own."""
    if subject.message.model_transaction_policy.decoupled:
        return
    yield subject.warning(
        "",
        "there is no dynamic_batching, so the queue has no bound and no timeout",
        "add dynamic_batching with a default_queue_policy: max_queue_size and default_timeout_microseconds",
    )


@rule
def _never_batched(subject: Subject) -> Findings:
    """A block that bounds the queue is a reason to have it without batching."""
    batching = subject.message.dynamic_batching
    beside_the_queue = {field.name for field, _ in batching.ListFields()} - {"default_queue_policy"}
    if subject.message.max_batch_size == 0 and (beside_the_queue or not batching.default_queue_policy.max_queue_size):
        yield subject.warning(
            "dynamic_batching",
            "max_batch_size is 0, so nothing is ever batched",
            "write max_batch_size, or keep the block for its queue policy only",
        )


@rule
def _preferred_size(subject: Subject, field: str, batching: Any) -> Findings:
    largest = subject.message.max_batch_size
    for index, size in enumerate(batching.preferred_batch_size):
        if not 1 <= size <= largest:
            yield subject.error(
                f"{field}.preferred_batch_size[{index}]",
                f"preferred_batch_size {size} is not in 1..{largest}, the max_batch_size",
                f"write at most {largest}, or raise max_batch_size",
            )


@rule
def _priorities(subject: Subject, batching: Any) -> Findings:
    levels, default = batching.priority_levels, batching.default_priority_level
    if levels and not 1 <= default <= levels:
        yield subject.error(
            "dynamic_batching.default_priority_level" if default else "dynamic_batching.priority_levels",
            f"there are {levels} priority levels, default_priority_level is {default}",
            f"write default_priority_level: 1 to {levels}",
        )
    for level in sorted(batching.priority_queue_policy):
        if not 1 <= level <= levels:
            report = subject.error if levels else subject.warning  # which Triton ignores
            yield report(
                f'dynamic_batching.priority_queue_policy["{level}"]',
                f"there is a queue policy for priority {level}, priority_levels is {levels}",
                f"write keys 1 to {levels}" if levels else "write priority_levels",
            )


@rule
def _ordering(subject: Subject, batching: Any) -> Findings:
    if not batching.preserve_ordering:
        return
    if batching.priority_levels > 1:
        yield subject.error(
            "dynamic_batching.preserve_ordering",
            f"order cannot be kept over {batching.priority_levels} priority levels",
            "remove one of the two",
        )
    for field, policy in _policies(batching):
        if policy.timeout_action == DELAY and policy.default_timeout_microseconds:
            yield subject.error(
                "dynamic_batching.preserve_ordering",
                f"order cannot be kept while {field} delays requests that time out",
                "write timeout_action: REJECT",
            )


@rule
def _queue(subject: Subject, batching: Any) -> Findings:
    for field, policy in _policies(batching):
        if policy.max_queue_size == 0:
            yield subject.warning(
                f"{field}.max_queue_size" if f"{field}.max_queue_size" in subject.config.places else field,
                "the queue has no bound: under overload it grows until every request is too late",
                "write max_queue_size, the most requests that may wait",
            )
        if policy.default_timeout_microseconds == 0:
            override = (
                ", and Triton ignores the client's own (allow_timeout_override)"
                if policy.allow_timeout_override
                else ""
            )
            yield subject.warning(
                f"{field}.default_timeout_microseconds" if override else field,
                f"requests wait without a timeout{override}",
                "write default_timeout_microseconds, after which an answer is of no use",
            )
        elif policy.timeout_action == DELAY:
            yield subject.warning(
                f"{field}.timeout_action",
                "requests that time out are served after all others",
                "write timeout_action: REJECT",
            )


def _policies(batching: Any) -> list[tuple[str, Any]]:
    """The default policy and those of the priority levels, with their field paths."""
    named = [
        (f'dynamic_batching.priority_queue_policy["{level}"].value', policy)
        for level, policy in sorted(batching.priority_queue_policy.items())
    ]
    return [("dynamic_batching.default_queue_policy", batching.default_queue_policy), *named]
