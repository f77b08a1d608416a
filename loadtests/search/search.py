"""Which rate to try next: double until it fails, bisect, then confirm with fresh seeds, rung by rung.

`search(plan)` is a generator in Python's sense: it yields a `Probe`, is sent the `Point` that was measured, and in the
end returns. It never looks at a clock (points say how long they took) nor at the server, so it can be tested against a
simulated queue and replayed from recorded points.

Time goes where it decides most. Doubling and bisection use short probes and follow the point estimate when those are
undecided: they only have to find the neighbourhood. Most of the budget is kept for confirmations, whose rate
and length follow from all points so far (`confirmation.next_confirmation`).
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field, replace

from loadtests.judge.verdict import CONFIDENCE, judge_counts
from loadtests.records.point import Phase, Point, Probe
from loadtests.search.budget import EXPLORE_SHARE, PROBE_SHARE, Plan
from loadtests.search.certificate import proven_rate_per_s
from loadtests.search.confirmation import RUN_SHARE, next_confirmation
from loadtests.search.estimate import estimate
from loadtests.slo import Slo
from loadtests.workload.schedule import probe_seed

_FIRST_BUDGET_S = 60.0
"""Of a search that ends by itself: what it is given first."""
_LONGER = 3
"""Where a short probe decides nothing, one so many times as long follows."""
_LEAST_REQUESTS = 8
"""Of a probe: fewer show nothing of a percentile."""


Searching = Generator[Probe, Point, None]


@dataclass
class _State:
    """What the search knows."""

    plan: Plan
    points: list[Point] = field(default_factory=list)

    @property
    def left_s(self) -> float:
        return self.plan.left_s(self.points)

    @property
    def explore_left_s(self) -> float:
        """The time left before the confirmations begin."""
        return self.left_s - (1 - EXPLORE_SHARE) * self.plan.budget_s

    def probe(self, phase: Phase, rate_per_s: float, seconds: float) -> Probe:
        number, plan = len(self.points), self.plan
        requests = max(round(rate_per_s * seconds), _LEAST_REQUESTS)
        until_s = self.left_s + plan.unloaded_s
        return Probe(number, phase, rate_per_s, requests, probe_seed(plan.seed, number), until_s)

    def has_time(self, rate_per_s: float) -> bool:
        """Whether there is time for a probe at this rate."""
        return self.left_s > max(PROBE_SHARE * self.plan.budget_s, self.plan.short_s, _LEAST_REQUESTS / rate_per_s)


class _BudgetSpentError(Exception):
    """Ends the search, wherever it is."""


def search(plan: Plan, known: Sequence[Point] = ()) -> Searching:
    """Yields probes until the answer is confirmed or the budget is spent; see the module's first lines.

    `known` are the points of an earlier search under the same SLOs, to be gone on from; their time counts. With a
    `plan.gap` the budget is given out in parts, each twice the last, until that gap is reached.
    """
    points, budget_s = list(known), plan.budget_s
    if plan.gap is not None:
        budget_s = min(max(_FIRST_BUDGET_S, 2 * plan.least_s), plan.budget_s)
    while True:
        searching = _spend(replace(plan, budget_s=budget_s), tuple(points))
        with contextlib.suppress(StopIteration):
            probe = next(searching)
            while True:
                points.append((yield probe))
                if plan.gap is not None and gap_reached(points, plan.slos, plan.gap):
                    return
                probe = searching.send(points[-1])
        if budget_s >= plan.budget_s:
            return
        budget_s = min(2 * budget_s, plan.budget_s)


def gap_reached(points: Sequence[Point], slos: Sequence[Slo], gap: float) -> bool:
    """Whether a rate is proven and lies within `gap` of the estimate, or the estimate's interval is so narrow."""
    proven_per_s = proven_rate_per_s(points)
    if not proven_per_s or (fitted := estimate(points, slos)) is None:
        return False
    width = (fitted.high_per_s - fitted.low_per_s) / fitted.rate_per_s
    return proven_per_s >= (1 - gap) * fitted.rate_per_s or width <= gap


def _spend(plan: Plan, known: Sequence[Point]) -> Searching:
    with contextlib.suppress(_BudgetSpentError):
        yield from _search(_State(plan, list(known)), known)


def _search(state: _State, known: Sequence[Point]) -> Searching:
    low, high = _bracket(known)
    if low is None or high is None:
        low, high = yield from _double(state, low)
    if low is not None and high is not None:
        low, high = yield from _repeat_lower(state, low, high)
    if low is None:
        return  # nothing passes
    if high is not None:
        low = yield from _bisect(state, low, high)
        while (seconds := state.explore_left_s) > PROBE_SHARE * state.plan.budget_s:
            if not (yield from _refine(state, seconds)):  # which rate to confirm follows from where the capacity is
                break
    yield from _confirm(state, low)


def _run_probe(state: _State, phase: Phase, rate_per_s: float, seconds: float) -> Generator[Probe, Point, Point]:
    """One probe. One that is invalid for the generator's sake is repeated with a fresh seed, unless its unaffected
    requests are enough to choose the next rate, or even they are over the limit."""
    for _ in range(2):
        if not state.has_time(rate_per_s):
            raise _BudgetSpentError
        point = yield state.probe(phase, rate_per_s, seconds)
        state.points.append(point)
        enough = point.verdict != "invalid" if phase == "confirm" else point.usable
        if enough or not point.passes:
            break
    return point


def _decided(point: Point) -> bool:
    """Whether more requests would show the same way."""
    if not point.unaffected:
        return point.verdict != "undecided"
    verdicts = {count.verdict for count in point.unaffected}
    return verdicts == {"pass"} or "fail" in verdicts


def _bracket(known: Sequence[Point]) -> tuple[float | None, float | None]:
    """The lowest rate that was not met and the highest met below it, where there are such."""
    high = min((point.rate_per_s for point in known if not point.passes), default=None)
    below = [point.rate_per_s for point in known if point.meets_slo and (high is None or point.rate_per_s < high)]
    return max(below, default=None), high


def _double(state: _State, met: float | None = None) -> Generator[Probe, Point, tuple[float | None, float | None]]:
    """A rate that was met and one that was not; None where there was none. `met` was met earlier.

    A rate at which only the generator had trouble is tried once more when a lower one was met: the trouble may be over.
    """
    plan, seconds = state.plan, state.plan.short_s
    low, high, generator_only, retried = met, None, False, False
    rate_per_s = min(2 * met if met else plan.start_per_s, plan.max_per_s)
    while True:
        point = yield from _run_probe(state, "double", rate_per_s, seconds)
        if not (point.passes or _decided(point)):  # falling behind, or a few over: a longer probe decides
            point = yield from _run_probe(state, "double", rate_per_s, _LONGER * seconds)
        if point.meets_slo:
            low = rate_per_s
            if rate_per_s >= plan.max_per_s or (high is not None and (retried or not generator_only)):
                break
            rate_per_s = min(rate_per_s * 2, plan.max_per_s)
            if high is not None:
                rate_per_s, high, retried = high, None, True
        else:
            high, generator_only = rate_per_s, point.passes
            if low is not None:
                break
            rate_per_s /= 2
    return low, high


def _repeat_lower(state: _State, low: float, high: float) -> Generator[Probe, Point, tuple[float, float]]:
    """The same two rates, the lower one surer: a queue takes its time to fill, so a short probe of a rate slightly too
    high may be met, and everything between it and the next one then fails."""
    while not any(point.rate_per_s == low and point.verdict == "pass" for point in state.points):
        if state.explore_left_s <= 0:
            break
        if (yield from _run_probe(state, "double", low, _LONGER * state.plan.short_s)).meets_slo:
            break
        below = [point.rate_per_s for point in state.points if point.rate_per_s < low and point.meets_slo]
        low, high = max(below, default=low / 2), low
    return low, high


def _bisect(state: _State, low: float, high: float) -> Generator[Probe, Point, float]:
    """The highest rate that was met, within the tolerance of one that was not or as near as such probes show.

    An undecided probe is continued once. When both together are undecided, rates this close cannot be distinguished in
    the time there is, and the rest of it is better spent on confirmation.
    """
    plan = state.plan
    while high / low > 1 + plan.tolerance:
        if state.explore_left_s <= 0:
            break
        steps = math.ceil(math.log2(math.log(high / low) / math.log1p(plan.tolerance)))
        seconds = max(state.explore_left_s / max(steps, 2) / 2, state.plan.short_s)
        rate_per_s = math.sqrt(low * high)
        point = yield from _run_probe(state, "bisect", rate_per_s, seconds)
        met, decided = point.meets_slo, _decided(point)
        if not decided:
            again = yield from _run_probe(state, "bisect", rate_per_s, seconds)
            met, decided = _together(point, again)
        low, high = (rate_per_s, high) if met else (low, rate_per_s)
        if not decided:
            break
    return low


def _together(first: Point, second: Point) -> tuple[bool, bool]:
    """Whether two probes at one rate meet the SLOs, by their shares over the limit, and whether that is decided."""
    met, decided = second.usable, True
    for one, other in zip(first.counts, second.counts, strict=True):
        allowed = Slo.parse(one.slo).allowed_share
        requests, over = one.requests + other.requests, one.over + other.over
        factor = max(one.dependence, other.dependence)
        # Two probes at one rate: each may err half as often.
        verdict = judge_counts(requests, over, allowed, dependence=factor, confidence=1 - (1 - CONFIDENCE) / 2)
        decided = decided and verdict != "undecided"
        met = met and over <= allowed * requests
    return met and not second.stopped, decided


def _confirm(state: _State, low: float) -> Searching:
    """Confirm as long as a rate is worth it. Where none is, probes at the estimated capacity sharpen the estimate."""
    plan = state.plan
    while proven_rate_per_s(state.points) < plan.max_per_s:
        confirmation = next_confirmation(state.points, plan, low)
        if confirmation is None:
            if not (yield from _refine(state, RUN_SHARE * state.left_s)):
                return
            continue
        run = yield from _run_probe(state, "confirm", confirmation.rate_per_s, confirmation.seconds)
        if run.verdict == "invalid":  # perhaps none will be valid here: then the estimate is all there is
            yield from _refine(state, PROBE_SHARE * plan.budget_s)


def _refine(state: _State, seconds: float) -> Generator[Probe, Point, bool]:
    """A probe where all points put the capacity; False where they put it nowhere."""
    fitted = estimate(state.points, state.plan.slos)
    if fitted is None:
        return False
    yield from _run_probe(state, "refine", min(fitted.rate_per_s, state.plan.max_per_s), seconds)
    return True
