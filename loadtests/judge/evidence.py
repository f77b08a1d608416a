"""How strongly a run speaks for its rate, in nats: the logarithm of a likelihood ratio, which adds up over runs.

Somebody bets against "at the capacity c, the allowed share q of the requests is over the limit". On each rate from c
up she stakes STAKE of what she has, and its runs multiply the stake by the likelihood ratio of BET x q to q. If the
hypothesis is true, she gains nothing on average, however rates, lengths and the number of runs follow from what was
seen (a test martingale). So in at most one search of a hundred she ever has a hundred times what she began with
(Ville's inequality). Only then is a rate at the capacity or above proven: the whole search errs that rarely.

Sources: Wald, "Sequential tests of statistical hypotheses" (1945); Ville, "Etude critique de la notion de collectif"
(1939); Ramdas et al., "Game-theoretic statistics and safe anytime-valid inference" (2023).
"""

from __future__ import annotations

import math

from loadtests.judge.verdict import CONFIDENCE

ENOUGH_NATS = -math.log(1 - CONFIDENCE)
"""So much evidence proves a rate."""
BET = 0.1
"""Of the allowed share: what she expects to be over the limit."""
STAKE = 0.9
"""Of what she has, on one rate: where that fails, it leaves her the rest."""


def gain(requests: float, over: float, allowed_share: float) -> float:
    """The gain of the stake in nats, by independent requests of which `over` are over the limit."""
    clean, late = _gains(allowed_share)
    return (requests - over) * clean + over * late


def nats(gain: float) -> float:
    """The evidence of a rate whose stake gained so much: -infinity where it is lost."""
    return math.log(1 - STAKE + STAKE * math.exp(min(gain, 500.0)))


def gain_for(nats: float) -> float:
    """What a stake has to gain to give that evidence."""
    return math.log(max(math.exp(nats) - (1 - STAKE), 1e-9) / STAKE)


def most_over(requests: float, allowed_share: float, wanted_gain: float) -> float:
    """The most of independent requests that may be over the limit for that gain; below 0 where none may."""
    clean, late = _gains(allowed_share)
    return (requests * clean - wanted_gain) / (clean - late)


def requests_needed(share: float, allowed_share: float, wanted_gain: float) -> float:
    """About how many independent requests gain that if `share` of them are over the limit; may be infinite."""
    growth = gain(1.0, share, allowed_share)
    return max(wanted_gain, 0.0) / growth if growth > 0 else math.inf


def clean_requests(allowed_share: float) -> int:
    """So many independent requests, none of them over the limit, prove a rate without other evidence."""
    return math.ceil(requests_needed(0.0, allowed_share, gain_for(ENOUGH_NATS)))


def _gains(allowed_share: float) -> tuple[float, float]:
    """By a request in time and by one over the limit."""
    expected = BET * allowed_share
    return math.log((1 - expected) / (1 - allowed_share)), math.log(expected / allowed_share)
