"""How strongly a run speaks for its rate, in nats: the logarithm of a likelihood ratio, which adds up over runs.

Somebody bets against "at the capacity c, the allowed share q of the requests is over the limit": on each run at c or
above she stakes STAKE of what she has, and the stake grows by the likelihood ratio of BET x q to q. If the hypothesis
is true, she gains nothing on average, however rates, lengths and the number of runs follow from what was seen (a test
martingale). So she ever has a hundred times what she began with in at most one search of a hundred (Ville's
inequality), and only then is a rate at the capacity or above certified: the whole search errs at most that often.

Sources: Wald, "Sequential tests of statistical hypotheses" (1945); Ville, "Etude critique de la notion de collectif"
(1939); Ramdas et al., "Game-theoretic statistics and safe anytime-valid inference" (2023).
"""

from __future__ import annotations

import math

from loadtests.judge.verdict import CONFIDENCE

ENOUGH_NATS = -math.log(1 - CONFIDENCE)
"""So much evidence certifies a rate."""
BET = 0.1
"""Of the allowed share: what she expects to be over the limit."""
STAKE = 0.9
"""Of what she has: a run that fails leaves her the rest."""
LOST_NATS = math.log(1 - STAKE)
"""The evidence of a run that fails."""


def nats(requests: float, over: float, allowed_share: float) -> float:
    """The evidence of independent requests, `over` of them over the limit."""
    clean, late = _gains(allowed_share)
    won = math.log(STAKE) + (requests - over) * clean + over * late
    return max(won, LOST_NATS) + math.log1p(math.exp(-abs(won - LOST_NATS)))


def most_over(requests: float, allowed_share: float, wanted_nats: float) -> float:
    """The most of independent requests that may be over the limit to give that evidence; below 0 where none may."""
    clean, late = _gains(allowed_share)
    return (requests * clean - _to_win(wanted_nats)) / (clean - late)


def requests_needed(share: float, allowed_share: float, wanted_nats: float) -> float:
    """About how many independent requests give that evidence if `share` of them are over the limit; may be infinite."""
    clean, late = _gains(allowed_share)
    growth = clean + share * (late - clean)
    return max(_to_win(wanted_nats), 0.0) / growth if growth > 0 else math.inf


def _gains(allowed_share: float) -> tuple[float, float]:
    """Of a request in time and of one over the limit, in nats."""
    expected = BET * allowed_share
    return math.log((1 - expected) / (1 - allowed_share)), math.log(expected / allowed_share)


def _to_win(wanted_nats: float) -> float:
    """What the stake has to gain."""
    return math.log(max(math.exp(wanted_nats) - (1 - STAKE), 1e-9) / STAKE)
