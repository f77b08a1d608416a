"""The result of a capacity search, computed from its points alone, so that raw results are enough to make it again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from loadtests.judge.evidence import clean_requests
from loadtests.records.point import Point, Verdict
from loadtests.search.budget import least_budget_s
from loadtests.search.certificate import Certificate, certificates
from loadtests.search.estimate import Estimate, estimate
from loadtests.search.monotonicity import monotonicity_violation
from loadtests.slo import Slo, about_ms, describe_slos, format_rate, format_s
from loadtests.workload.arrivals import POISSON

INTERRUPTED = "interrupted"
"""Why a search ended early that Ctrl-C ended."""
CUT_OFF = ("asked", "connection lost", "budget")
"""How a probe ends that says nothing about its rate."""


_FEWEST_POINTS = 4
"""Fewer put the edge where chance does."""
_EASIER = 0.9
"""The percentile that is named where a higher one takes too many requests."""


@dataclass(frozen=True)
class CapacityResult:
    """Two numbers that must not be confused: what is proven, and the best estimate with its interval."""

    model: str
    server: str
    slos: tuple[Slo, ...]
    capacity_per_s: float | None
    """Certified: the highest rate whose confirmation passed at 99 % confidence. None when no rate did."""
    capacity_estimate_per_s: float | None
    """From all points together. None when no rate was found too high (or none low enough), or when SLO violations do
    not increase with the rate (`loadtests.search.monotonicity`)."""
    capacity_estimate_interval_per_s: tuple[float, float] | None
    """95 % of the probability."""
    verdict: Verdict
    """Pass: a rate is proven. Fail: even the lowest rate misses the SLO. Undecided: too few requests to prove one."""
    reason: str
    partial: bool
    """The search was interrupted or lost the server; the points until then count."""
    seeds: tuple[int, ...]
    """The base seed, then the seed of each probe."""
    manifest: Mapping[str, Any] | None
    hardware: Mapping[str, Any]
    settings: Mapping[str, Any]
    points: tuple[Point, ...]
    folder: str | None
    unsaved: str = ""
    """What of this could not be written into the folder, and why; empty when everything was."""
    decided_by: Slo | None = None
    """The SLO that gives out first, at the estimated rate."""

    @property
    def certificate(self) -> Certificate | None:
        """What the proven rate rests on."""
        return next(iter(certificates(self.points)), None)

    @property
    def unit(self) -> str:
        """What its rates count: `requests`, or `sequences` of them where all models keep state."""
        sequences = self.settings.get("sequences") or {}
        return "sequences" if sequences and sequences.keys() == (self.settings.get("mix") or {}).keys() else "requests"

    @property
    def made_up(self) -> str:
        """What the requests were made from where nobody gave any; empty where they were given."""
        source = str(self.settings.get("payload_source") or "")
        return source if "made from the server" in source else ""

    @property
    def ended_because(self) -> str:
        """Why the search ended early, such as `interrupted`; empty when it did not."""
        return self.reason.partition("; ")[0] if self.partial else ""

    @property
    def finding(self) -> str:
        """`reason` without why the search ended early."""
        return self.reason.partition("; ")[2] if self.partial else self.reason

    def to_json(self) -> dict[str, Any]:
        return {
            "capacity_per_s": self.capacity_per_s,
            "capacity_estimate_per_s": self.capacity_estimate_per_s,
            "capacity_estimate_interval_per_s": (
                list(self.capacity_estimate_interval_per_s) if self.capacity_estimate_interval_per_s else None
            ),
            "decided_by": str(self.decided_by) if self.decided_by else None,
            "verdict": self.verdict,
            "reason": self.reason,
            "slo": ", ".join(str(slo) for slo in self.slos),
            "arrivals": self.settings.get("arrivals", POISSON.name),
            "model": self.model,
            "server": self.server,
            "partial": self.partial,
            "seeds": list(self.seeds),
            "settings": dict(self.settings),
            "manifest": dict(self.manifest) if self.manifest is not None else None,
            "hardware": dict(self.hardware),
            "folder": self.folder,
            "unsaved": self.unsaved or None,
            "points": [point.to_json() for point in self.points],
        }


def summarise(
    points: Sequence[Point],
    slos: Sequence[Slo],
    *,
    model: str,
    server: str,
    base_seed: int,
    partial: str = "",
    manifest: Mapping[str, Any] | None = None,
    hardware: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
    folder: str | None = None,
) -> CapacityResult:
    """The result that these points support. `partial` says why the search ended early, empty when it did not."""
    confirmed = next(iter(certificates(points)), None)
    fitted = None if monotonicity_violation(points) or len(points) < _FEWEST_POINTS else estimate(points, slos)
    reached_per_s = fitted.rate_per_s if fitted else max((p.rate_per_s for p in points if p.meets_slo), default=None)
    short = too_short(model, slos, settings or {}, reached_per_s)
    advice = "" if partial else short or "use a longer --budget"
    verdict, reason = _verdict(points, confirmed, fitted, advice)
    return CapacityResult(
        model=model,
        server=server,
        slos=tuple(slos),
        capacity_per_s=confirmed.rate_per_s if confirmed else None,
        capacity_estimate_per_s=fitted.rate_per_s if fitted else None,
        capacity_estimate_interval_per_s=(fitted.low_per_s, fitted.high_per_s) if fitted else None,
        decided_by=fitted.slo if fitted else None,
        verdict=verdict,
        reason=f"{partial}; {reason}" if partial else reason,
        partial=bool(partial),
        seeds=(base_seed, *(point.seed for point in points)),
        manifest=manifest,
        hardware=hardware or {},
        settings=settings or {},
        points=tuple(points),
        folder=folder,
    )


def _verdict(
    points: Sequence[Point], confirmed: Certificate | None, fitted: Estimate | None, advice: str
) -> tuple[Verdict, str]:
    if confirmed is not None:
        return "pass", f"at {format_rate(confirmed.rate_per_s)}, {confirmed.describe()}"
    whole = [point for point in points if point.stopped not in CUT_OFF]
    because = f"; {advice}" if advice else ""
    if not whole:
        return "undecided", ("no probe was completed" if points else "nothing was measured in time") + because
    last = whole[-1]
    if all(point.verdict == "invalid" for point in whole):
        return "invalid", last.reason
    if not any(point.passes for point in whole):
        lowest = lowest_judged(whole)
        if lowest.verdict != "fail":
            return "undecided", f"no rate was confirmed (at {format_rate(lowest.rate_per_s)} {lowest.reason}){because}"
        return "fail", f"even {format_rate(lowest.rate_per_s)} is too high: {lowest.reason}"
    if contradicted := monotonicity_violation(points):
        return "undecided", f"no rate was confirmed: {contradicted}"
    if fitted is None:
        return "undecided", f"no rate was confirmed ({last.reason}){because}"
    last = next((point for point in reversed(whole) if point.phase == "confirm"), last)
    return (
        "undecided",
        f"no rate was confirmed at 99 % (last tested {format_rate(last.rate_per_s)}: {last.reason}){because}",
    )


def too_short(model: str, slos: Sequence[Slo], settings: Mapping[str, Any], reached_per_s: float | None = None) -> str:
    """What a search needs at least to prove a rate, if its budget is shorter; otherwise empty.
    Without a rate that was reached it is that of the first probe."""
    budget_s, least_s, unloaded_ms, filled_s, rate_per_s = (
        settings.get(key) or 0.0 for key in ("budget_s", "least_s", "unloaded_ms", "filled_s", "start_per_s")
    )
    if reached_per_s and filled_s:
        sequences_s = (each["mean_s"] for each in (settings.get("sequences") or {}).values())
        lasting_s = unloaded_ms / 1e3 if "unloaded_ttft_ms" in settings else max(sequences_s, default=0.0)
        rate_per_s, least_s = reached_per_s, least_budget_s(slos, reached_per_s, filled_s, lasting_s)
    if budget_s >= least_s:
        return ""
    proving = f"proving {format_rate(rate_per_s)}" if rate_per_s else "proving a rate"
    text = (
        f"--budget {format_s(budget_s)} is too short: {model} takes {about_ms(unloaded_ms)} a request, so {proving} "
        f"under {describe_slos(slos)} needs at least {format_s(least_s)}, better {format_s(2 * least_s)}"
    )
    strictest = min((slo for slo in slos if slo.limit_ms is not None), key=lambda slo: slo.allowed_share)
    if filled_s and strictest.percentile > _EASIER:
        each, easier = clean_requests(strictest.allowed_share), clean_requests(1 - _EASIER)
        text += f" (a p{strictest.percentile * 100:.10g} needs {each:,} independent requests, a p90 {easier:,})"
    return text


def lowest_judged(points: Sequence[Point]) -> Point:
    """The probe at the lowest rate of those that say something about it."""
    judged = (point for point in points if point.verdict != "invalid" and point.stopped not in CUT_OFF)
    return min(judged, key=lambda point: point.rate_per_s)
