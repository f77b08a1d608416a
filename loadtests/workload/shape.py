"""A schedule as a person writes it on the command line: `200`, `ramp:50-400`, `sine:50-400/1m`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from loadtests.errors import BadRequestError
from loadtests.quantities import NUMBER, TIME, seconds
from loadtests.workload.arrivals import CONSTANT, POISSON, Arrivals, RateAt
from loadtests.workload.schedule import Offsets

FORMS = {
    "200": "200 requests/s throughout",
    "poisson:200": "the same, with --arrivals poisson",
    "constant:200": "the same, with --arrivals constant",
    "ramp:50-400": "the rate rises or falls steadily from 50 to 400",
    "step:100,200,400": "each rate for an equal part of the duration",
    "spike:100-900@10s+5s": "100, but 900 for 5 s after the first 10 s",
    "sine:50-400/1m": "the rate goes up and down once a minute",
}
_PATTERNS = {
    "": NUMBER,
    "ramp": rf"{NUMBER}-{NUMBER}",
    "step": rf"{NUMBER}(?:,{NUMBER})*",
    "spike": rf"{NUMBER}-{NUMBER}@{TIME}\+{TIME}",
    "sine": rf"{NUMBER}-{NUMBER}/{TIME}",
}


@dataclass(frozen=True)
class Shape:
    """A rate over time, and how requests arrive at it."""

    text: str
    duration_s: float
    rate_at: RateAt
    arrivals: Arrivals = POISSON

    def offsets_s(self, seed: int) -> Offsets:
        return self.arrivals.varying(self.rate_at, self.duration_s, seed=seed)


def parse_shape(text: str, duration_s: float, arrivals: Arrivals | None = None) -> Shape:
    """A schedule with Poisson arrivals, or those given.

    BadRequestError quotes what is not understood, with the accepted forms, and a schedule that names other arrivals.
    """
    kind, colon, rest = text.rpartition(":")
    law = {POISSON.text: POISSON, CONSTANT.text: CONSTANT}.get(kind)
    if law is not None:
        if arrivals not in (None, law):
            raise BadRequestError(
                f"schedule {text!r} and --arrivals {arrivals.name} name different arrivals: write --schedule {rest}",
                field="schedule",
            )
        kind, colon, arrivals = "", "", law
    values = list(map(seconds, re.findall(TIME, rest)))  # a rate has no unit and stays as it is
    understood = kind in _PATTERNS and bool(kind) == bool(colon) and re.fullmatch(_PATTERNS[kind], rest)
    if not understood or (kind == "sine" and not values[2]):
        raise BadRequestError(
            f"schedule {text!r} is not understood: write it like {', '.join(FORMS)}", field="schedule"
        )
    shape = Shape(text, duration_s, _rate_at(kind, values, duration_s), arrivals or POISSON)
    if not (sum(values) and len(shape.offsets_s(0))):
        raise BadRequestError(
            f"schedule {text!r} sends nothing in {duration_s:g} s: raise its rate or the duration",
            field="duration_s",
        )
    return shape


def _rate_at(kind: str, values: Sequence[float], duration_s: float) -> RateAt:
    if kind == "ramp":
        return lambda at_s: values[0] + (values[1] - values[0]) * at_s / duration_s
    if kind == "spike":
        low, high, start_s, spike_s = values
        return lambda at_s: np.where((at_s >= start_s) & (at_s < start_s + spike_s), high, low)
    if kind == "sine":
        low, high, period_s = values
        return lambda at_s: low + (high - low) * (1 - np.cos(2 * np.pi * at_s / period_s)) / 2
    levels: NDArray[np.float64] = np.asarray(values)  # each for an equal share of the time
    return lambda at_s: levels[np.minimum((at_s / duration_s * len(levels)).astype(int), len(levels) - 1)]
