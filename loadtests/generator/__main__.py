"""The generator's own process: reads jobs from stdin, sends their requests, and writes what happened.

Run as `python -m loadtests.generator`; the other end is `loadtests.generator.process`. Per job, one JSON line each:
job -> `{"state": "ready"}` -> `{"go": true, "at_s": null}` -> `{"state": "done", ...}`, or
`{"state": "error", "message": ...}` in place of an answer: with `"kind": "generator"` the fault is ours.
`{"stop": true}` ends a running job early.

A command `{"stream": {...}}` starts a run without an end instead (the other end is `loadtests.generator.live`):
`{"state": "ready"}`, then `{"rate": 200}` as often as wanted, a `{"state": "batch", ...}` every moment, and after
`{"stop": true}` the last batch and `{"state": "done"}`.

The process ends when its stdin does, so it cannot outlive its parent.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from loadtests.errors import LoadTestError
from loadtests.generator.clock import take_priority
from loadtests.generator.continuous import ContinuousRun
from loadtests.generator.http2 import Http2Transport
from loadtests.generator.messages import NORMAL_PRIORITY, Job, read_payloads, read_schedule, within, write_record
from loadtests.generator.open_loop import OpenLoopRun
from loadtests.generator.sequences import SequenceRun
from loadtests.generator.transport import OnDone, OnFirst, Transport
from loadtests.target.access import Access
from loadtests.text import guard_output
from loadtests.workload.arrivals import parse_arrivals
from loadtests.workload.mix import ModelMix

_LONGEST_COMMAND = 1 << 22


class Generator:
    """Serves one job after the other."""

    def __init__(self, commands: asyncio.StreamReader, priority: str) -> None:
        self._commands = commands
        self._priority = priority
        self._payload_path = ""
        self._payloads: list[bytes] = []
        self._connections = 0  # that the last job needed, so the next one does not have to find out again

    async def serve(self) -> None:
        while (command := await self._read()) is not None:
            try:
                if "server" in command:
                    await self._run_schedule(Job.from_json(command))
                elif "stream" in command:
                    await self._run_on(command["stream"])
            except (OSError, LoadTestError) as error:
                _send(state="error", kind="generator", message=str(error))

    async def _run_schedule(self, job: Job) -> None:
        folder = Path(job.folder)
        if job.payloads != self._payload_path:
            self._payloads = read_payloads(Path(job.payloads))
            self._payload_path = job.payloads
        intended_s, choices = read_schedule(folder)

        def make_transport(on_done: OnDone, on_first: OnFirst) -> Http2Transport:
            return Http2Transport(
                job.server,
                () if job.sequences else self._payloads,
                on_done,
                on_first,
                channels=max(job.channels, self._connections),
                timeout_s=job.timeout_s,
                access=job.access,
                streamed=within(job.streamed),
            )

        kind: Callable[..., OpenLoopRun] = OpenLoopRun
        if job.sequences:
            kind = functools.partial(SequenceRun, sequences=job.sequences, requests=self._payloads)
        run = kind(intended_s, choices, job.limits, timeout_s=job.timeout_s, make_transport=make_transport)
        if not await _connect(run.transport):
            return
        _send(state="ready")
        command = await self._read()
        if command is None or not command.get("go"):
            return
        listening = asyncio.ensure_future(self._stop_when_asked(run))
        record, outcome = await run.run(command.get("at_s"))
        listening.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await listening
        self._connections = run.transport.connections
        write_record(folder, record)
        _send(state="done", **asdict(replace(outcome, priority=self._priority)))

    async def _run_on(self, wanted: dict[str, Any]) -> None:
        payloads = read_payloads(Path(wanted["payloads"]))
        timeout_s, access = wanted["timeout_s"], Access.from_json(wanted["access"])

        def make_transport(on_done: OnDone, on_first: OnFirst) -> Http2Transport:
            return Http2Transport(
                wanted["server"],
                payloads,
                on_done,
                on_first,
                channels=wanted["channels"],
                timeout_s=timeout_s,
                access=access,
                streamed=within(wanted["streamed"]),
            )

        run = ContinuousRun(
            ModelMix(tuple(wanted["sizes"]), tuple(wanted["weights"])),
            make_transport,
            lambda batch: _send(state="batch", **batch.pack()),
            seed=wanted["seed"],
            arrivals=parse_arrivals(wanted["arrivals"]),
            timeout_s=timeout_s,
        )
        if not await _connect(run.transport):
            return
        running = asyncio.ensure_future(run.run())
        await asyncio.sleep(0)
        _send(state="ready")
        steering = asyncio.ensure_future(self._steer(run))
        await running
        steering.cancel()
        _send(state="done")

    async def _steer(self, run: ContinuousRun) -> None:
        while (command := await self._read()) is not None:
            if "rate" in command:
                run.set_rate(command["rate"], rebalanced=command["rebalanced"])
            elif "stop" in command:
                run.finish()
                return
        os._exit(0)

    async def _stop_when_asked(self, run: OpenLoopRun) -> None:
        command = await self._read()
        if command is None:
            os._exit(0)  # the parent is gone, and nobody will read the results
        run.stop("asked")

    async def _read(self) -> dict[str, Any] | None:
        line = await self._commands.readline()
        return json.loads(line) if line else None


async def _connect(transport: Transport) -> bool:
    """Whether it could; the fault is the server's, or that of the way to it, where not."""
    try:
        await transport.open()
    except OSError as error:
        _send(state="error", message=str(error))
        return False
    return True


def _send(**fields: Any) -> None:
    print(json.dumps(fields), flush=True)


def _fail(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What goes wrong unexpectedly in the loop is our fault, and must not look like the server's."""
    loop.default_exception_handler(context)
    _send(state="error", kind="generator", message=f"the generator failed: {context.get('exception')!r}")
    os._exit(1)


async def _serve(priority: str) -> None:
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(_fail)
    commands = asyncio.StreamReader(limit=_LONGEST_COMMAND)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    await Generator(commands, priority).serve()


def main() -> None:
    guard_output("stderr")  # stdout is for a program
    # Ctrl-C, and often SIGTERM, reach the whole process group; the parent decides what they mean and tells us.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    priority = take_priority(real_time=NORMAL_PRIORITY not in sys.argv)
    try:
        import uvloop
    except ImportError:  # works on every platform, a little slower
        asyncio.run(_serve(priority))
    else:
        uvloop.run(_serve(priority))


if __name__ == "__main__":
    main()
