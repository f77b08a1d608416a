"""Search the capacity of one real server under its SLOs, or of two in turns.

result = find(CapacityRequest(server="localhost:8001", model="rain_forecast", slos=(Slo.parse("p99=20ms"),)))
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from loadtests.capacity import CapacityRequest, describe, plan_of, start_generators, timeout_s
from loadtests.errors import BadRequestError, SloUnreachableError, TargetError, TargetLostError
from loadtests.records.point import Point, Probe
from loadtests.results.folders import home_of, model_folder
from loadtests.results.lock import writing
from loadtests.results.result import INTERRUPTED, CapacityResult, too_short
from loadtests.results.resume import earlier_run, resumed, usable_points
from loadtests.results.store import Run, Store, Stored
from loadtests.search.budget import Plan
from loadtests.search.probe import Prober
from loadtests.search.search import Searching, gap_reached, search
from loadtests.search.turns import Turns, in_turns
from loadtests.search.unloaded import measure_unloaded
from loadtests.slo import Slo, check_measures, format_rate
from loadtests.target.metrics import MetricsMeter, default_url
from loadtests.workload.workload import Workload, scoped

OnPoint = Callable[[Point], None]
OnNote = Callable[[str], None]


def find(request: CapacityRequest, on_point: OnPoint | None = None, on_note: OnNote | None = None) -> CapacityResult:
    """Searches within the budget; `on_point` sees every point as it is measured, `on_note` what to know beforehand.

    Ctrl-C ends the search, and a server that dies ends it too: the result is then marked partial and keeps its points.
    Raises TargetError (server, model or warm request) and SloUnreachableError before measuring, GeneratorError when
    our own process fails. What cannot be written while it measures is said in the result (`unsaved`).
    """
    with measuring(request, on_note) as side:
        plan = side.plan
        reached = plan.gap is not None and gap_reached(side.points, plan.slos, plan.gap)
        if reached or next(search(plan, tuple(side.points)), None) is None:
            return side.as_it_was()
        side.begin()
        end = send_probes(
            [side], _alone(search(plan, tuple(side.points))), lambda _, point: on_point and on_point(point)
        )
        return side.finish(end.why if end else "")


def find_in_turns(
    sides: tuple[CapacityRequest, CapacityRequest],
    on_point: Callable[[int, Point], object] = lambda *_: None,
    on_note: OnNote | None = None,
) -> tuple[CapacityResult, CapacityResult]:
    """Searches both, a probe of one and then of the other, with the same seeds; see `search.turns`.

    The requests have a `side` and a folder of their own each, and all else in common. When one server dies or Ctrl-C
    ends it, both results are partial and keep their points. Raises what `find` raises.
    """
    with contextlib.ExitStack() as stack:
        found: list[Measurement] = []
        turns = uuid.uuid4().hex
        for request in (replace(request, turns=turns) for request in sides):
            try:
                found.append(stack.enter_context(measuring(request, on_note)))
            except SloUnreachableError as error:
                raise SloUnreachableError(
                    f"{request.side}: {error}", slo=error.slo, unloaded_ms=error.unloaded_ms
                ) from error
        one, other = found
        if one.plan.seed != other.plan.seed or one.run.settings.get("turns") != other.run.settings.get("turns"):
            raise BadRequestError("these two runs were not measured in turns: start a new comparison", field="resume")
        for side in found:
            side.begin()
        end = send_probes(found, in_turns((one.plan, other.plan), (one.points, other.points)), on_point)
        why = ["", ""]
        if end is not None:
            why = [
                end.why if end.why == INTERRUPTED or at == end.side else f"the search of {sides[end.side].side} ended"
                for at in range(2)
            ]
        return one.finish(why[0]), other.finish(why[1])


@contextlib.contextmanager
def measuring(request: CapacityRequest, on_note: OnNote | None = None) -> Iterator[Measurement]:
    """A search that is ready to begin: the server answers, what it takes unloaded is known, the folder is locked."""
    slos = scoped(request.slos, [share.model for share in request.shares])
    if (earlier := _earlier(request, slos)) is not None:  # refuses before anything is made or asked
        request = replace(request, seed=earlier.run.seed)
    with contextlib.ExitStack() as stack:
        traffic = stack.enter_context(
            Workload(
                request.server,
                request.shares,
                access=request.access,
                seed=request.seed,
                interval_s=request.interval_s,
                frozen_s=request.timing.frozen_s,
            )
        )
        traffic.check()
        check_measures(slos, traffic.measures)
        if request.folder is not None:
            new = model_folder(request.folder, request.model)
            stack.enter_context(writing(home_of(earlier.folder, request.model) if earlier else new))
        earlier = _earlier(request, slos)
        points = usable_points(earlier) if earlier else []
        unloaded = measure_unloaded(traffic, slos, timeout_s=timeout_s(request, traffic), budget_s=request.budget_s)
        plan = plan_of(request, slos, traffic, unloaded)
        run = describe(request, plan, traffic, unloaded)
        if earlier:
            run = resumed(earlier, run)
        if on_note is not None and not points and (warning := too_short(run.model, run.slos, run.settings)):
            on_note(warning)
        yield Measurement(request, traffic, plan, run, points, unloaded.ttft_ms, earlier.folder if earlier else None)


@dataclass
class Measurement:
    """A search under way: one probe after the other is sent, evaluated and kept."""

    request: CapacityRequest
    traffic: Workload
    plan: Plan
    run: Run
    points: list[Point]
    """Those of an earlier search first."""
    unloaded_ms: float
    """To the first part of an answer."""
    at: Path | None
    """The folder of an earlier search to go on with."""
    store: Store | None = None

    def begin(self) -> None:
        """Makes the folder. Raises BadRequestError."""
        if self.request.folder is not None:
            self.store = Store(self.request.folder, self.run, self.points, at=self.at)

    @contextlib.contextmanager
    def generators(self) -> Iterator[Callable[[Probe], Point]]:
        """What sends a probe, and adds its point to `points` and to the folder."""
        request, store, plan = self.request, self.store, self.plan
        deadline_s = timeout_s(request, self.traffic, plan.answer_s)
        with start_generators(request, self.traffic, plan.answer_s) as generators:
            given = request.metrics_url
            metrics = MetricsMeter(given or default_url(request.server), required=given is not None)
            save = store.save_record if store else None
            prober = Prober(
                generators, self.traffic, plan.slos, save, metrics, plan.timing, request.arrivals, plan.answer_s
            )

            def send(probe: Probe) -> Point:
                left_s = plan.left_s(self.points)
                point = prober.send(probe, self.unloaded_ms, timeout_s=deadline_s, left_s=left_s)
                self.points.append(point)
                if store is not None:
                    store.add(point)
                return point

            yield send

    def as_it_was(self) -> CapacityResult:
        """The result of the existing points; an earlier result stays where it is."""
        return self.run.result(self.points, partial="", folder=self.at)

    def finish(self, partial: str) -> CapacityResult:
        """`partial` says why it ended early, and is empty where it did not."""
        result = self.run.result(self.points, partial=partial, folder=self.store.folder if self.store else None)
        if self.store is None:
            return result
        self.store.finish(result)
        return replace(result, unsaved=self.store.trouble)


@dataclass(frozen=True)
class EarlyEnd:
    """Why probes ended before their time, and at which side."""

    side: int
    why: str


def send_probes(
    sides: Sequence[Measurement], probes: Turns, on_point: Callable[[int, Point], object]
) -> EarlyEnd | None:
    """Sends each probe to its side until there is none."""
    side = 0
    try:
        with contextlib.ExitStack() as stack:
            send = [stack.enter_context(each.generators()) for each in sides]
            side, probe = next(probes)
            while True:
                point = send[side](probe)
                on_point(side, point)
                if point.stopped == "asked":
                    return EarlyEnd(side, INTERRUPTED)
                if point.stopped == "connection lost":
                    return EarlyEnd(side, f"at {format_rate(probe.rate_per_s)} {point.reason}")
                side, probe = probes.send(point)
    except StopIteration:
        return None
    except KeyboardInterrupt:
        return EarlyEnd(side, INTERRUPTED)
    except (TargetLostError, TargetError) as error:
        if not any(each.points for each in sides):
            raise
        return EarlyEnd(side, str(error))


def _alone(searching: Searching) -> Turns:
    """A search as turns of a single side."""
    with contextlib.suppress(StopIteration):
        probe = next(searching)
        while True:
            probe = searching.send((yield 0, probe))


def _earlier(request: CapacityRequest, slos: Sequence[Slo]) -> Stored | None:
    if not request.resume:
        return None
    if request.folder is None:
        raise BadRequestError("name the folder to resume from with --resume DIR", field="folder")
    return earlier_run(request.folder, request.model, slos, request.manifest, request.budget_s)
