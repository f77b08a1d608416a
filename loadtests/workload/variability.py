"""How much recorded arrivals vary, in the two measures of queueing theory, and the gamma law closest to them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from loadtests.slo import about

_FEWEST_WINDOWS = 10
_MORE_THAN_GAPS = 2.0
"""An index of dispersion over so many times the squared cv of the gaps, and 1, shows that gaps depend on one another:
of ten windows of independent ones chance makes it as much once in a hundred recordings."""
_METRONOME_CV = 0.05
LARGEST_CV = 10.0
"""Of a law: beyond, nearly all requests come in a few bursts."""


@dataclass(frozen=True)
class Variability:
    """The variability of arrivals in the order of time."""

    arrivals: int
    duration_s: float
    cv: float | None
    """Standard deviation of the gaps over their mean: 0 for a metronome, 1 for Poisson arrivals. None without a gap."""
    index_of_dispersion: float | None
    """Variance over mean of the arrivals in equal windows: 1 for Poisson arrivals, the squared cv for independent gaps,
    more where the rate itself changes. None for less than a hundred arrivals."""
    window_s: float | None
    """As many windows as there are arrivals in each."""
    closest: str | None
    """The law with independent gaps of this cv, as `--arrivals` takes it."""

    @classmethod
    def of(cls, offsets_s: NDArray[np.float64]) -> Variability:
        gaps_s = np.diff(offsets_s)
        duration_s = float(offsets_s[-1] - offsets_s[0])
        if not duration_s:
            return cls(len(offsets_s), 0.0, None, None, None, None)
        cv = float(gaps_s.std() / gaps_s.mean())
        closest = "constant" if cv < _METRONOME_CV else f"gamma:cv={min(cv, LARGEST_CV):.2g}"
        windows = math.isqrt(len(gaps_s))
        if windows < _FEWEST_WINDOWS:
            return cls(len(offsets_s), duration_s, cv, None, None, closest)
        counts, _ = np.histogram(offsets_s, windows)
        index = float(counts.var(ddof=1) / counts.mean())
        return cls(len(offsets_s), duration_s, cv, index, duration_s / windows, closest)

    def describe(self) -> str:
        """A sentence for a person."""
        if self.cv is None:
            return f"{self.arrivals:,} arrivals at one time"
        rate_per_s = (self.arrivals - 1) / self.duration_s
        text = f"{self.arrivals:,} arrivals in {about(self.duration_s, 4)} s ({about(rate_per_s, 4)}/s), "
        text += f"cv of the gaps {self.cv:.2g}"
        if self.index_of_dispersion is not None:
            text += f", index of dispersion {self.index_of_dispersion:.2g} in windows of {self.window_s:.2g} s"
        text += f"; the closest law is {self.closest}"
        if self.index_of_dispersion is not None and self.index_of_dispersion > _MORE_THAN_GAPS * self.cv**2 + 1:
            text += ", but the rate itself changes, which only the recording repeats"
        return text
