"""How requests arrive: the law of the gaps between them, whatever the rate. Bursts cost capacity.

`poisson` are independent users. `constant` is a metronome. `gamma:cv=2` draws independent gaps whose standard deviation
is twice their mean: above 1 they come in bursts, below 1 more evenly than by chance. A CSV file of recorded arrivals
(see `trace`) is replayed at the wanted rate: each schedule is a stretch of the recording, whose place follows from the
seed, stretched or compressed to that mean rate; where it ends it goes on from its beginning.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadtests.errors import BadRequestError, InputFileError
from loadtests.workload.schedule import Offsets, check_rate, probe_seed, seeded
from loadtests.workload.trace import Trace, read_trace
from loadtests.workload.variability import LARGEST_CV

_GAMMA = re.compile(r"gamma(?::cv=(?P<cv>.*))?")
_SMALLEST_CV = 0.01
_BLOCK = 4096
_GRID_STEPS = 100_000
RateAt = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""Times in seconds to requests a second."""


@dataclass(frozen=True)
class Arrivals:
    """A law: `text` as it was given, and the coefficient of variation of its gaps."""

    text: str
    cv: float
    trace: Trace | None = None

    @classmethod
    def recorded(cls, trace: Trace) -> Arrivals:
        """The arrivals of a trace."""
        return cls(str(trace.path), math.nan, trace)

    @property
    def name(self) -> str:
        """The name in results: the law, or the file of a trace without its folder."""
        return self.trace.path.name if self.trace else self.text

    def described(self) -> dict[str, Any]:
        """What results record of it."""
        if not self.trace:
            return {"arrivals": self.name}
        digest = hashlib.sha256(self.trace.offsets_s.tobytes()).hexdigest()
        recorded = asdict(self.trace.variability)
        return {"arrivals": self.name, "arrivals_sha256": digest, "arrivals_recorded": recorded}

    def at_rate(self, rate_per_s: float, *, seed: int, count: int) -> Offsets:
        """`count` arrivals at this mean rate."""
        check_rate(rate_per_s)
        return np.asarray(self._unit_offsets(count, seed) / rate_per_s, np.float64)

    def varying(self, rate_at: RateAt, duration_s: float, *, seed: int) -> Offsets:
        """All arrivals of a rate that is a function of time: those at rate 1, mapped through its running integral."""
        if not duration_s > 0:
            raise BadRequestError(f"duration {duration_s:g} s must be above zero", field="duration_s")
        grid_s = np.linspace(0, duration_s, _GRID_STEPS + 1)
        rates = rate_at((grid_s[:-1] + grid_s[1:]) / 2)
        if not np.all(np.isfinite(rates)) or np.any(rates < 0) or not np.any(rates > 0):
            raise BadRequestError("rates must be finite, not negative, and somewhere above zero", field="rate_at")
        expected = np.concatenate([[0.0], np.cumsum(rates) * duration_s / _GRID_STEPS])
        return np.asarray(np.interp(self._unit_offsets_before(expected[-1], seed), expected, grid_s), np.float64)

    def gaps(self, *, seed: int) -> Iterator[float]:
        """Without end, of mean 1."""
        if self.trace:
            first = int(seeded(seed).integers(len(self._recorded)))
            yield from itertools.cycle(np.roll(self._recorded, -first).tolist())
        for block in itertools.count():
            yield from self._drawn(_BLOCK, probe_seed(seed, block)).tolist()

    def _unit_offsets_before(self, length: float, seed: int) -> Offsets:
        count = math.ceil(length)
        units = self._unit_offsets(count, seed)
        while self.cv and not self.trace and units[-1] < length:  # so many gaps were shorter than usual
            count *= 2
            units = self._unit_offsets(count, seed)
        return units[units < length]

    def _unit_offsets(self, count: int, seed: int) -> Offsets:
        """`count` arrivals at rate 1. Constant arrivals and a recording begin with an arrival."""
        if not self.trace:
            offsets: Offsets = np.cumsum(self._drawn(count, seed))
            return offsets if self.cv else offsets - 1
        first = int(seeded(seed).integers(len(self._recorded)))
        ends: Offsets = np.cumsum(self._recorded[np.arange(first, first + count) % len(self._recorded)])
        offsets = np.concatenate([[0.0], ends[:-1]])
        return offsets * count / ends[-1] if ends[-1] else offsets

    def _drawn(self, count: int, seed: int) -> NDArray[np.float64]:
        """Gaps of mean 1."""
        if self.cv == 0:
            return np.ones(count)
        return seeded(seed).gamma(1 / self.cv**2, self.cv**2, count)

    @cached_property
    def _recorded(self) -> NDArray[np.float64]:
        """The gaps of the trace, of mean 1."""
        assert self.trace is not None
        gaps_s = np.diff(self.trace.offsets_s)
        return np.asarray(gaps_s / gaps_s.mean())


POISSON = Arrivals("poisson", 1.0)
CONSTANT = Arrivals("constant", 0.0)


def describe_arrivals(name: str) -> str:
    """For a person, from the name in a result: `Poisson arrivals`, `gamma:cv=2 arrivals`, `arrivals of trace.csv`."""
    if _GAMMA.fullmatch(name) or name == CONSTANT.text:
        return f"{name} arrivals"
    return "Poisson arrivals" if name == POISSON.text else f"arrivals of {name}"


def parse_arrivals(text: str) -> Arrivals:
    """`poisson`, `constant`, `gamma:cv=2` or the path of a CSV file.

    Raises BadRequestError for another law, InputFileError for a file that cannot be read or has no rate.
    """
    for law in (POISSON, CONSTANT):
        if text == law.text:
            return law
    if gamma := _GAMMA.fullmatch(text):
        cv = _cv(text, gamma["cv"])
        return Arrivals(f"gamma:cv={cv:g}", cv)
    if Path(text).suffix or Path(text).is_file():
        trace = read_trace(Path(text))
        if not trace.duration_s:
            what = f"has no rate: {len(trace):,} arrivals at one time; record at least two at different times"
            raise InputFileError(trace.path, None, what)
        return Arrivals.recorded(trace)
    raise BadRequestError(
        f"arrivals {text!r} are not known: use poisson, constant, gamma:cv=2 or a CSV file of recorded arrivals",
        field="arrivals",
    )


def _cv(text: str, number: str | None) -> float:
    try:
        cv = float(number or "nan")
    except ValueError:
        cv = math.nan
    if not _SMALLEST_CV <= cv <= LARGEST_CV:
        raise BadRequestError(
            f"arrivals {text!r} need a coefficient of variation from "
            f"{_SMALLEST_CV:g} to {LARGEST_CV:g}, as in gamma:cv=2 (constant has no variation)",
            field="arrivals",
        )
    return cv
