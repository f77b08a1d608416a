"""Which configuration is measured next, at which rate: challengers against the leader, in turns, until none can win.

`Race.run()` is a generator in Python's sense, as `loadtests.search.search` is: it yields a `Turn`, is sent the
`Answer`, and in the end returns. It looks at no clock and starts no server: recorded answers replay it.

The committed configuration is searched first; it leads. Each contender is then probed once at the highest rate that
any has met, and goes on upwards as long as it meets the SLO. Every few contenders the leader is probed again. Those
that met the most run A B B A against the leader, because machines drift. A challenger is dropped when its interval lies
below the leader's or the leader has met a rate that it missed, and leads when its estimate is higher at the end. Winner
and committed configuration then run in turns with fresh seeds, which gives the gain its interval, and the rates of both
are confirmed. Time that is left goes into more of these turns, until the interval is narrow.

What is compared gets the same draw of arrivals and payloads: the first probes of all contenders, and the two probes of
each A B. Chance then favours none.
"""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Generator
from dataclasses import dataclass, field

from loadtests.search.budget import Plan
from loadtests.slo import format_rate
from loadtests.tuning.arm import Answer, Arm, FailedError, Racing, Turn
from loadtests.tuning.objective import Objective, Standing
from loadtests.tuning.probes import Probes
from loadtests.tuning.ranking import Ranking
from loadtests.tuning.space import COMMITTED, Configuration
from loadtests.tuning.standings import Standings

_FIELD_SHARE, _HEATS_SHARE, _GAIN_SHARE = 0.45, 0.6, 0.75
"""Of the budget: by when the last contender is probed first, and the heats and the last turns have ended. The rest
confirms the two that were in these; what that leaves goes into more turns. Where the committed configuration leads, the
heats go on instead of last turns."""
_FIRST_PROBES, _LAST_TURNS, _NARROW = 6, 8, 1.12
"""Of the committed configuration before the heats, and of it and the winner behind them: at most so many, until the
ends of the interval are so close."""
_REFERENCE = 6
"""After so many contenders the leader is probed again."""
_STEP_UP, _LEAP, _STEP_DOWN, _FALL = 1.15, 2.0, 0.8, 0.6
"""From the rates of the probes to the next one, as long as all met the SLO (towards what is expected, at most a leap)
or none did (further where the probe was stopped early)."""
_UP, _DOWN = 1.05, 0.95
"""The same where there is an estimate, and the last three probes contradict it."""
_WORTHWHILE = 1.03
"""Over the leader's value: a challenger that missed a lower rate than this is dropped without a heat."""
_FAR = 0.9
"""Of the leader's value: a challenger whose first probes show less is dropped without a heat, too."""
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
    leader: Configuration = COMMITTED
    ended: str = ""
    """Why it ended before every contender had its turn; empty when none was left."""
    _qualified: list[Configuration] = field(default_factory=list)
    """Challengers that were probed and wait for their heat."""
    _since_reference: int = 0
    """Contenders since the leader was probed last."""

    def __post_init__(self) -> None:
        self.standings = Standings(self.objective, self.ranking)
        self.arms, self.standing = self.standings.arms, self.standings.of
        self.probes = Probes(self.plan, self.standings)

    def run(self) -> Racing:
        """Yields turns until the winner is confirmed or the budget is spent."""
        with contextlib.suppress(FailedError):
            yield from self._first()
        yield from self._heats()
        yield from self._last_turns(_GAIN_SHARE * self.plan.budget_s, _LAST_TURNS)
        self._settle(*(self.standing(each, recent=_RECENT) for each in (COMMITTED, self.leader)))
        if self.objective.at_rate_per_s is None:
            for configuration in dict.fromkeys((self.leader, COMMITTED)):
                if self.standing(configuration) is None:
                    continue
                share_s = self.probes.left_s / (1 if configuration == COMMITTED else 2)
                with contextlib.suppress(FailedError):
                    yield from self.probes.search(configuration, self._rate_of(configuration), share_s)
        if self.gain() is not None:
            yield from self._last_turns(self.plan.budget_s - self.probes.probe_s, sys.maxsize)
            self._settle(*map(self._final, (COMMITTED, self.leader)))

    def gain(self) -> tuple[float, float, float] | None:
        """The leader's value over the committed one's, with its 95 % interval, from the last turns."""
        return None if self.leader == COMMITTED else _gain(*map(self._final, (COMMITTED, self.leader)))

    def _final(self, configuration: Configuration) -> Standing | None:
        arm = self.arms.get(configuration)
        if arm is None:
            return None
        return self.objective.standing(configuration, arm.final) or self.standing(configuration)

    # The committed configuration, then the challengers.

    def _first(self) -> Generator[Turn, Answer, None]:
        for _ in range(_FIRST_PROBES):
            yield from self.probes.probe(COMMITTED, self._rate_of(COMMITTED))
            found = self.standing(COMMITTED)
            if found is not None and found.high <= _NARROW * found.low:
                break
        self.standings.learn(COMMITTED)

    def _heats(self) -> Generator[Turn, Answer, None]:
        met_worth = self.standings.met_worth
        while True:
            leading = self.standing(self.leader)
            self._drop_missed()
            highest = max(leading.value if leading else 0.0, *map(met_worth, (COMMITTED, *self._qualified)))
            fresh = self.ranking.contenders(highest)
            if not fresh and not self._qualified:
                return
            if leading is None and len(self.arms) > _HOPELESS_ARMS:
                self.ended = f"none of the {len(self.arms)} most promising configurations meets the SLO"
                return
            share = _GAIN_SHARE if self.leader == COMMITTED else _HEATS_SHARE
            if self.probes.spent_s > share * self.plan.budget_s:
                waiting = {"not measured": len(fresh), "not compared with the best": len(self._qualified)}
                left = " and ".join(f"{count} {what}" for what, count in waiting.items() if count)
                self.ended = f"the budget ended with contenders left: {left}"
                return
            late = self.probes.spent_s > _FIELD_SHARE * self.plan.budget_s
            challenger = (
                fresh[0]
                if fresh and not (late and self._qualified)
                else max(self._qualified, key=self.ranking.expected)
            )
            try:
                if challenger in self._qualified or leading is None or self.objective.at_rate_per_s is not None:
                    yield from self._heat(challenger)
                    self._since_reference = 0
                elif self._since_reference == _REFERENCE:
                    self._since_reference = 0
                    yield from self.probes.probe(self.leader, self._rate_of(self.leader))
                    self.standings.learn(self.leader)
                else:
                    self._since_reference += 1
                    yield from self._qualify(challenger)
            except FailedError as failure:
                if failure.configuration != challenger:
                    self.ended = f"the leader's server failed: {failure}"
                    return

    def _qualify(self, challenger: Configuration) -> Generator[Turn, Answer, None]:
        """From the highest rate that the leader or a challenger has met, upwards as long as this one meets it, too."""
        self.arms[challenger] = Arm(challenger)
        for number in range(_UNBOUNDED):
            yield from self.probes.probe(challenger, self._rate_of(challenger), draw=number)
            if not self.standings.met_all(challenger):
                break
        self.standings.learn(challenger)
        self._qualified.append(challenger)

    def _drop_missed(self) -> None:
        """Of the challengers that wait for their heat, those that missed a rate which the leader meets, or by far."""
        leading = self.standing(self.leader, recent=_RECENT)
        for challenger in list(self._qualified) if leading else ():
            lowest = self.standings.missed_per_s(challenger)
            if leading and self.objective.scaled(challenger, lowest) <= _WORTHWHILE * leading.value:
                outcome = f"misses the SLO at {format_rate(lowest)}, where the leader meets it"
            elif (
                leading
                and self.standing(challenger) is None
                and self.ranking.expected(challenger) <= _FAR * leading.value
            ):
                point = self.arms[challenger].points[-1]
                rate, answered = format_rate(point.rate_per_s), format_rate(point.achieved_per_s)
                outcome = f"misses the SLO at {rate}, of which it answers {answered}"
            else:
                continue
            self.arms[challenger].outcome = outcome
            self._qualified.remove(challenger)

    def _heat(self, challenger: Configuration) -> Generator[Turn, Answer, None]:
        """A B B A, and once more where the challenger is ahead; its next rate follows from what it has shown."""
        leader = self.leader
        began = self.probes.turns
        self.arms.setdefault(challenger, Arm(challenger))
        if challenger in self._qualified:
            self._qualified.remove(challenger)
        for number in range(8):
            if number == 4 and not self._ahead(challenger, leader):
                break
            draw = began + number // 2
            if number % 4 in (0, 3):
                if self.objective.at_rate_per_s is not None or self.standing(leader):
                    yield from self.probes.probe(leader, self._rate_of(leader), draw=draw)
                    self.standings.learn(leader)
                continue
            yield from self.probes.probe(challenger, self._rate_of(challenger), draw=draw)
            self.standings.learn(challenger)
            if outcome := self._decided(challenger):
                self.arms[challenger].outcome = outcome
                break
        for _ in range(_UNBOUNDED):  # it met all rates so far: how far above the leader is it?
            if self.standing(challenger) is not None or not self.standings.met_all(challenger):
                break
            yield from self.probes.probe(challenger, self._rate_of(challenger))
            self.standings.learn(challenger)
        if self._ahead(challenger, leader):
            self.leader = challenger
            self.arms[challenger].outcome = f"better than {leader}"
            if leader != COMMITTED:
                self.arms[leader].outcome = f"not better than {challenger}"
        elif not self.arms[challenger].outcome:
            self.arms[challenger].outcome = f"not better than {leader}"

    def _ahead(self, challenger: Configuration, leader: Configuration) -> bool:
        own, other = self.standing(challenger), self.standing(leader, recent=_RECENT)
        return own is not None and (other is None or own.value > other.value)

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
        lowest = self.standings.missed_per_s(challenger)
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
            per_s = known.value / worth
            if streak := self.standings.streak(configuration):  # the machine is not what it was
                rates = [point.rate_per_s for point in streak]
                return max(per_s, _UP * max(rates)) if streak[-1].meets_slo else min(per_s, _DOWN * min(rates))
            return per_s
        expected_per_s = self.ranking.expected(configuration) / worth
        points = self.arms[configuration].points if configuration in self.arms else []
        if not points:
            leading = self.standing(self.leader, recent=_RECENT)
            met = map(self.standings.met_worth, self._qualified)
            return max([leading.value, *met]) / worth if leading else self.plan.start_per_s
        rates = [point.rate_per_s for point in points]
        if points[-1].meets_slo:
            leap = _LEAP if len(points) > 4 else 1.0
            return max(_STEP_UP * max(rates), min(expected_per_s, _LEAP * max(rates)), leap * max(rates))
        return (_FALL if points[-1].stopped else _STEP_DOWN) * min(rates)

    # The winner.

    def _last_turns(self, until_s: float, most: int) -> Generator[Turn, Answer, None]:
        """Winner and committed configuration, A B B A with fresh seeds.

        They end when the gain is known well enough, whatever it is: to stop as soon as one is ahead would favour it.
        """
        pair, began = (COMMITTED, self.leader), self.probes.turns
        if self.leader == COMMITTED or not self.arms[COMMITTED].points:
            return
        with contextlib.suppress(FailedError):
            for number in range(most):
                each = pair[number % 4 in (1, 2)]
                if all(self.arms[one].final for one in pair):
                    gain = _gain(*(self.objective.standing(one, self.arms[one].final) for one in pair))
                    narrow = gain is not None and gain[2] <= _NARROW * gain[1]
                    if self.probes.spent_s > until_s or (narrow and number % 2 == 0):
                        break
                point = yield from self.probes.probe(each, self._rate_of(each), draw=began + number // 2)
                self.arms[each].final.append(point)

    def _settle(self, committed: Standing | None, leading: Standing | None) -> None:
        """Let the committed configuration win where the last turns show that it is not worse."""
        if self.leader == COMMITTED or committed is None or leading is None:
            return
        if leading.value <= committed.value:
            self.arms[self.leader].outcome = "not better than committed in the last turns"
            self.leader = COMMITTED


def _gain(one: Standing | None, other: Standing | None) -> tuple[float, float, float] | None:
    """The other's value over the one's, with its 95 % interval; None where one of them is not known."""
    if one is None or other is None:
        return None
    ratio = math.log(other.value / one.value)
    below = math.hypot(math.log(other.value / other.low), math.log(one.high / one.value))
    above = math.hypot(math.log(other.high / other.value), math.log(one.value / one.low))
    return math.exp(ratio), math.exp(ratio - below), math.exp(ratio + above)
