"""Doubles for the modules of `recipe_writer`: a decoder without a network, and a reply that keeps its parts."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

WORDS = 97


def next_token(tokens: Sequence[int]) -> int:
    """Another one for any other history, so that a token of a neighbour's shows in all that follow it."""
    value = 7
    for token in tokens:
        value = (value * 31 + token + 1) % 1_000_003
    return value % WORDS


def alone(prompt: Sequence[int], count: int) -> list[int]:
    """The tokens that follow the prompt."""
    tokens = list(prompt)
    for _ in range(count):
        tokens.append(next_token(tokens))
    return tokens[len(prompt) :]


class ListDecoder:
    """A decoder whose caches are lists of tokens, each one's logits a single 1 at `next_token`.

    A slot holds what was left there by another until it is written over, as the real one does. Each run raises the next
    of `errors` that is not None. A `gated` one waits in each run until `let` lets it go on.
    """

    def __init__(self, slots: int = 3, context: int = 64, *, prefix: Sequence[int] = (), gated: bool = False) -> None:
        self.slots, self.context, self._prefix = slots, context, list(prefix)
        self._caches = [[WORDS - 1] * context for _ in range(slots)]
        self.runs: list[int] = []  # rows of each step; minus the tokens of each piece of a prompt
        self.errors: list[Exception | None] = []
        self._permits = threading.Semaphore(0 if gated else 1_000_000)
        self._entered = threading.Semaphore(0)

    def inside(self) -> None:
        """Wait until a run has begun that was not let go on."""
        assert self._entered.acquire(timeout=30)
        self._entered.release()

    def let(self, runs: int) -> None:
        """Wait for so many runs to begin, and let them go on."""
        for _ in range(runs):
            assert self._entered.acquire(timeout=30)
            self._permits.release()

    def open(self) -> None:
        """Let all go on from now on."""
        self._permits.release(1_000_000)

    def begin(self, slot: int) -> int:
        self._caches[slot][: len(self._prefix)] = self._prefix
        return len(self._prefix)

    def prefill(self, slot: int, ids: Any, past: int) -> Any:
        self._run(-len(ids))
        self._caches[slot][past : past + len(ids)] = [int(token) for token in ids]
        return self._logits(slot, past + len(ids))

    def step(self, tokens: Sequence[int], lengths: Sequence[int]) -> Any:
        self._run(len(tokens))
        for slot, (token, length) in enumerate(zip(tokens, lengths, strict=True)):
            self._caches[slot][length] = token
        return np.stack([self._logits(slot, length + 1) for slot, length in enumerate(lengths)])

    def copy(self, source: int, target: int, length: int) -> None:
        self._caches[target][:length] = self._caches[source][:length]

    def _logits(self, slot: int, length: int) -> Any:
        assert length <= self.context
        logits = np.zeros(WORDS, np.float32)
        logits[next_token(self._caches[slot][:length])] = 1
        return logits

    def _run(self, what: int) -> None:
        self.runs.append(what)
        self._entered.release()
        self._permits.acquire()
        if self.errors and (error := self.errors.pop(0)):
            raise error


class KeptReply:
    """The parts of one answer, kept. It is cancelled once it has `leave_after` parts, or when `cancelled` is set."""

    def __init__(self, leave_after: int = 0) -> None:
        self._leave_after = leave_after
        self.parts: list[tuple[str, str, int, int]] = []
        self.error = ""
        self.cancelled = False
        self.ended = threading.Event()

    def is_cancelled(self) -> bool:
        assert not self.ended.is_set(), "Triton has forgotten a request whose last part was sent"
        return self.cancelled or 0 < self._leave_after <= len(self.parts)

    def send(self, text: str, reason: str, prompt_tokens: int, output_tokens: int) -> None:
        assert not self.ended.is_set()
        self.parts.append((text, reason, prompt_tokens, output_tokens))
        if reason:
            self.ended.set()

    def fail(self, message: str) -> None:
        self.error = message
        self.close()

    def close(self) -> None:
        assert not self.ended.is_set()
        self.ended.set()

    def wait(self) -> KeptReply:
        assert self.ended.wait(30)
        return self

    @property
    def text(self) -> str:
        return "".join(part[0] for part in self.parts)

    @property
    def reason(self) -> str:
        return self.parts[-1][1] if self.parts else ""
