"""What a streaming generator hands over every moment: the requests answered since the last time, and how it fares."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from loadtests.errors import GeneratorError
from loadtests.record import UNANSWERED, Record

_ROW_BYTES = 25  # three float64 and one uint8


@dataclass(frozen=True)
class Batch:
    """Times are unix seconds of the generator's machine."""

    record: Record
    """Requests that ended since the last batch, in the order of their intended times."""
    waiting: Record
    """Requests that are unanswered now; each batch says so anew."""
    rate_per_s: float
    since_s: float
    """When the present rate began."""
    at_s: float
    cpu_s: float
    """User and system time since the last batch, of `wall_s`."""
    wall_s: float
    messages: Mapping[str, str] = field(default_factory=dict)
    """The server's first message per status that is not OK."""

    def pack(self) -> dict[str, Any]:
        """Plain values, for JSON or msgpack."""
        fields = {name: getattr(self, name) for name in ("rate_per_s", "since_s", "at_s", "cpu_s", "wall_s")}
        columns = (self.record.intended_s, self.record.sent_s, self.record.done_s, self.record.status)
        return {
            **fields,
            "messages": dict(self.messages),
            "record": base64.b64encode(b"".join(column.tobytes() for column in columns)).decode(),
            "waiting": base64.b64encode(self.waiting.intended_s.tobytes()).decode(),
        }

    @classmethod
    def unpack(cls, document: Mapping[str, Any]) -> Batch:
        fields = dict(document)
        content = base64.b64decode(fields.pop("record"))
        rows, rest = divmod(len(content), _ROW_BYTES)
        if rest:
            raise GeneratorError(f"a batch of {len(content)} bytes is no whole number of rows")
        times = np.frombuffer(content, np.float64, 3 * rows).reshape(3, rows)
        record = Record(times[0], times[1], times[2], np.frombuffer(content, np.uint8, rows, 24 * rows))
        intended_s = np.frombuffer(base64.b64decode(fields.pop("waiting")), np.float64)
        return cls(record=record, waiting=unanswered(intended_s), **fields)


def unanswered(intended_s: Any) -> Record:
    """Requests without an answer so far."""
    intended_s = np.asarray(intended_s, np.float64)
    nothing = np.full(len(intended_s), np.nan)
    return Record(intended_s, intended_s, nothing, np.full(len(intended_s), UNANSWERED, np.uint8))
