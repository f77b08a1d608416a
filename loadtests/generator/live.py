"""The handle on a generator that runs until it is stopped, at a rate that can change; it sends batches of results.

Works with threads and, in a process that gevent has patched (Locust), with greenlets: the generator is a process of its
own either way, which gevent never touches.
"""

from __future__ import annotations

import contextlib
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from loadtests.errors import GeneratorError, TargetLostError
from loadtests.generator.messages import Batch, write_payloads
from loadtests.generator.process import GeneratorSettings, JsonProcess
from loadtests.workload.arrivals import POISSON, Arrivals
from loadtests.workload.mix import ModelMix

OnBatch = Callable[[Batch], None]
_END_S = 5.0


class LiveRun:
    """Between `start` and `finish`; `on_batch` and `on_lost` (with why) run in a thread or greenlet of its own."""

    def __init__(
        self,
        target: GeneratorSettings,
        on_batch: OnBatch,
        *,
        seed: int = 0,
        arrivals: Arrivals = POISSON,
        mix: ModelMix | None = None,
        on_lost: Callable[[str], None] = lambda why: None,
    ) -> None:
        self._target = target
        self._on_batch = on_batch
        self._on_lost = on_lost
        self._seed = seed
        self._arrivals = arrivals
        self._mix = mix or ModelMix((len(target.payloads),), (1.0,))
        self._finished = threading.Event()
        self._ending = False

    @property
    def pid(self) -> int:
        """The process id of the generator."""
        return self._process.pid

    def start(self) -> None:
        """Connects, at a rate of 0. TargetLostError: no connection."""
        self._scratch = tempfile.TemporaryDirectory(prefix="fathom-generator-")
        payloads = Path(self._scratch.name) / "payloads.bin"
        write_payloads(payloads, self._target.payloads)
        self._process = JsonProcess("loadtests.generator", self._target.options)
        wanted = {
            "server": self._target.server,
            "payloads": str(payloads),
            "timeout_s": self._target.timeout_s,
            "channels": self._target.channels,
            "streamed": self._target.streamed,
            "access": self._target.access.to_json(),
            "seed": self._seed,
            "arrivals": self._arrivals.text,
            "sizes": self._mix.sizes,
            "weights": self._mix.weights,
        }
        self._send(stream=wanted)
        answer = self._receive(self._target.timeout_s)
        if answer is None or answer["state"] != "ready":
            self._end()
            if answer is None:
                raise GeneratorError("the generator process ended, or hung, before it began")
            if answer.get("kind") == "generator":
                raise GeneratorError(answer["message"])
            raise TargetLostError(
                f"{self._target.server} cannot be reached: {answer.get('message')}", server=self._target.server
            )
        threading.Thread(target=self._listen, daemon=True).start()

    def set_rate(self, rate_per_s: float, *, rebalanced: bool = False) -> None:
        """Requests a second from now on. `rebalanced`: other generators take over the difference, or gave it."""
        self._send(rate=rate_per_s, rebalanced=rebalanced)

    def finish(self) -> None:
        """Waits for the answers that are due, hands over the last batch and ends the process. May be called again."""
        if not self._ending:
            self._ending = True
            self._send(stop=True)
            self._finished.wait(self._target.timeout_s + _END_S)
            self._end()

    def _listen(self) -> None:
        while (answer := self._receive(self._target.timeout_s)) is not None and answer.pop("state") == "batch":
            self._on_batch(Batch.unpack(answer))
        self._finished.set()
        if answer is not None and "message" in answer:
            self._on_lost(answer["message"])
        elif not self._ending:
            self._on_lost("the generator process ended unexpectedly, or hung")

    def _receive(self, seconds: float) -> dict[str, Any] | None:
        """The next message; None when the process has ended, or was killed because it sent nothing for too long."""
        try:
            return self._process.receive(time.monotonic() + seconds + self._target.patience_s)
        except TimeoutError:
            self._process.kill()
            return None

    def _send(self, **command: Any) -> None:
        with contextlib.suppress(OSError):  # `on_lost` reports that it has ended
            self._process.send(**command)

    def _end(self) -> None:
        self._process.end()
        self._scratch.cleanup()
