"""Which requests of a pool belong together, as a model that keeps state sees them, and when each of them is due.

A sequence is like a person who speaks: its requests come at a fixed interval, whatever the server does, but each one
waits until the one before is answered, as it does in a client. What it waits counts as latency, which runs from the
instant at which the request was due.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadtests.errors import BadRequestError
from loadtests.records.record import Record
from loadtests.target.client import Target
from loadtests.target.parameters import Payload, requests_in
from loadtests.workload.schedule import Offsets

_FEWEST_REQUESTS = 2
"""Of the longest sequence: single requests are no sequences."""


@dataclass(frozen=True)
class Sequences:
    """One entry per sequence of the pool, in its order. A request to a model without state is a sequence of its own."""

    lengths: tuple[int, ...]
    """In requests."""
    intervals_s: tuple[float, ...]
    """Between two requests; 0 where the model keeps no state."""

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Sequences:
        return cls(tuple(document["lengths"]), tuple(document["intervals_s"]))

    @classmethod
    def of(cls, pools: Iterable[Sequence[Payload]], intervals_s: Iterable[float]) -> Sequences:
        """The sequences of several models, each with the interval of its own."""
        lengths, each_s = list[int](), list[float]()
        for pool, interval_s in zip(pools, intervals_s, strict=True):
            lengths += [len(requests_in(payload)) for payload in pool]
            each_s += [interval_s] * len(pool)
        return cls(tuple(lengths), tuple(each_s))

    @cached_property
    def firsts(self) -> NDArray[np.int64]:
        """The place in the pool of each one's first request."""
        return np.concatenate([[0], np.cumsum(self.lengths)[:-1]]).astype(np.int64)

    @cached_property
    def lengths_s(self) -> NDArray[np.float64]:
        """From the first request of each to its last."""
        return np.asarray((np.asarray(self.lengths) - 1) * np.asarray(self.intervals_s), np.float64)

    def marked(self, record: Record, choices: NDArray[np.int32]) -> Record:
        """The record with how long each sequence is."""
        state = np.asarray(self.intervals_s)[choices] > 0
        begun_s = np.where(state, record.intended_s - self.lengths_s[choices], np.nan)
        requests = np.where(state, np.asarray(self.lengths)[choices], 0).astype(np.uint32)
        return replace(record, begun_s=begun_s, requests=requests)

    def ends(self, starts_s: Offsets, choices: NDArray[np.int32]) -> tuple[Offsets, NDArray[np.int32]]:
        """When the last request of each sequence is due, and which sequence that is, in this order."""
        ends_s = starts_s + self.lengths_s[choices]
        order = np.argsort(ends_s, kind="stable")
        return ends_s[order], choices[order]

    def described(self, first: int, end: int) -> dict[str, float]:
        """What results record of those of one model."""
        lengths_s = self.lengths_s[first:end]
        return {
            "interval_s": self.intervals_s[first],
            "requests_mean": float(np.mean(self.lengths[first:end])),
            "mean_s": float(lengths_s.mean()),
            "longest_s": float(lengths_s.max()),
        }


def sequences_of(
    targets: Sequence[Target], pools: Sequence[Sequence[Payload]], given_s: Sequence[float | None], *, strict: bool
) -> Sequences | None:
    """What the pools of these models are; None where none of them keeps state, which is wrong if `strict`.

    `given_s` are the intervals between two requests. Raises BadRequestError.
    """
    intervals_s = [interval_s(*each) for each in zip(targets, given_s, strict=True)]
    if any(intervals_s):
        if streaming := [target.model for target in targets if target.streams]:
            stateful = next(target.model for target in targets if target.keeps_state)
            raise BadRequestError(
                f"{stateful} keeps state between requests, and {streaming[0]} streams its answers: measure each by "
                "itself",
                field="mix",
            )
        return Sequences.of(pools, intervals_s)
    if strict:
        models = ", ".join(target.model for target in targets)
        raise BadRequestError(
            f"no model of the workload ({models}) keeps state between requests: leave out the interval between those "
            f"of a sequence ({given_s[0]:g} s)",
            field="interval_s",
        )
    return None


def interval_s(target: Target, given_s: float | None) -> float:
    """Between two requests of a sequence; 0 where the model keeps no state. Raises BadRequestError."""
    if not target.keeps_state:
        return 0.0
    if given_s is None or not (math.isfinite(given_s) and given_s > 0):
        raise BadRequestError(
            f"{target.model} keeps state between requests: add the time between two requests of a sequence, as in "
            f"--sequence-interval 80ms{'' if given_s is None else f' ({given_s:g} s is not above 0)'}",
            field="interval_s",
        )
    if given_s >= target.idle_s:
        raise BadRequestError(
            f"{target.model} ends a sequence after {target.idle_s:g} s without a request (its "
            f"max_sequence_idle_microseconds): give an interval below that, not {given_s:g} s",
            field="interval_s",
        )
    return given_s


def check_payloads(target: Target, payloads: Sequence[Payload]) -> None:
    """BadRequestError unless they are sequences of requests where the model keeps state, and requests elsewhere."""
    sequences = [payload for payload in payloads if not isinstance(payload, bytes)]
    problem = ""
    if not target.keeps_state and sequences:
        problem = f"{target.model} keeps no state between requests: send single requests, not sequences"
    elif target.keeps_state and max(map(len, sequences), default=0) < _FEWEST_REQUESTS:
        problem = f"{target.model} keeps state between requests: send sequences of requests, not single ones"
    elif target.keeps_state and (len(sequences) < len(payloads) or not all(sequences)):
        problem = f"{target.model} keeps state between requests: all inputs must be sequences of requests"
    if problem:
        raise BadRequestError(problem, field="payloads")
