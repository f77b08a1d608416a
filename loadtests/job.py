"""The forms that pass between the load test and its generator process: one job in, one outcome back.

Small things travel as one JSON line on stdin or stdout; columns travel as `.npy` files in the job's folder, because a
minute at a few thousand requests per second is a million numbers.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadtests.errors import GeneratorError
from loadtests.record import Record

_LENGTH = struct.Struct("<I")


@dataclass(frozen=True)
class Limits:
    """When firing ends before its schedule does."""

    max_outstanding: int
    """More unanswered requests than this mean that the rate does not hold."""
    hopeless: tuple[tuple[float, int], ...] = ()
    """Pairs (latency limit in ms, count): so many requests over the limit, and the SLO is out of reach."""
    cooldown: int = 0
    """So many requests at the end of the schedule only keep the load up until all others are answered. They are not
    recorded: a server whose arrivals stop treats its last requests unlike all before (Triton's batcher may leave them
    for half a second)."""
    until_s: float = math.inf
    """Seconds from the start of the schedule to the end of the budget."""

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Limits:
        hopeless = tuple((float(limit_ms), int(count)) for limit_ms, count in document["hopeless"])
        return cls(document["max_outstanding"], hopeless, document["cooldown"], document["until_s"])


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

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Job:
        return cls(**{**document, "limits": Limits.from_json(document["limits"])})


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
    np.save(folder / "sent.npy", record.sent_s)
    np.save(folder / "done.npy", record.done_s)
    np.save(folder / "status.npy", record.status)
    np.save(folder / "worker.npy", record.worker)


def read_record(folder: Path) -> Record:
    """What was measured: the schedule without its cooldown."""
    try:
        intended_s = np.load(folder / "schedule.npy")
        sent_s, done_s, status, worker = (
            np.load(folder / f"{name}.npy") for name in ("sent", "done", "status", "worker")
        )
        return Record(intended_s[: len(sent_s)], sent_s, done_s, status, worker=worker)
    except (OSError, ValueError) as error:
        raise GeneratorError(f"the generator left no readable results in {folder}: {error}") from error
