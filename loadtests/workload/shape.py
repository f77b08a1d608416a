"""A schedule as a person writes it on the command line: `poisson:200`, `ramp:50-400`, `sine:50-400/60`."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from loadtests.errors import BadRequestError
from loadtests.workload import schedule

_NUMBER = r"(\d+(?:\.\d+)?)"
FORMS = {
    "poisson:200": "independent users, 200 requests a second on average",
    "constant:200": "a metronome",
    "ramp:50-400": "Poisson, the rate rising (or falling) in a straight line",
    "step:100,200,400": "Poisson, each rate for an equal share of the time",
    "spike:100-900@10+5": "Poisson at 100, and at 900 for 5 s after the first 10 s",
    "sine:50-400/60": "Poisson, up and down as day and night, every 60 s",
}


@dataclass(frozen=True)
class Shape:
    """Which requests are sent when, as a function of a seed."""

    text: str
    duration_s: float
    peak_per_s: float
    offsets_s: Callable[[int], NDArray[np.float64]]
    """Of a seed."""


def parse_shape(text: str, duration_s: float) -> Shape:
    """BadRequestError quotes what is not understood, with the accepted forms."""
    kind, _, rest = text.partition(":")
    if kind == "step":
        found = re.fullmatch(rf"{_NUMBER}(?:,{_NUMBER})*", rest)
        values = [float(value) for value in rest.split(",")] if found else []
    else:
        pattern = {
            "poisson": _NUMBER,
            "constant": _NUMBER,
            "ramp": rf"{_NUMBER}-{_NUMBER}",
            "spike": rf"{_NUMBER}-{_NUMBER}@{_NUMBER}\+{_NUMBER}",
            "sine": rf"{_NUMBER}-{_NUMBER}/{_NUMBER}",
        }.get(kind)
        found = re.fullmatch(pattern, rest) if pattern else None
        values = [float(value) for value in found.groups()] if found else []
    if not values or (kind == "sine" and not values[2]):
        raise BadRequestError(
            f"schedule {text!r} is not understood; the accepted forms are {', '.join(FORMS)}", field="schedule"
        )
    rates = values[:2] if kind in ("ramp", "spike", "sine") else values
    shape = Shape(text, duration_s, max(rates), lambda seed: _offsets_s(kind, values, duration_s, seed))
    if not len(shape.offsets_s(0)):
        raise BadRequestError(
            f"schedule {text!r} sends nothing in {duration_s:g} s; give it more time or a higher rate",
            field="duration_s",
        )
    return shape


def _offsets_s(kind: str, values: list[float], duration_s: float, seed: int) -> NDArray[np.float64]:
    if kind == "poisson":
        return schedule.poisson(values[0], duration_s=duration_s, seed=seed)
    if kind == "constant":
        return schedule.constant(values[0], duration_s=duration_s)
    if kind == "ramp":
        return schedule.ramp(values[0], values[1], duration_s, seed=seed)
    if kind == "step":
        return schedule.step(values, duration_s, seed=seed)
    if kind == "spike":
        low, high, start_s, spike_s = values
        return schedule.spike(low, high, duration_s, seed=seed, start_s=start_s, spike_s=spike_s)
    return schedule.sine(values[0], values[1], duration_s, seed=seed, period_s=values[2])
