"""A Locust master that a capacity search sends with: to the search it looks like one generator process.

`python -m loadtests.locust_ui.master HOST PORT WORKERS` speaks what `loadtests.generator` speaks on stdin and stdout,
splits each schedule over the Locust workers that are connected, and merges their records. It is a process of its own
because Locust patches its process for gevent. The other end of its messages is `loadtests.locust_ui.jobs`.
"""

# isort: off
import locust.env  # first: it patches the process for gevent

# isort: on
import json
import signal
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import gevent
import gevent.fileobject

from loadtests.generator.messages import Job, read_payloads, read_schedule, write_record
from loadtests.generator.pool import Part, merge, split
from loadtests.locust_ui import jobs as words
from loadtests.records.record import Outcome, Record
from loadtests.text import guard_output

_FIRST_WAIT_S, _LATER_WAIT_S = 120.0, 5.0
_LAST_WAIT_S = 30.0  # when one dies, Locust may take the others for missing until their next words come through
_HEAD_START_S = 0.2
_LOOK_S = 0.02
_READY_S = 30.0
_NOBODY = (
    "no Locust worker has connected to {master_bind_host}:{master_bind_port}; start some: locust "
    "-f loadtests/locustfile.py --worker --master-host {master_bind_host} --master-port {master_bind_port}"
)
_NOTHING = Outcome(wall_s=0.0, cpu_s=0.0, stopped="", started_unix_s=0.0)


class LocustMaster:
    """Serves one job after the other."""

    def __init__(self, host: str, port: int, workers: int) -> None:
        environment = locust.env.Environment(events=locust.events)
        self._runner: Any = environment.create_master_runner(master_bind_host=host, master_bind_port=port)
        self._wanted = workers
        self._wait_s = _FIRST_WAIT_S
        self._job = 0
        self._answers: dict[str, dict[str, dict[str, Any]]] = {}
        self._has_payloads: set[str] = set()
        self._commands = gevent.fileobject.FileObject(sys.stdin.fileno(), "r")
        for message in (words.READY, words.REFUSED, words.DONE, words.LOST):
            self._runner.register_message(message, self._note)

    def serve(self) -> None:
        """Serve until stdin ends; the workers quit then."""
        while line := self._commands.readline():
            command = json.loads(line)
            if "server" in command:
                self._run(Job.from_json(command))
        self._runner.quit()

    def _run(self, job: Job) -> None:
        names = self._connected()
        if not names:
            _send(state="error", kind="generator", message=_NOBODY.format(**vars(self._runner)))
            return
        folder = Path(job.folder)
        intended_s, choices = read_schedule(folder)
        parts = dict(zip(names, split(intended_s, choices, job.limits, len(names), seed=job.seed), strict=True))
        self._job += 1
        self._answers = {}
        for name, part in parts.items():
            self._hand_over(name, part, job)
        lost = self._wait(names, words.READY, words.REFUSED, _READY_S)
        if refused := self._answers.get(words.REFUSED):
            first = next(iter(refused.values()))
            _send(state="error", kind="generator" if first.get("ours") else "", message=first["message"])
            return
        _send(state="ready")
        if not json.loads(self._commands.readline() or "{}").get("go"):
            return
        for name in names:
            self._send(words.GO, name, delay_s=_HEAD_START_S)
        listening = gevent.spawn(self._stop_when_asked, names)
        lost |= self._wait([name for name in names if name not in lost], words.DONE, words.LOST, None)
        listening.kill()
        lost |= {name: answer["message"] for name, answer in self._answers.get(words.LOST, {}).items()}
        found = [self._found(name, part) for name, part in parts.items()]
        record, outcome = merge(found, lost={names.index(name): how for name, how in lost.items()})
        write_record(folder, record)
        _send(state="done", **asdict(outcome))

    def _connected(self) -> list[str]:
        """Wait for the wanted number of workers, or return those that have connected after a while."""
        if len(self._ready()) < self._wanted:
            host, port = self._runner.master_bind_host, self._runner.master_bind_port
            print(f"waiting for {self._wanted} Locust workers at {host}:{port}", file=sys.stderr, flush=True)
        self._await(self._wanted, self._wait_s)
        if not self._ready():
            self._await(1, _LAST_WAIT_S)
            self._await(self._wanted, _LATER_WAIT_S)  # they come back one after the other
        self._wait_s = _LATER_WAIT_S
        return self._ready()

    def _await(self, wanted: int, wait_s: float) -> None:
        with gevent.Timeout(wait_s, False):
            while len(self._ready()) < wanted:
                gevent.sleep(_LOOK_S)

    def _ready(self) -> list[str]:
        """In the order in which they connected."""
        return sorted((worker.id for worker in self._runner.clients.ready), key=self._runner.get_worker_index)

    def _hand_over(self, name: str, part: Part, job: Job) -> None:
        if name not in self._has_payloads:
            self._send(words.PAYLOADS, name, payloads=read_payloads(Path(job.payloads)))
            self._has_payloads.add(name)
        target = {key: getattr(job, key) for key in ("server", "timeout_s", "channels", "streamed")}
        target["sequences"] = job.sequences and asdict(job.sequences)
        self._send(
            words.JOB,
            name,
            target=target,
            access=job.access.described(),
            intended_s=part.intended_s.tobytes(),
            choices=part.choices.tobytes(),
            limits=asdict(part.limits),
        )

    def _wait(self, names: list[str], good: str, bad: str, seconds: float | None) -> dict[str, str]:
        """Until all have answered or are gone; returns how those that are gone went. The first early stop stops all."""
        waiting, gone, stopped = set(names), {}, False
        with gevent.Timeout(seconds, False):
            while waiting:
                gevent.sleep(_LOOK_S)
                waiting -= self._answers.get(good, {}).keys() | self._answers.get(bad, {}).keys()
                for name in list(waiting):
                    client = self._runner.clients.get(name)
                    if client is None or client.state == "missing":
                        waiting.discard(name)
                        gone[name] = f"({name}) went missing"
                early = any(answer["outcome"]["stopped"] for answer in self._answers.get(words.DONE, {}).values())
                if good == words.DONE and not stopped and (gone or early or self._answers.get(bad)):
                    stopped = True
                    for name in names:
                        self._send(words.STOP, name)
        return gone | {name: f"({name}) did not answer" for name in waiting}

    def _found(self, name: str, part: Part) -> tuple[Record, Outcome]:
        answer = self._answers.get(words.DONE, {}).get(name)
        if answer is None:
            return part.unsent(), _NOTHING
        return words.unpack(answer, part.intended_s[: part.measured])

    def _stop_when_asked(self, names: list[str]) -> None:
        if not self._commands.readline():
            return
        for name in names:
            self._send(words.STOP, name)

    def _send(self, message: str, name: str, **fields: Any) -> None:
        self._runner.send_message(message, {"job": self._job, **fields}, client_id=name)

    def _note(self, environment: Any, msg: Any, **_: Any) -> None:
        if msg.data["job"] == self._job:
            self._answers.setdefault(msg.type, {})[msg.node_id] = msg.data


def _send(**fields: Any) -> None:
    print(json.dumps(fields), flush=True)


def main() -> None:
    guard_output("stderr")  # stdout is for a program
    host, port, workers = sys.argv[1:]
    # They reach the whole process group; the search decides what they mean, and closes our stdin when it ends.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    words.look_often()
    LocustMaster(host, int(port), int(workers)).serve()


if __name__ == "__main__":
    main()
