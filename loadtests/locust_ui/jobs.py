"""A Locust worker as a generator of a capacity search: jobs come from the master, records go back.

Messages, all with the number of the `job`: `fathom_payloads` and `fathom_job` (answered by `fathom_ready` or
`fathom_refused`), `fathom_go` (answered by `fathom_done` or `fathom_lost`), `fathom_stop`. The other end is
`loadtests.locust_ui.master`.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import asdict
from typing import Any

import numpy as np
import zmq.green

from loadtests.errors import GeneratorError, TargetLostError
from loadtests.generator.messages import Limits
from loadtests.generator.process import GeneratorProcess, GeneratorSettings
from loadtests.locust_ui.options import Reach
from loadtests.records.record import Outcome, Record
from loadtests.workload.sequences import Sequences

PAYLOADS, JOB, GO, STOP = "fathom_payloads", "fathom_job", "fathom_go", "fathom_stop"
READY, REFUSED, DONE, LOST = "fathom_ready", "fathom_refused", "fathom_done", "fathom_lost"


def look_often() -> None:
    """Lets Locust's sockets look for messages every second.

    zmq may miss an event under gevent, and then looks again only after 11.6 s: long enough for a Locust master to give
    up on all of its workers.
    """
    zmq.green.Socket._gevent_bug_timeout = 1.0


class Jobs:
    """The jobs of one Locust worker. Its generator process lives from the first job until the worker quits."""

    def __init__(self, environment: Any, reach: Reach) -> None:
        self._reach = reach
        self._runner = environment.runner
        self._payloads: list[bytes] = []
        self._target: GeneratorSettings | None = None
        self._worker: GeneratorProcess | None = None
        for message, listener in ((PAYLOADS, self._keep), (JOB, self._prepare), (GO, self._run), (STOP, self._stop)):
            self._runner.register_message(message, listener, concurrent=message in (JOB, GO))
        environment.events.quitting.add_listener(self._close)

    def _keep(self, environment: Any, msg: Any, **_: Any) -> None:
        self._payloads = msg.data["payloads"]
        self._target = None

    def _prepare(self, environment: Any, msg: Any, **_: Any) -> None:
        job, access = msg.data, self._reach.access
        if (expected := job["access"]) != access.described():
            why = f"a Locust worker has the access {access.described()}, the search {expected}"
            self._answer(REFUSED, job, message=f"{why}: give both the same TLS and --header options", ours=True)
            return
        try:
            sequences = job["target"].pop("sequences")
            settings = GeneratorSettings(
                payloads=self._payloads,
                access=access,
                real_time=self._reach.real_time,
                sequences=sequences and Sequences.from_json(sequences),
                **job["target"],
            )
            worker = self._started(settings)
            worker.prepare(
                np.frombuffer(job["intended_s"], np.float64),
                np.frombuffer(job["choices"], np.int32),
                Limits.from_json(job["limits"]),
            )
            worker.wait_ready()
        except TargetLostError as error:
            self._answer(REFUSED, job, message=str(error))
        except GeneratorError as error:
            self._answer(REFUSED, job, message=str(error), ours=True)
        else:
            self._answer(READY, job)

    def _run(self, environment: Any, msg: Any, **_: Any) -> None:
        assert self._worker is not None
        try:
            self._worker.go(time.monotonic() + msg.data["delay_s"])
            record, outcome = self._worker.result()
        except GeneratorError as error:
            self._answer(LOST, msg.data, message=str(error))
        else:
            self._answer(DONE, msg.data, **pack(record), outcome=asdict(outcome))

    def _stop(self, environment: Any, msg: Any, **_: Any) -> None:
        if self._worker is not None:
            with contextlib.suppress(GeneratorError):
                self._worker.stop()

    def _started(self, target: GeneratorSettings) -> GeneratorProcess:
        if self._worker is None or target != self._target:
            self._close()
            self._worker, self._target = GeneratorProcess(target).__enter__(), target
        elif not self._worker.alive:
            self._worker.start()
        return self._worker

    def _close(self, **_: Any) -> None:
        if self._worker is not None:
            self._worker.__exit__(None, None, None)
            self._worker = None

    def _answer(self, kind: str, job: dict[str, Any], **fields: Any) -> None:
        self._runner.send_message(kind, {"job": job["job"], **fields})


_COLUMNS: dict[str, Any] = {
    "sent_s": np.float64,
    "done_s": np.float64,
    "status": np.uint8,
    "first_s": np.float64,
    "gap_s": np.float64,
    "parts": np.uint32,
}


def pack(record: Record) -> dict[str, bytes]:
    """The parts of a record that were not known beforehand."""
    return {name: column.tobytes() for name, column in record.columns().items() if name in _COLUMNS}


def unpack(answer: dict[str, Any], intended_s: np.ndarray[Any, np.dtype[np.float64]]) -> tuple[Record, Outcome]:
    """The record of a part whose measured requests were intended at these times."""
    columns = {name: np.frombuffer(answer[name], kind) for name, kind in _COLUMNS.items() if name in answer}
    return Record.of_columns({"intended_s": intended_s, **columns}), Outcome(**answer["outcome"])
