"""Which failed requests are sent again, how often and how soon."""

from __future__ import annotations

import itertools
import random
import threading

from .errors import InferenceError, OverloadedError, QueueTimeoutError, UnreachableError
from .options import Retries

MOST_REPEATS = 2  # of a request that may have run: if it breaks all its connections, it is likelier the cause


class Budget:
    """Tokens for retries: each request earns a fraction of one, each retry of what may have run spends one."""

    def __init__(self, retries: Retries) -> None:
        self._retries = retries
        self._tokens = float(retries.reserve)
        self._lock = threading.Lock()
        self._requests = itertools.count()  # atomic, unlike +=
        self._credited = self._looks = 0
        self.earn = self._requests.__next__
        self.spent = 0  # retries of requests that may have run, or that somebody has answered
        self.retried = 0  # all retries

    def spend(self) -> bool:
        """Take a token; false when there is none."""
        with self._lock:
            requests = self.earn() - self._looks
            self._looks += 1  # each look at the counter moves it
            earned = (requests - self._credited) * self._retries.extra_load
            self._tokens = min(self._tokens + earned, float(self._retries.reserve))
            self._credited = requests
            if self._tokens < 1:
                return False
            self._tokens -= 1
            self.spent += 1
            return True

    def affords(self, error: InferenceError) -> bool:
        """Whether there is a token for a retry after `error`. One that has reached nobody costs none."""
        return not (error.may_have_run or error.source in ("gateway", "server")) or self.spend()

    def take(self, error: InferenceError) -> None:
        """Count a retry after `error`; raises it where there is no token left."""
        if not self.affords(error):
            error.add_note("not sent again: the retry budget is spent, see Retries")
            raise error
        self.retried += 1


def is_retryable(error: InferenceError, retries: Retries, tries: int = 1) -> bool:
    """Whether a request may be sent again after `error`, by kind; `tries` is how often it may have run by now."""
    if isinstance(error, OverloadedError):
        return retries.overloaded and not isinstance(error, QueueTimeoutError)
    return isinstance(error, UnreachableError) and error.transient and tries <= MOST_REPEATS


def pause_s(retries: Retries, failures: int) -> float:
    """Seconds before the next try after `failures` (1, 2, ...): random, so that clients do not come back in step."""
    return random.uniform(0, min(retries.first_pause_s * 2.0 ** min(failures - 1, 20), retries.longest_pause_s))
