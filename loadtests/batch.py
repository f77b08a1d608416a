"""What a streaming generator hands over every moment: the requests answered since the last time, and how it fares."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from loadtests.errors import GeneratorError
from loadtests.record import UNANSWERED, Record

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
        return {
            **fields,
            "messages": dict(self.messages),
            "record": base64.b64encode(b"".join(column.tobytes() for column in columns)).decode(),
            "waiting": base64.b64encode(waiting.intended_s.tobytes() + waiting.model.tobytes()).decode(),
        }

    @classmethod
    def unpack(cls, document: Mapping[str, Any]) -> Batch:
        fields = dict(document)
        content = base64.b64decode(fields.pop("record"))
        rows, rest = divmod(len(content), _ROW_BYTES)
        if rest:
            raise GeneratorError(f"a batch of {len(content)} bytes is no whole number of rows")
        times = np.frombuffer(content, np.float64, 3 * rows).reshape(3, rows)
        status, model = np.frombuffer(content, np.uint8, 2 * rows, 24 * rows).reshape(2, rows)
        record = Record(times[0], times[1], times[2], status, model)
        content = base64.b64decode(fields.pop("waiting"))
        count = len(content) // _WAITING_BYTES
        models = np.frombuffer(content, np.uint8, count, 8 * count)
        return cls(record=record, waiting=unanswered(np.frombuffer(content, np.float64, count), models), **fields)


def unanswered(intended_s: Any, model: Any = ()) -> Record:
    """Requests without an answer so far, of these models of a mix."""
    intended_s = np.asarray(intended_s, np.float64)
    nothing = np.full(len(intended_s), np.nan)
    status = np.full(len(intended_s), UNANSWERED, np.uint8)
    return Record(intended_s, intended_s, nothing, status, np.asarray(model, np.uint8))
