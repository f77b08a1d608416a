"""What each command ends with, of results that are the same every time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from imported_models import F, node, write
from syrupy.assertion import SnapshotAssertion

from clients import Classification
from fathom import cli
from fathom.commands import infer, load, plan
from fathom.console import answers, live_table, summary
from fathom.latencies import Latencies
from loadtests.errors import BadRequestError, SloUnreachableError
from loadtests.records.batching import Batching
from loadtests.records.point import (
    GenerationLoad,
    GeneratorStats,
    ModelPoint,
    Point,
    ServerLoad,
    SizePoint,
    SloCount,
    StepPoint,
    StreamPoint,
)
from loadtests.records.sequences import SequencePoint
from loadtests.report import batching, prose
from loadtests.results.result import INTERRUPTED, CapacityResult, too_short
from loadtests.search import unloaded
from loadtests.sizing import make_plan
from loadtests.slo import Slo, check_measures
from loadtests.workload.sequences import check_payloads, interval_s, sequences_of
from loadtests.workload.sizes import Sizes
from loadtests.workload.variability import Variability

SLO = Slo.parse("p99=20ms")


def point(number: int, phase: str, rate_per_s: float, p99_ms: float, over: int, **changes: Any) -> Point:
    """5,000 requests of which `over` were late."""
    verdict = changes.get("verdict") or ("fail" if over > 50 else "pass")
    made = Point(
        number=number,
        phase=phase,  # type: ignore[arg-type]
        rate_per_s=rate_per_s,
        offered_per_s=rate_per_s,
        achieved_per_s=rate_per_s,
        verdict=verdict,
        reason=f"{over} of 5,000 over 20ms",
        passes=over <= 50,
        requests=5000,
        scheduled=5000,
        errors=0,
        error_messages={},
        p50_ms=p99_ms / 4,
        p90_ms=p99_ms / 2,
        p99_ms=p99_ms,
        p999_ms=p99_ms * 1.5,
        max_ms=p99_ms * 2,
        mean_ms=p99_ms / 3,
        slos=(SloCount("p99=20ms", verdict, over, 5000, 1.0, (over // 4,) * 4),),
        seed=number,
        send_lag_p50_ms=0.05,
        send_lag_p99_ms=0.3,
        send_lag_max_ms=0.9,
        late_share=0.0,
        cpu_per_request_us=50.0,
        generator_cpu_share=0.1,
        stopped="",
        duration_s=5000 / rate_per_s,
        took_s=5000 / rate_per_s + 0.5,
        started_unix_s=0.0,
        host_cpu_share=0.4,
        queue_ms=1.0,
        compute_ms=2.0,
        mean_batch=1.5,
        steps=(StepPoint("queue", 1.0, 0.1, 1.8, 0.1, 2.0, 1.5, 3333, 5000, 0, {"1": 2500, "2": 1250}),),
        raw="",
        workers=(GeneratorStats("1", 5000, 0.05, 0.3, 0.9, 0.0, 0.1),),
    )
    return replace(made, **changes)


POINTS = (
    point(0, "double", 200.0, 9.0, 0),
    point(1, "double", 400.0, 16.0, 5),
    point(2, "double", 800.0, 95.0, 900),
    point(3, "bisect", 600.0, 40.0, 200),
    point(4, "confirm", 400.0, 15.0, 3),
)
SENT: dict[str, Any] = {
    "arrivals": "poisson",
    "payload_source": "evaluation data",
    "payload_sizes": {"queue": asdict(Sizes(248, 52, 129, 4199))},
}
BURSTS: dict[str, Any] = {
    **SENT,
    "arrivals": "trace.csv",
    "arrivals_recorded": asdict(Variability.of(np.cumsum(np.tile([0.9, 0.02, 0.02, 0.02, 0.04], 40)))),
}
SIZES = (
    SizePoint("cat", 52, 2500, 3.0, 9.0),
    SizePoint("cat", 129, 2000, 4.0, 12.0),
    SizePoint("cat", 4199, 500, 8.0, 19.0),
)
LATE = "sent late: p99 2.1 ms; use more workers (--workers)"
PROVEN = CapacityResult(
    model="queue",
    server="host:8001",
    slos=(SLO,),
    capacity_per_s=400.0,
    capacity_estimate_per_s=480.0,
    capacity_estimate_interval_per_s=(430.0, 530.0),
    verdict="pass",
    reason="at 400/s, 3 of 5,000 over 20ms (0.06 %)",
    partial=False,
    seeds=(0, 0, 1, 2, 3, 4),
    manifest=None,
    hardware={},
    settings={"budget_s": 60.0, "unloaded_ms": 2.0},
    points=POINTS,
    folder="results/queue",
)
STREAMS = StreamPoint(
    210.0, 480.0, 890.0, 45.0, 60.0, 120.0, 60.0, 90.0, 310.0, 480.0, 29_000, 148.0, 6.1, 3, 1.8, 0.97
)
GENERATION = GenerationLoad(6.2, 8.0, 2.0, 5.2, 150.0, 3)
STREAMED = replace(
    PROVEN,
    slos=(TTFT := Slo.parse("ttft:p99=1s"), ITL := Slo.parse("itl:p99=150ms")),
    decided_by=ITL,
    points=tuple(
        replace(
            each,
            streaming=STREAMS,
            load=ServerLoad(0.9, 800.0, None, None, None, 0, GENERATION if each.number else None),
            requests=50_000,
            slos=tuple(replace(each.slos[0], slo=str(slo), requests=50_000) for slo in (TTFT, ITL)),
        )
        for each in POINTS
    ),
)
SPOKEN: dict[str, Any] = {
    **SENT,
    "mix": {"queue": 1.0},
    "sequences": {"queue": {"interval_s": 0.08, "requests_mean": 30.5, "mean_s": 2.4, "longest_s": 3.6}},
}
SEQUENCES = SequencePoint(30.5, 366.0, 2.4, 29.1, 6.0, 9.0, 31.0, 48.0)
HEARD = replace(
    PROVEN,
    slos=(SLO, Slo.parse("gap:p90=100ms")),
    decided_by=SLO,
    settings={**PROVEN.settings, **SPOKEN, "filled_s": 19.2},
    points=tuple(replace(each, rate_per_s=each.rate_per_s / 100, sequences=SEQUENCES) for each in POINTS),
)
BATCHING = (
    Batching("onnxruntime", 8, "dynamic", instances=2, on_gpu=False),
    Batching(
        "onnxruntime", 8, "dynamic", 1, False, open_inputs=("ids",), preferred=(4, 8), delay_us=500, prefetches=False
    ),
    Batching("onnxruntime", 8, "sequence", instances=2, on_gpu=False),
    Batching("onnxruntime", 8, "none", instances=2, on_gpu=False),
    Batching("onnxruntime", 1, "dynamic", instances=2, on_gpu=False),
)
NOTHING: dict[str, Any] = {
    "capacity_per_s": None,
    "capacity_estimate_per_s": None,
    "capacity_estimate_interval_per_s": None,
}
RESULTS = {
    "a proven rate": PROVEN,
    "recorded arrivals, and requests whose size decides": replace(
        PROVEN,
        settings={**PROVEN.settings, **BURSTS},
        points=tuple(replace(each, sizes=SIZES) for each in POINTS),
    ),
    "a search that was interrupted": replace(
        PROVEN,
        **NOTHING,
        verdict="undecided",
        reason=f"{INTERRUPTED}; no rate was confirmed (4 of 5,000 over 20ms)",
        partial=True,
        points=POINTS[:2],
    ),
    "an SLO that no rate meets": replace(
        PROVEN,
        **NOTHING,
        verdict="fail",
        reason="even 800/s is too much: 900 of 5,000 over 20ms",
        points=POINTS[2:3],
    ),
    "a generator that could not keep up": replace(
        PROVEN,
        **NOTHING,
        verdict="invalid",
        reason=LATE,
        points=(replace(POINTS[0], verdict="invalid", reason=LATE),),
    ),
    "a busy machine, of which half the probes prove nothing": replace(
        PROVEN,
        settings={**PROVEN.settings, "busy_before_share": 0.6},
        points=(*(replace(each, verdict="invalid", reason=LATE) for each in POINTS[:2]), *POINTS[2:]),
    ),
}


@pytest.mark.parametrize("case", RESULTS)
def test_capacity(case: str, shown: Callable[[], str], snapshot: SnapshotAssertion) -> None:
    summary.show(RESULTS[case], options=" --server host:8001")
    assert shown() == snapshot


def test_report(shown: Callable[[], str], snapshot: SnapshotAssertion) -> None:
    """What the page says beside its figures."""
    (step,) = POINTS[1].steps
    crowded = replace(POINTS[1], queue_ms=4.0, steps=(replace(step, queue_ms=4.0, execution_ms=3.0),))
    slow = replace(POINTS[1], compute_ms=5.0, steps=(replace(step, compute_ms=5.0),))
    for measured in (POINTS[1], crowded, slow, replace(POINTS[1], generator_cpu_share=0.8)):
        print(prose.describe_bottleneck(measured))
    for known in BATCHING:
        (found,) = batching.step_batching(crowded, {"queue": known})
        print(*found.reasons)
    pipeline = replace(crowded, steps=(replace(step, model="texts", execution_ms=1.0), replace(step, execution_ms=2.0)))
    names = {"texts": replace(BATCHING[0], backend="python"), "queue": BATCHING[0]}
    print(batching.describe_preprocessing(batching.find_preprocessing(pipeline, names)))
    for result in RESULTS.values():
        print(prose.explain(result))
        print(prose.in_short(result))
    print(live_table.progress(POINTS, [SLO]))
    assert shown() == snapshot


def test_load(shown: Callable[[], str], snapshot: SnapshotAssertion) -> None:
    load.show(POINTS[1], ["p99=20ms"], SENT)
    models = (ModelPoint("cat", 4000, 0, 4.0, 15.0, "pass"), ModelPoint("dog", 1000, 2, 4.5, None, "undecided"))
    sizes = (*SIZES, SizePoint("dog", 10, 500, 4.0, 9.0), SizePoint("dog", 1000, 500, 5.0, 12.0))
    mixed = {**BURSTS, "payload_sizes": {"cat": SENT["payload_sizes"]["queue"], "dog": asdict(Sizes(32, 64, 64, 64))}}
    load.show(replace(POINTS[1], models=models, sizes=sizes), ["p99=20ms", "dog:p50=5ms"], mixed)
    assert shown() == snapshot


def test_plan(shown: Callable[[], str], snapshot: SnapshotAssertion) -> None:
    for line in plan.describe(make_plan(PROVEN, 20_000, cost_per_hour=4.0)):
        print(line)
    assert shown() == snapshot


def test_answers_in_parts(shown: Callable[[], str], snapshot: SnapshotAssertion) -> None:
    """Each command's own words for them."""
    summary.show(STREAMED, options=" --server host:8001")
    missed = replace(STREAMED, **NOTHING, verdict="fail", slos=(replace(TTFT, limit_ms=100.0), ITL), reason="too slow")
    summary.show(replace(missed, points=STREAMED.points[2:3]))
    for first in STREAMED.points[:2]:
        print(live_table.line(first, "pass"))
        load.show(first, ["ttft:p99=1s"], SENT)
    print(*plan.describe(make_plan(STREAMED, 2000)), sep="\n")
    short = {"budget_s": 60.0, "unloaded_ms": 2000.0, "filled_s": 16.0, "least_s": 700.0, "start_per_s": 1.0}
    print(too_short("recipe_writer", (TTFT, ITL), short))
    print(too_short("recipe_writer", (Slo.parse("ttft:p90=1s"),), short, 0.5))
    with pytest.raises(BadRequestError) as refused:
        check_measures((TTFT,), {"recipe_writer": ("", "ttft"), "echo": ("",)})
    print(refused.value)
    for slo in ("ttft:p99=1s", "itl:p99=1s", "gap:p99=1s"):
        with pytest.raises(SloUnreachableError) as unreachable:
            unloaded._check("recipe_writer", [Slo.parse(slo)], unloaded.Alone(9000.0, 2500.0, 1100.0, 1300.0), 5)
        print(unreachable.value)
    assert shown() == snapshot


def test_sequences(shown: Callable[[], str], snapshot: SnapshotAssertion) -> None:
    """Each command's own words for them."""
    summary.show(HEARD, options=" --server host:8001")
    print(prose.explain(HEARD))
    print(prose.explain(replace(HEARD, **NOTHING, verdict="undecided", reason="no rate was confirmed")))
    print(live_table.line(HEARD.points[0], "pass"))
    load.show(HEARD.points[0], ["p99=20ms"], SPOKEN)
    voice: Any = SimpleNamespace(model="voice", keeps_state=True, streams=False, idle_s=3.0)
    plain: Any = SimpleNamespace(model="echo", keeps_state=False, streams=False)
    streams: Any = SimpleNamespace(model="speaker", keeps_state=False, streams=True)
    refusals: list[Callable[[], object]] = [
        lambda: interval_s(voice, None),
        lambda: interval_s(voice, 0.0),
        lambda: interval_s(voice, 3.0),
        lambda: check_payloads(voice, [b"", b""]),
        lambda: check_payloads(voice, [(b"", b""), b""]),
        lambda: check_payloads(plain, [(b"", b"")]),
        lambda: sequences_of([voice, streams], [[(b"", b"")], [b""]], [0.08, None], strict=False),
        lambda: check_measures((Slo.parse("itl:p99=1s"),), {"voice": ("", "gap")}),
        lambda: check_measures((Slo.parse("gap:p99=1s"),), {"voice": ("", "gap"), "echo": ("",)}),
    ]
    for refuse in refusals:
        with pytest.raises(BadRequestError) as refused:
            refuse()
        print(refused.value)
    for slo in ("p99=1s", "gap:p99=1s"):
        alone = unloaded.Alone(2500.0, 2500.0, 0.0, 2600.0)
        with pytest.raises(SloUnreachableError) as unreachable:
            unloaded._check("voice", [Slo.parse(slo)], alone, 5, in_sequences=True)
        print(unreachable.value)
    assert shown() == snapshot


def relu(path: Path, **options: Any) -> Path:
    return write(path, [node("Relu", ["x"], ["y"])], [("x", F, ["n", 3])], [("y", F, ["n", 3])], **options)


def test_add_export_and_check(folder: Path, shown: Callable[[], str], snapshot: SnapshotAssertion) -> None:
    """One after the other, with the outputs of each."""
    relu(folder / "relu.onnx")
    for words in ("add mine --onnx relu.onnx --no-serve", "export mine --no-engine", "check"):
        print(f"$ fathom {words}")
        assert cli.main(words.split()) == 0
    config = folder / "model_repository" / "mine" / "config.pbtxt"
    config.write_text(config.read_text().replace("dims: [ 3 ]", "dims: [ 4 ]", 1))
    print("$ fathom check")
    assert cli.main(["check"]) == 1
    assert shown() == snapshot


def test_infer(shown: Callable[[], str], snapshot: SnapshotAssertion) -> None:
    scores = [Classification(label, value, index) for index, (label, value) in enumerate((("8", 0.93), ("3", 0.05)))]
    print(answers.ranked(scores))
    print(answers.ranked([entry._replace(value=entry.value * 10) for entry in scores]))
    outputs = {"y": np.arange(8, dtype=np.float32).reshape(1, 8), "said": np.array([[b"hello"]], object)}
    print(*answers.sentences("mine", outputs), answers.shapes(outputs), sep="\n")
    quick = Latencies(np.linspace(1.0, 9.0, 101), 0.1, 8, {}, "")
    failed = Latencies(np.zeros(0), 0.1, 8, {"Unreachable": 11}, "cannot reach host:8001", given_up=True)
    print(quick.sentence(), failed.sentence(), replace(quick, interrupted=True).sentence(), sep="\n")
    asked = cli.parser("infer").parse_args(["infer", "mine", "x=1", "--server", "host:8001"])
    print(*infer._caveat(asked, quick.slo))
    assert shown() == snapshot
