"""Lint rules for the queue in front of a model: batching, priorities, bounds and timeouts, sequences."""

from __future__ import annotations

from typing import Any

from export.lint.finding import Findings, Subject

REJECT, DELAY = 0, 1


def check(subject: Subject) -> Findings:
    """All rules of this file."""
    message = subject.message
    if message.HasField("dynamic_batching"):
        yield from _preferred(subject, "dynamic_batching", message.dynamic_batching)
        yield from _priorities(subject, message.dynamic_batching)
        yield from _queues(subject, message.dynamic_batching)
        beside_the_queue = {field.name for field, _ in message.dynamic_batching.ListFields()} - {"default_queue_policy"}
        if message.max_batch_size == 0 and (beside_the_queue or not _bounded(message.dynamic_batching)):
            yield subject.warning(
                "dynamic_batching",
                "max_batch_size is 0, so nothing is ever batched",
                "write max_batch_size, or keep the block for its queue policy only",
            )
    elif message.HasField("sequence_batching"):
        yield from _sequences(subject, message.sequence_batching)
    elif not subject.is_ensemble:
        yield subject.warning(
            "",
            "there is no dynamic_batching, so the queue has no bound and no timeout",
            "add dynamic_batching with a default_queue_policy: max_queue_size and default_timeout_microseconds",
        )


def _bounded(batching: Any) -> bool:
    """Whether the block is there for its queue, which is a reason to have it without batching."""
    return bool(batching.default_queue_policy.max_queue_size)


def _preferred(subject: Subject, field: str, batching: Any) -> Findings:
    largest = subject.message.max_batch_size
    for index, size in enumerate(batching.preferred_batch_size):
        if not 1 <= size <= largest:
            yield subject.error(
                f"{field}.preferred_batch_size[{index}]",
                f"preferred_batch_size {size} is not in 1..{largest}, the max_batch_size",
                f"write at most {largest}, or raise max_batch_size",
            )


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
            yield subject.error(
                f'dynamic_batching.priority_queue_policy["{level}"]',
                f"there is a queue policy for priority {level}, priority_levels is {levels}",
                f"write keys 1 to {levels}" if levels else "write priority_levels",
            )
    if not batching.preserve_ordering:
        return
    if levels > 1:
        yield subject.error(
            "dynamic_batching.preserve_ordering",
            f"order cannot be kept over {levels} priority levels",
            "remove one of the two",
        )
    for field, policy in _policies(batching):
        if policy.timeout_action == DELAY and policy.default_timeout_microseconds:
            yield subject.error(
                "dynamic_batching.preserve_ordering",
                f"order cannot be kept while {field} delays requests that time out",
                "write timeout_action: REJECT",
            )


def _queues(subject: Subject, batching: Any) -> Findings:
    for field, policy in _policies(batching):
        if policy.max_queue_size == 0:
            yield subject.error(
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


def _sequences(subject: Subject, batching: Any) -> Findings:
    if batching.HasField("oldest"):
        yield from _preferred(subject, "sequence_batching.oldest", batching.oldest)
    for index, control_input in enumerate(batching.control_input):
        if not control_input.name:
            yield subject.error(f"sequence_batching.control_input[{index}]", "a control input has no name", "name it")
        if not control_input.control:
            yield subject.error(
                f"sequence_batching.control_input[{index}]",
                f"control input '{control_input.name}' controls nothing",
                "add control { kind: CONTROL_SEQUENCE_START ... }",
            )
