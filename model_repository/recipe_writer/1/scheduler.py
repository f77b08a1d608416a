"""Which requests the next step computes: in-flight batching over a fixed number of cache slots, in a thread of its own.

One turn drops the requests that were cancelled, computes at most one piece of one newcomer's prompt, and then one token
of every running request. So a newcomer joins at the next step, and delays the others by one piece a step at most.
"""

import threading
import time
import traceback
from collections import deque
from dataclasses import dataclass


class FullError(Exception):
    """As many requests wait as may."""


class StoppedError(Exception):
    """The scheduler has ended, by `close` or by an error of its own."""


@dataclass
class Figures:
    """What the scheduler has done so far, and what it holds now."""

    slots_in_use: int = 0
    waiting: int = 0
    steps: int = 0  # decoding steps; pieces of prompts are not counted
    step_rows: int = 0  # requests in those steps, added up
    tokens: int = 0
    cancelled: int = 0


class Scheduler:
    """Answers `Generation`s with `decoder`, of which only its thread makes use.

    `publish(figures)` is called by that thread, every `publish_every_s` at most and whenever nothing is left to do.
    """

    def __init__(self, decoder, *, eos, waiting, prefill_chunk, publish, publish_every_s=0.1):
        self._decoder, self._eos = decoder, frozenset(eos)
        self._limit, self._chunk = waiting, prefill_chunk
        self._publish, self._publish_every_s, self._published_s = publish, publish_every_s, 0.0
        self._figures = Figures()
        self._waiting, self._looked = deque(), 0
        self._joining, self._joining_slot = None, 0
        self._rows = []  # the running ones; each one's index is its slot, so that they lie first
        self._wake = threading.Condition()
        self._ended = ""
        self._thread = threading.Thread(target=self._run, name="scheduler", daemon=True)
        self._thread.start()

    def submit(self, generation):
        """Queue it. Raises FullError, or StoppedError with the reason."""
        with self._wake:
            if self._ended:
                raise StoppedError(self._ended)
            if len(self._open()) >= self._decoder.slots + self._limit:  # some of those that wait may have free slots
                raise FullError(f"{self._decoder.slots} generations run and {self._limit} wait")
            self._waiting.append(generation)
            self._wake.notify()

    def close(self):
        """End the thread after its present turn. Whatever is open is answered with an error."""
        self._end("the model is being unloaded")
        self._thread.join()

    def is_alive(self):
        """Whether it takes requests."""
        return not self._ended

    def _end(self, reason):
        with self._wake:
            self._ended = self._ended or reason
            self._wake.notify()

    def _run(self):
        try:
            while self._has_work():
                self._turn()
                self._report(at_once=False)
        except Exception as error:
            self._end(f"its scheduler failed ({type(error).__name__}: {error}): load the model again")
            traceback.print_exc()  # into Triton's log
        finally:
            for generation in self._open():
                _fail(generation, self._ended)
            self._rows, self._joining = [], None
            self._waiting.clear()
            self._report(at_once=True)

    def _has_work(self):
        """Wait for it. False once the scheduler is to end."""
        if not self._open():
            self._report(at_once=True)
        with self._wake:
            self._wake.wait_for(lambda: self._ended or self._open())
            return not self._ended

    def _open(self):
        """All requests that have no end yet."""
        return [*self._rows, *([self._joining] if self._joining else []), *self._waiting]

    def _turn(self):
        self._drop_cancelled()
        with self._wake:
            if self._waiting and not self._joining and len(self._rows) < self._decoder.slots:
                self._joining, self._joining_slot = self._waiting.popleft(), len(self._rows)
                self._joining.prefilled = self._decoder.begin(self._joining_slot)
        if self._joining:
            self._prefill()
        if self._rows:
            self._step()

    def _drop_cancelled(self):
        """Of those that wait only some a turn, one after the other: each question goes to the server and back."""
        if self._joining and self._is_cancelled(self._joining):
            self._joining = None
        with self._wake:
            waiting = tuple(self._waiting)
        self._looked = self._looked if self._looked < len(waiting) else 0
        for generation in waiting[self._looked : self._looked + self._decoder.slots]:
            if self._is_cancelled(generation):
                with self._wake:
                    self._waiting.remove(generation)
        self._looked += self._decoder.slots

    def _is_cancelled(self, generation):
        if not generation.reply.is_cancelled():
            return False
        self._figures.cancelled += 1
        generation.reply.close()
        return True

    def _prefill(self):
        """The next piece of the newcomer's prompt; with the last one it has its first token, and runs."""
        joining, slot = self._joining, self._joining_slot
        ids = joining.prompt[joining.prefilled : joining.prefilled + self._chunk]
        try:
            logits = self._decoder.prefill(slot, ids, joining.prefilled)
        except Exception as error:
            self._joining = None
            _fail(joining, error)
            return
        joining.prefilled += len(ids)
        if joining.prefilled < len(joining.prompt):
            return
        self._joining = None
        if not self._advance(joining, logits):
            if slot != len(self._rows):  # a running one has ended meanwhile
                self._decoder.copy(slot, len(self._rows), joining.cached)
            self._rows.append(joining)

    def _step(self):
        tokens = [row.last_token for row in self._rows]
        lengths = [row.cached for row in self._rows]
        try:
            logits = self._decoder.step(tokens, lengths)
        except Exception as error:
            failed, self._rows = self._rows, []
            for row in failed:
                _fail(row, error)
            return
        self._figures.steps += 1
        self._figures.step_rows += len(tokens)
        # Just before its part is sent: Triton 2.51 may die of one for a stream that was cancelled meanwhile.
        ended = [
            slot for slot, row in enumerate(self._rows) if self._is_cancelled(row) or self._advance(row, logits[slot])
        ]
        for slot in reversed(ended):
            self._free(slot)

    def _advance(self, generation, logits):
        """Choose its next token and send it. Returns whether it has ended, well or not."""
        try:
            ended = generation.advance(logits, eos=self._eos, context=self._decoder.context)
        except Exception as error:
            _fail(generation, error)
            return True
        self._figures.tokens += 1
        return ended

    def _free(self, slot):
        """Take the request out; the last one moves into its slot."""
        last = len(self._rows) - 1
        if slot != last:
            self._decoder.copy(last, slot, self._rows[last].cached)
            self._rows[slot] = self._rows[last]
        self._rows.pop()

    def _report(self, *, at_once):
        now_s = time.monotonic()
        if at_once or now_s >= self._published_s + self._publish_every_s:
            self._published_s = now_s
            self._figures.slots_in_use = len(self._rows) + (self._joining is not None)
            self._figures.waiting = len(self._waiting)
            self._publish(self._figures)


def _fail(generation, error):
    """Answer with the error; who is gone meanwhile needs none."""
    reason = f"{type(error).__name__}: {error}" if isinstance(error, Exception) else error
    try:
        generation.reply.fail(reason)
    except Exception as unsent:
        print(f"could not send '{reason}': {unsent}", flush=True)
