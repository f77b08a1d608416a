"""The forms that pass between the load test and its generator process: one job in, one outcome back.

Small things travel as one JSON line on stdin or stdout; columns travel as `.npy` files in the job's folder, because a
minute at a few thousand requests per second is a million numbers.
"""

from __future__ import annotations

import base64
import itertools
import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from loadtests.errors import GeneratorError
from loadtests.records.record import UNANSWERED, Record
from loadtests.slo import Measure
from loadtests.target.access import Access
from loadtests.workload.sequences import Sequences

Ranges = Sequence[tuple[int, int]]
"""Parts of the pool of payloads: the first place of each, and the one behind its last."""

_LENGTH = struct.Struct("<I")
# Triton 2.51 can crash when many are cancelled (docs/known-issues.md), and what still waits there would slow the
# next probe: answers nobody needs are awaited, and only what takes longer is cancelled.
DRAIN_S = 5.0
NORMAL_PRIORITY = "--normal-priority"
"""The option of a generator process that is not to take real-time priority."""


@dataclass(frozen=True)
class EarlyStop:
    """The number of requests over a limit at which its SLO is out of reach."""

    limit_ms: float
    count: int
    measure: Measure = ""
    payloads: tuple[int, int] | None = None
    """The requests that are meant: those whose payload lies in this part of the pool; all by default."""

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> EarlyStop:
        payloads = document["payloads"]
        return cls(**{**document, "payloads": payloads and (payloads[0], payloads[1])})


@dataclass(frozen=True)
class Limits:
    """When a run ends before its schedule does."""

    max_outstanding: int
    """More unanswered requests than this mean that the rate does not hold."""
    early_stop: tuple[EarlyStop, ...] = ()
    cooldown: int = 0
    """So many requests at the end of the schedule only keep the load up until all others are answered. They are not
    recorded: a server whose arrivals stop treats its last requests unlike all before (Triton's batcher may leave them
    for half a second)."""
    until_s: float = math.inf
    """Seconds from the start of the schedule to the end of the budget."""

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Limits:
        early_stop = tuple(map(EarlyStop.from_json, document["early_stop"]))
        return cls(document["max_outstanding"], early_stop, document["cooldown"], document["until_s"])


@dataclass(frozen=True)
class Job:
    """One probe for one generator. `folder` holds `schedule.npy` and `choices.npy` and receives the results."""

    server: str
    payloads: str
    folder: str
    limits: Limits
    timeout_s: float = 10.0
    channels: int = 2
    seed: int = 0
    """Who splits the schedule among several generators does it by this."""
    access: Access = field(default_factory=Access)
    streamed: Ranges = ()
    """Payloads whose answers come in parts."""
    sequences: Sequences | None = None
    """What a choice is among, where it is not among the payloads."""

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "access": self.access.to_json()}

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Job:
        limits, access = Limits.from_json(document["limits"]), Access.from_json(document["access"])
        sequences = document["sequences"] and Sequences.from_json(document["sequences"])
        return cls(**{**document, "limits": limits, "access": access, "sequences": sequences})


def within(ranges: Ranges) -> Iterator[int]:
    """The numbers of the payloads."""
    return itertools.chain.from_iterable(itertools.starmap(range, ranges))


def write_payloads(path: Path, payloads: Sequence[bytes]) -> None:
    """Each encoded request behind its length (four bytes, little endian)."""
    with path.open("wb") as file:
        for payload in payloads:
            file.write(_LENGTH.pack(len(payload)))
            file.write(payload)


def read_payloads(path: Path) -> list[bytes]:
    content = path.read_bytes()
    payloads, position = [], 0
    while position < len(content):
        (length,) = _LENGTH.unpack_from(content, position)
        position += _LENGTH.size
        payloads.append(content[position : position + length])
        position += length
    return payloads


def write_schedule(folder: Path, intended_s: NDArray[np.float64], choices: NDArray[np.int32]) -> None:
    np.save(folder / "schedule.npy", intended_s)
    np.save(folder / "choices.npy", choices)


def read_schedule(folder: Path) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
    return np.load(folder / "schedule.npy"), np.load(folder / "choices.npy")


def write_record(folder: Path, record: Record) -> None:
    np.savez(folder / "record.npz", **record.columns())


def read_record(folder: Path) -> Record:
    """The record of a run: the schedule without its cooldown."""
    try:
        with np.load(folder / "record.npz") as columns:
            return Record.of_columns(columns)
    except (OSError, ValueError, KeyError, BadZipFile) as error:
        raise GeneratorError(f"the generator left no readable results in {folder}: {error}") from error


# What a streaming generator hands over every moment: the requests answered since the last time, and how it fares.

_ROW_BYTES = 26  # three float64 and two uint8
_WAITING_BYTES = 9


@dataclass(frozen=True)
class Batch:
    """Times are unix seconds of the generator's machine."""

    record: Record
    """Requests that ended since the last batch, in the order of their intended times."""
    waiting: Record
    """Requests that are unanswered now; each batch says so anew."""
    rate_per_s: float
    since_s: float
    """When the present rate of all generators together began."""
    at_s: float
    cpu_s: float
    """User and system time since the last batch, of `wall_s`."""
    wall_s: float
    messages: Mapping[str, str] = field(default_factory=dict)
    """The server's first message per status that is not OK."""
    final: bool = False
    """Whether the generator has finished: every request it measured is in this batch or an earlier one."""

    def pack(self) -> dict[str, Any]:
        """Plain values, for JSON or msgpack."""
        fields = {name: getattr(self, name) for name in ("rate_per_s", "since_s", "at_s", "cpu_s", "wall_s", "final")}
        record, waiting = self.record, self.waiting
        columns = (record.intended_s, record.sent_s, record.done_s, record.status, record.model)
        parts = (record.first_s, record.gap_s, record.parts) if record.streamed else ()
        return {
            **fields,
            "messages": dict(self.messages),
            "record": _packed(*columns),
            "parts": _packed(*parts),
            "waiting": _packed(waiting.intended_s, waiting.model),
            "begun": _packed(waiting.first_s, waiting.parts) if waiting.streamed else "",
        }

    @classmethod
    def unpack(cls, document: Mapping[str, Any]) -> Batch:
        fields = dict(document)
        content = base64.b64decode(fields.pop("record"))
        rows, rest = divmod(len(content), _ROW_BYTES)
        if rest:
            raise GeneratorError(f"a batch of {len(content)} bytes is not a whole number of rows")
        times = np.frombuffer(content, np.float64, 3 * rows).reshape(3, rows)
        status, model = np.frombuffer(content, np.uint8, 2 * rows, 24 * rows).reshape(2, rows)
        record = Record(times[0], times[1], times[2], status, model)
        if content := base64.b64decode(fields.pop("parts")):
            first_s, gap_s = np.frombuffer(content, np.float64, 2 * rows).reshape(2, rows)
            parts = np.frombuffer(content, np.uint32, rows, 16 * rows)
            record = replace(record, first_s=first_s, gap_s=gap_s, parts=parts)
        content = base64.b64decode(fields.pop("waiting"))
        count = len(content) // _WAITING_BYTES
        models = np.frombuffer(content, np.uint8, count, 8 * count)
        waiting = unanswered(np.frombuffer(content, np.float64, count), models)
        if content := base64.b64decode(fields.pop("begun")):
            first_s, parts = (
                np.frombuffer(content, np.float64, count),
                np.frombuffer(content, np.uint32, count, 8 * count),
            )
            waiting = replace(waiting, first_s=first_s, parts=parts)
        return cls(record=record, waiting=waiting, **fields)


def _packed(*columns: NDArray[Any]) -> str:
    return base64.b64encode(b"".join(column.tobytes() for column in columns)).decode()


def unanswered(intended_s: Any, model: Any = (), first_s: Any = (), parts: Any = ()) -> Record:
    """Requests without a whole answer so far, of these models of a mix; of streams what came, NaN and 0 for nothing."""
    intended_s = np.asarray(intended_s, np.float64)
    nothing = np.full(len(intended_s), np.nan)
    status = np.full(len(intended_s), UNANSWERED, np.uint8)
    return Record(
        intended_s, intended_s, nothing, status, np.asarray(model, np.uint8),
        first_s=np.asarray(first_s, np.float64), parts=np.asarray(parts, np.uint32),
    )  # fmt: skip
