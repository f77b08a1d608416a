"""Which rate to try next: double until it fails, bisect, confirm with a fresh seed, step down until confirmed.

`search(plan)` is a generator in Python's sense: it yields a `Probe`, is sent the `Point` that was measured, and in the
end returns. It never looks at a clock (points say how long they took) nor at the server, so it can be tested against a
simulated queue and replayed from recorded points.

Time goes where it decides most. Doubling and bisection use short probes and lean on the point estimate when those are
undecided: they only have to find the neighbourhood. More than half of the budget is kept for confirmation, where the
rate to try follows from all points so far: the highest at which a probe of the time left is likely to pass.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field

from loadtests.judge.verdict import CONFIDENCE, judge_counts
from loadtests.records.point import Phase, Point, Probe
from loadtests.search.budget import EXPLORE_SHARE, Plan
from loadtests.search.certificate import certificates, is_certified, least_s, missing_requests
from loadtests.search.confirmation import FIRST, HIGHER, next_confirmation_rate
from loadtests.search.estimate import estimate
from loadtests.slo import Slo, loosest_limit_ms
from loadtests.workload.schedule import probe_seed

_QUICK_SHARE = 0.06
_LONGER = 3
_FEWEST_REQUESTS, _LEAST_REQUESTS = 60, 8
"""Of a probe, and where so many take more than `_FEWEST_SHARE` of the budget."""
_FEWEST_SHARE, _PROBE_LIMITS = 0.08, 4.0
_MOST_INVALID = 2
_NEAR = 1.5
"""Bisection never gives up on a wider gap between a rate that was met and one that was not."""
_FIRST_SHARE, _LATER_SHARE = 0.3, 0.5
"""Of the time left: what the first confirmation run takes, and each later one."""
_ROOM, _LEAST_ROOM = 1.5, 0.15
"""A continuation gets this many times the requests that seem to be missing, and at least this share of the time."""
_REFINE_SHARE = 0.7
_LEAST_EDGE = 0.06
_LEAST_LEFT = 0.05
_LEAST_RATE_PER_S, _LOWEST = 0.05, 16
"""The lowest rate to try, or this part of the first rate where that is lower."""


Searching = Generator[Probe, Point, None]


@dataclass
class _State:
    """What the search knows."""

    plan: Plan
    points: list[Point] = field(default_factory=list)

    @property
    def left_s(self) -> float:
        return self.plan.left_s(self.points)

    def probe(self, phase: Phase, rate_per_s: float, seconds: float) -> Probe:
        number, plan = len(self.points), self.plan
        fewest = min(_FEWEST_REQUESTS, rate_per_s * _FEWEST_SHARE * plan.budget_s)
        requests = max(round(rate_per_s * max(seconds, self.least_s)), round(fewest), _LEAST_REQUESTS)
        until_s = self.left_s + plan.unloaded_s
        return Probe(number, phase, rate_per_s, requests, probe_seed(plan.seed, number), until_s)

    @property
    def least_s(self) -> float:
        """Shorter, and a queue that grows has not grown beyond the limit."""
        return _PROBE_LIMITS * loosest_limit_ms(self.plan.slos) / 1e3

    def has_time(self, rate_per_s: float) -> bool:
        """Whether there is time for a probe at this rate."""
        least_s = max(_LEAST_LEFT * self.plan.budget_s, self.least_s, _LEAST_REQUESTS / rate_per_s)
        return self.left_s > least_s


class _BudgetSpentError(Exception):
    """Ends the search, wherever it is."""


def search(plan: Plan, known: Sequence[Point] = ()) -> Searching:
    """Yields probes until the answer is confirmed or the budget is spent; see the module's first lines.

    `known` are the points of an earlier search under the same SLOs, to be gone on from; their time counts.
    """
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
        yield from _see_the_edge(state)
    yield from _confirm(state, low)


def _run_probe(state: _State, phase: Phase, rate_per_s: float, seconds: float) -> Generator[Probe, Point, Point]:
    """One probe. One that is invalid for the generator's sake is repeated with a fresh seed, unless its unaffected
    requests are enough to choose the next rate, or even they are over the limit."""
    for _ in range(_MOST_INVALID):
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


def _quick_s(plan: Plan) -> float:
    """Long enough for a backlog to show, short enough to be cheap."""
    return max(plan.timing.shortest_probe_s, min(plan.budget_s * _QUICK_SHARE, 4 * loosest_limit_ms(plan.slos) / 1e3))


def _bracket(known: Sequence[Point]) -> tuple[float | None, float | None]:
    """The lowest rate that was not met and the highest met below it, where there are such."""
    high = min((point.rate_per_s for point in known if not point.passes), default=None)
    below = [point.rate_per_s for point in known if point.meets_slo and (high is None or point.rate_per_s < high)]
    return max(below, default=None), high


def _double(state: _State, met: float | None = None) -> Generator[Probe, Point, tuple[float | None, float | None]]:
    """A rate that was met and one that was not; None where there was none. `met` was met earlier.

    A rate at which only the generator had trouble is tried once more when a lower one was met: the trouble may be over.
    """
    plan, seconds = state.plan, _quick_s(state.plan)
    low, high, generator_only, retried = met, None, False, False
    rate_per_s = min(2 * met if met else plan.start_per_s, plan.max_per_s)
    while rate_per_s >= min(_LEAST_RATE_PER_S, plan.start_per_s / _LOWEST):
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
        if state.left_s <= (1 - EXPLORE_SHARE) * state.plan.budget_s:
            break
        if (yield from _run_probe(state, "double", low, _LONGER * _quick_s(state.plan))).meets_slo:
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
        explore_left_s = state.left_s - (1 - EXPLORE_SHARE) * plan.budget_s
        if explore_left_s <= 0:
            break
        steps = math.ceil(math.log2(math.log(high / low) / math.log1p(plan.tolerance)))
        seconds = max(explore_left_s / max(steps, 2) / 2, plan.timing.shortest_probe_s)
        rate_per_s = math.sqrt(low * high)
        point = yield from _run_probe(state, "bisect", rate_per_s, seconds)
        met, decided = point.meets_slo, _decided(point)
        if not decided:
            again = yield from _run_probe(state, "bisect", rate_per_s, seconds)
            met, decided = _together(point, again)
        low, high = (rate_per_s, high) if met else (low, rate_per_s)
        if not decided and high / low < _NEAR:
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
    """First a rate that should pass; down after each failure; after a success up, as far as the time left can carry."""
    plan = state.plan
    certified = max((best.rate_per_s for best in certificates(state.points)), default=0.0)
    refused = [p.rate_per_s for p in state.points if _refuses(p) and p.rate_per_s > certified]
    ceiling = min([plan.max_per_s, *(rate_per_s / (1 + plan.tolerance) for rate_per_s in refused)])
    tried, failures = bool(certified or refused), 0
    while state.left_s > _LEAST_LEFT * plan.budget_s and certified < plan.max_per_s:
        lookahead = HIGHER if certified else FIRST
        wanted_per_s, _ = next_confirmation_rate(state.points, plan.slos, state.left_s, low, lookahead)
        rate_per_s = min(wanted_per_s, ceiling)
        least = least_s(state.points, plan.budget_s)
        if tried and state.left_s < least:
            return
        clean_s = plan.clean_requests / rate_per_s
        if clean_s > state.left_s or rate_per_s <= certified * (1 + plan.tolerance):
            if not (yield from _refine(state)):
                return
            continue
        seconds = max((_LATER_SHARE if tried else _FIRST_SHARE) * state.left_s, least, clean_s)
        point = yield from _run_probe(state, "confirm", rate_per_s, seconds)
        tried = True
        missing = missing_requests(state.points, rate_per_s)
        if missing and missing <= state.left_s * rate_per_s:
            seconds = min(max(_ROOM * missing / rate_per_s, _LEAST_ROOM * state.left_s), state.left_s)
            yield from _run_probe(state, "confirm", rate_per_s, seconds)
        if is_certified(state.points, rate_per_s):
            certified, failures = max(certified, rate_per_s), 0
        elif _refuses(point):  # each further failure says more clearly that the points so far flatter the server
            ceiling = min(ceiling, rate_per_s / (1 + plan.tolerance * 2**failures))
            failures += 1


def _refuses(point: Point) -> bool:
    """Whether it is a valid confirmation run, which did not certify its rate by itself."""
    return point.phase == "confirm" and (point.verdict != "invalid" or not point.passes)


def _see_the_edge(state: _State) -> Searching:
    """What bisection left of its time goes to the rate where it puts the capacity: which rate to confirm follows."""
    plan = state.plan
    while (seconds := state.left_s - (1 - EXPLORE_SHARE) * plan.budget_s) > _LEAST_EDGE * plan.budget_s:
        fitted = estimate(state.points, plan.slos)
        if fitted is None:
            return
        yield from _run_probe(state, "refine", min(fitted.rate_per_s, plan.max_per_s), seconds)


def _refine(state: _State) -> Generator[Probe, Point, bool]:
    """Where no higher rate is likely to pass, a probe at the estimated capacity sharpens the estimate instead."""
    fitted = estimate(state.points, state.plan.slos)
    if fitted is None:
        return False
    yield from _run_probe(state, "refine", min(fitted.rate_per_s, state.plan.max_per_s), _REFINE_SHARE * state.left_s)
    return True
