"""After a probe that was stopped early: waits until what it left is worked off and cannot spoil the next one."""

from __future__ import annotations

import time
from dataclasses import replace

from loadtests.errors import TargetBusyError, TargetError, TargetLostError
from loadtests.point import Point
from loadtests.traffic import Traffic

_SETTLE_S = 15.0


def settled(point: Point, traffic: Traffic, unloaded_ms: float, timeout_s: float, left_s: float) -> Point:
    """The point, with the time that this took, at most the `left_s` of the budget.

    A server that then answers nothing, or nothing but errors, did not miss the SLO for its load: it hangs or has
    broken, and the probe in which it did becomes one in which it went away. Ctrl-C makes it one that was asked to stop.
    """
    began_s = time.monotonic()
    # What was sent may still have to be worked off where the server goes on with requests that were cancelled.
    patience_s = max(_SETTLE_S, point.requests * unloaded_ms / 1e3)
    try:
        _settle(traffic, unloaded_ms, timeout_s, patience_s, left_s)
    except KeyboardInterrupt:
        point = replace(point, stopped="asked")
    except TargetLostError as error:
        point = replace(point, stopped="connection lost", reason=f"the server went away: {error}")
    return replace(point, took_s=point.took_s + time.monotonic() - began_s)


def _settle(traffic: Traffic, unloaded_ms: float, timeout_s: float, patience_s: float, left_s: float) -> None:
    """TargetLostError: it did not give one good answer to the end of our patience."""
    began_s = time.monotonic()
    trouble: TargetLostError | None = None
    while (waited_s := time.monotonic() - began_s) < patience_s:
        if waited_s >= left_s:
            return  # there is no next probe
        try:
            each_s = min(timeout_s, left_s - waited_s)
            asked = [target.infer(pool[0], each_s) for target, pool in traffic.first_payloads]
            trouble = None
            if float(traffic.weights @ asked) < 2 * unloaded_ms + 2:
                return
        except TargetLostError as error:
            trouble = error
        except TargetError as error:
            if not traffic.targets[0].reachable():
                return  # the next probe tells
            trouble = None if isinstance(error, TargetBusyError) else TargetLostError(str(error))
            time.sleep(0.2)
    if trouble is not None:
        raise trouble
