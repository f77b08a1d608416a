"""Which configuration is measured next, at which rate: challengers against the leader, in turns, until none can win.

`Race.run()` is a generator in Python's sense, as `loadtests.search.search` is: it yields a `Turn`, is sent the
`Answer`, and in the end returns. It looks at no clock and starts no server: recorded answers replay it.

The committed configuration is searched first; it leads. Each contender is then probed once at the highest rate that
any has met, and goes on upwards as long as it meets the SLO. Those that met the most run A B B A against the leader,
because machines drift. A challenger is dropped when its interval lies below the leader's or the leader has met a rate
that it missed, and leads when its estimate is higher at the end. Winner and committed configuration then run in turns
with fresh seeds, which gives the gain its interval, and the winner's rate is confirmed.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Generator
from dataclasses import dataclass, field, replace

from loadtests.records.point import Phase, Point, Probe
from loadtests.search.budget import AUTO_GAP, Plan
from loadtests.search.search import search
from loadtests.slo import format_rate
from loadtests.tuning.arm import Answer, Arm, FailedError, Racing, Turn
from loadtests.tuning.objective import Objective, Standing
from loadtests.tuning.ranking import Ranking
from loadtests.tuning.space import COMMITTED, Configuration
from loadtests.workload.schedule import probe_seed

_FIELD_SHARE, _HEATS_SHARE, _GAIN_SHARE = 0.45, 0.6, 0.75
"""Of the budget: by when the last contender is probed first, and the heats and the last turns have ended. The rest
confirms the two that were in these."""
_FIRST_PROBES, _NARROW = 6, 1.12
"""Of the committed configuration before the heats: at most so many, until the ends of its interval are so close."""
_PROBE_SHARE, _LONGEST_S = 0.008, 8.0
"""Of a probe: of the budget, and in seconds."""
_ROUNDS = 2
"""Of A B B A in a heat, at most."""
_STEP_UP, _LEAP, _STEP_DOWN, _FALL = 1.15, 2.0, 0.8, 0.6
"""From the rates of the probes to the next one, as long as all met the SLO (towards what is expected, at most a leap)
or none did (further where the probe was stopped early)."""
_WORTHWHILE = 1.03
"""Over the leader's value: a challenger that missed a lower rate than this is dropped without a heat."""
_HOPELESS_ARMS = 4
"""Configurations that are measured although none meets the SLO."""
_UNBOUNDED = 6
"""Further probes of a challenger that met all rates of its heat."""
_RECENT = 6
"""Of the leader's points: how many say where it stands now, since machines drift."""


@dataclass
class Race:
    """The state of a tuning run; its fields are what the report shows."""

    objective: Objective
    ranking: Ranking
    plan: Plan
    """SLOs, seed, budget and timing; `start_per_s` is where the committed configuration's search begins."""
    arms: dict[Configuration, Arm] = field(default_factory=dict)
    leader: Configuration = COMMITTED
    spent_s: float = 0.0
    ended: str = ""
    """Why it ended before every contender had its turn; empty when none was left."""
    _qualified: list[Configuration] = field(default_factory=list)
    """Challengers that were probed and wait for their heat."""
    _turns: int = 0
    _standings: dict[tuple[Configuration, int, int | None], Standing | None] = field(default_factory=dict)

    def run(self) -> Racing:
        """Yields turns until the winner is confirmed or the budget is spent."""
        with contextlib.suppress(FailedError):
            yield from self._first()
        yield from self._heats()
        if self.leader != COMMITTED and self.arms[COMMITTED].points:
            yield from self._last_turns()
        if self.objective.at_rate_per_s is None:
            for configuration in dict.fromkeys((self.leader, COMMITTED)):
                if self.standing(configuration) is None:
                    continue
                with contextlib.suppress(FailedError):
                    parts = 2 if configuration != COMMITTED else 1
                    yield from self._search(configuration, self.left_s / parts)

    def standing(self, configuration: Configuration, *, recent: int | None = None) -> Standing | None:
        """How good a configuration is by its points, or the latest of them."""
        arm = self.arms.get(configuration)
        if arm is None:
            return None
        key = (configuration, len(arm.points), recent)
        if key not in self._standings:
            found = self.objective.standing(configuration, arm.points[-recent:]) if recent else None
            self._standings[key] = found or self.objective.standing(configuration, arm.points)
        return self._standings[key]

    def gain(self) -> tuple[float, float, float] | None:
        """The leader's value over the committed one's, with its 95 % interval, from the last turns."""
        one, other = (self._final(each) for each in (COMMITTED, self.leader))
        if self.leader == COMMITTED or one is None or other is None:
            return None
        ratio = math.log(other.value / one.value)
        below = math.hypot(math.log(other.value / other.low), math.log(one.high / one.value))
        above = math.hypot(math.log(other.high / other.value), math.log(one.value / one.low))
        return math.exp(ratio), math.exp(ratio - below), math.exp(ratio + above)

    def _final(self, configuration: Configuration) -> Standing | None:
        arm = self.arms.get(configuration)
        if arm is None:
            return None
        return self.objective.standing(configuration, arm.final) or self.standing(configuration, recent=_RECENT)

    # The committed configuration, then the challengers.

    def _first(self) -> Generator[Turn, Answer, None]:
        for _ in range(_FIRST_PROBES):
            yield from self._probe(COMMITTED, self._rate_of(COMMITTED))
            found = self.standing(COMMITTED)
            if found is not None and found.high <= _NARROW * found.low:
                break
        self._learn(COMMITTED)

    def _heats(self) -> Generator[Turn, Answer, None]:
        while True:
            leading = self.standing(self.leader)
            self._drop_missed()
            highest = max(leading.value if leading else 0.0, *map(self._met_worth, (COMMITTED, *self._qualified)))
            fresh = self.ranking.contenders(highest)
            if not fresh and not self._qualified:
                return
            if leading is None and len(self.arms) > _HOPELESS_ARMS:
                self.ended = f"none of the {len(self.arms)} most promising configurations meets the SLO"
                return
            if self.spent_s > _HEATS_SHARE * self.plan.budget_s:
                self.ended = f"the budget ended with {len(fresh) + len(self._qualified)} contenders not measured"
                return
            late = self.spent_s > _FIELD_SHARE * self.plan.budget_s
            challenger = (
                fresh[0] if fresh and not (late and self._qualified) else max(self._qualified, key=self._met_worth)
            )
            try:
                if challenger in self._qualified or leading is None or self.objective.at_rate_per_s is not None:
                    yield from self._heat(challenger)
                else:
                    yield from self._qualify(challenger)
            except FailedError as failure:
                if failure.configuration != challenger:
                    self.ended = f"the leader's server failed: {failure}"
                    return

    def _qualify(self, challenger: Configuration) -> Generator[Turn, Answer, None]:
        """From the highest rate that the leader or a challenger has met, upwards as long as this one meets it, too."""
        self.arms[challenger] = Arm(challenger)
        for _ in range(_UNBOUNDED):
            yield from self._probe(challenger, self._rate_of(challenger))
            if not self._met_all(challenger):
                break
        self._learn(challenger)
        self._qualified.append(challenger)

    def _drop_missed(self) -> None:
        """Of the challengers that wait for their heat, those that missed a rate which the leader meets."""
        leading = self.standing(self.leader, recent=_RECENT)
        for challenger in list(self._qualified) if leading else ():
            lowest = min(
                (point.rate_per_s for point in self.arms[challenger].points if _refused(point)), default=math.inf
            )
            if leading and self.objective.scaled(challenger, lowest) <= _WORTHWHILE * leading.value:
                self.arms[challenger].outcome = f"misses the SLO at {format_rate(lowest)}, where the leader meets it"
                self._qualified.remove(challenger)

    def _met_worth(self, configuration: Configuration) -> float:
        """The highest rate that it met, as the objective counts it; 0 without one."""
        points = self.arms[configuration].points if configuration in self.arms else []
        return self.objective.scaled(
            configuration, max((each.rate_per_s for each in points if each.meets_slo), default=0.0)
        )

    def _heat(self, challenger: Configuration) -> Generator[Turn, Answer, None]:
        """A B B A, the challenger's next rate from what it has shown."""
        leader = self.leader
        self.arms.setdefault(challenger, Arm(challenger))
        if challenger in self._qualified:
            self._qualified.remove(challenger)
        for number in range(4 * _ROUNDS):
            if number % 4 in (0, 3):
                if self.objective.at_rate_per_s is not None or self.standing(leader):
                    yield from self._probe(leader, self._rate_of(leader))
                    self._learn(leader)
                continue
            yield from self._probe(challenger, self._rate_of(challenger))
            self._learn(challenger)
            if outcome := self._decided(challenger):
                self.arms[challenger].outcome = outcome
                break
        for _ in range(_UNBOUNDED):  # it met all rates so far: how far above the leader is it?
            if self.standing(challenger) is not None or not self._met_all(challenger):
                break
            yield from self._probe(challenger, self._rate_of(challenger))
            self._learn(challenger)
        own, other = self.standing(challenger), self.standing(leader, recent=_RECENT)
        self._learn(challenger)
        if own is not None and (other is None or own.value > other.value):
            self.leader = challenger
            self.arms[challenger].outcome = f"better than {leader}"
        elif not self.arms[challenger].outcome:
            self.arms[challenger].outcome = f"not better than {leader}"

    def _decided(self, challenger: Configuration) -> str:
        """Why no further probe is needed; empty where one is."""
        leading, own = self.standing(self.leader, recent=_RECENT), self.standing(challenger)
        points = self.arms[challenger].points
        if self.objective.at_rate_per_s is not None and own is None and len(points) > 1:
            return f"misses the SLO at {format_rate(self.objective.at_rate_per_s)}"
        if leading is None:
            return "the first that meets the SLO" if own is not None else ""
        if own is not None:
            if own.high < leading.low:
                return "its whole interval is worse than the leader's"
            return "its whole interval is better than the leader's" if own.low > leading.high else ""
        lowest = min((point.rate_per_s for point in points if _refused(point)), default=math.inf)
        if self.objective.at_rate_per_s is None and self.objective.scaled(challenger, lowest) <= leading.low:
            return f"misses the SLO at {format_rate(lowest)}, where the leader meets it"
        return ""

    def _rate_of(self, configuration: Configuration) -> float:
        """Of the next probe: where the capacity is estimated, else a step from the rates tried towards it. A challenger
        begins where the leader's interval does."""
        if self.objective.at_rate_per_s is not None:
            return self.objective.at_rate_per_s
        worth = self.objective.scaled(configuration, 1.0)
        if (known := self.standing(configuration, recent=_RECENT)) is not None:
            return known.value / worth
        expected_per_s = self.ranking.expected(configuration) / worth
        points = self.arms[configuration].points if configuration in self.arms else []
        if not points:
            leading = self.standing(self.leader, recent=_RECENT)
            met = map(self._met_worth, self._qualified)
            return max([leading.value, *met]) / worth if leading else self.plan.start_per_s
        rates = [point.rate_per_s for point in points]
        if points[-1].meets_slo:
            leap = _LEAP if len(points) > 2 * _ROUNDS else 1.0
            return max(_STEP_UP * max(rates), min(expected_per_s, _LEAP * max(rates)), leap * max(rates))
        return (_FALL if points[-1].stopped else _STEP_DOWN) * min(rates)

    def _met_all(self, configuration: Configuration) -> bool:
        points = self.arms[configuration].points
        return self.objective.at_rate_per_s is None and all(point.meets_slo for point in points)

    def _learn(self, configuration: Configuration) -> None:
        """What its points show. Without a standing it met all rates, the highest of which counts, or none: then its
        capacity lies below the lowest, and its latency at the rate of the objective is the longest that was seen."""
        points = self.arms[configuration].points
        if (standing := self.standing(configuration)) is not None:
            self.ranking.learn(configuration, standing.value)
        elif self.objective.at_rate_per_s is not None:
            longest_ms = max((point.p99_ms for point in points if point.p99_ms), default=None)
            if longest_ms is None:
                self.ranking.fail(configuration, "no latency could be measured")
            else:
                self.ranking.learn(configuration, 1 / longest_ms)
        else:
            below = self.objective.scaled(configuration, _STEP_DOWN * min(point.rate_per_s for point in points))
            self.ranking.learn(configuration, self._met_worth(configuration) or below)

    # The winner.

    def _last_turns(self) -> Generator[Turn, Answer, None]:
        """Winner and committed configuration, A B B A with fresh seeds; what they show decides who wins."""
        pair = (COMMITTED, self.leader)
        with contextlib.suppress(FailedError):
            for number in (0, 1, 1, 0) * 2:
                if self.spent_s > _GAIN_SHARE * self.plan.budget_s and self.arms[pair[number]].final:
                    break
                point = yield from self._probe(pair[number], self._rate_of(pair[number]))
                self.arms[pair[number]].final.append(point)
        one, other = (self.standing(each, recent=_RECENT) for each in pair)
        if one is not None and other is not None and other.value <= one.value:
            self.arms[self.leader].outcome = "not better than committed in the last turns"
            self.leader = COMMITTED

    # One probe.

    def _search(self, configuration: Configuration, budget_s: float) -> Generator[Turn, Answer, None]:
        """`loadtests.search`, for so many seconds more, until a rate near the estimate is proven."""
        known = self.arms.setdefault(configuration, Arm(configuration)).points
        start_per_s = self._rate_of(configuration)
        plan = replace(
            self.plan, start_per_s=start_per_s, budget_s=budget_s + sum(point.took_s for point in known), gap=AUTO_GAP
        )
        searching = search(plan, tuple(known))
        with contextlib.suppress(StopIteration):
            probe = next(searching)
            while True:
                point = yield from self._ask(configuration, probe)
                probe = searching.send(point)

    def _probe(self, configuration: Configuration, rate_per_s: float) -> Generator[Turn, Answer, Point]:
        shortest_s = self.plan.short_s
        seconds = max(shortest_s, min(_PROBE_SHARE * self.plan.budget_s, _LONGEST_S))
        phase: Phase = "refine"
        probe = Probe(0, phase, rate_per_s, max(round(rate_per_s * seconds), 8), 0, max(self.left_s, shortest_s))
        return (yield from self._ask(configuration, probe))

    def _ask(self, configuration: Configuration, probe: Probe) -> Generator[Turn, Answer, Point]:
        """One turn, with a number and a seed of its own. Raises FailedError where the configuration does not serve."""
        number = self._turns
        self._turns += 1
        seeded = Probe(
            number, probe.phase, probe.rate_per_s, probe.requests, probe_seed(self.plan.seed, number), probe.until_s
        )
        answer = yield Turn(configuration, seeded)
        self.spent_s += answer.took_s
        arm = self.arms.setdefault(configuration, Arm(configuration))
        if answer.point is None:
            self.ranking.fail(configuration, answer.failure)
            arm.outcome = answer.failure
            raise FailedError(configuration, answer.failure)
        arm.points.append(answer.point)
        return answer.point

    @property
    def left_s(self) -> float:
        """The time left of the budget."""
        return self.plan.budget_s - self.spent_s


def _refused(point: Point) -> bool:
    """Whether a probe shows that its rate is too high, by more than chance."""
    return point.usable and any(count.verdict == "fail" for count in point.counts)
