"""What a probe asks of the generators."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from loadtests import Slo
from loadtests.generator.messages import EarlyStop, Limits
from loadtests.records.point import Probe
from loadtests.search.probe import Prober
from loadtests.workload.arrivals import CONSTANT
from loadtests.workload.sequences import Sequences
from loadtests.workload.workload import scoped

MODELS = ("chat", "search")
TRAFFIC: Any = SimpleNamespace(
    models=MODELS,
    weights=np.array([0.25, 0.75]),
    pool=[b"x"] * 5,
    payloads_of=lambda model: (0, 2) if model == "chat" else (2, 5),
    choices=lambda count, seed: np.zeros(count, np.int32),
    statistics=list,
    longest_s=0.0,
    mean_s=0.0,
    requests_each=1.0,
    ends=lambda offsets_s, choices: (offsets_s, choices),
)
SEQUENCES = Sequences((5, 3), (0.5, 0.5))


class _AskedError(Exception):
    pass


class Asked:
    """Generators that only take down what they are asked."""

    def run_schedule(self, intended_s, choices, limits: Limits, **_: Any):
        self.limits, self.intended_s = limits, intended_s
        raise _AskedError


def asked(*slos: str, answer_s: float = 0.0, requests: int = 1000) -> Limits:
    generators: Any = Asked()
    parsed = scoped([Slo.parse(slo) for slo in slos], MODELS)
    prober = Prober(generators, TRAFFIC, parsed, answer_s=answer_s)
    with pytest.raises(_AskedError):
        prober.at_rate(Probe(0, "double", 10.0, requests, 1))
    return generators.limits


def test_sequences_are_measured_while_as_many_run_as_ever_will():
    """Those that end before are sent, and not measured; and others begin until the last that is measured ends."""
    generators: Any = Asked()
    longest_s = float(SEQUENCES.lengths_s.max())
    traffic = SimpleNamespace(**{
        **vars(TRAFFIC), "longest_s": longest_s, "mean_s": 1.5, "requests_each": 4.0, "ends": SEQUENCES.ends,
        "choices": lambda count, seed: np.arange(count, dtype=np.int32) % 2,
    })  # fmt: skip
    prober = Prober(generators, traffic, [Slo.parse("p90=100ms")], arrivals=CONSTANT)
    with pytest.raises(_AskedError):
        prober.at_rate(Probe(0, "double", 10.0, 200, 1))
    measured_s = generators.intended_s[: -generators.limits.cooldown]
    assert (measured_s >= longest_s).sum() == 200
    assert (measured_s < longest_s).sum() > 0
    assert generators.limits.cooldown >= 10 * (longest_s + 1.1)
    assert generators.limits.early_stop[0].count == 2 * 0.1 * 200 + 2 * 10 * 1.5
    assert generators.limits.max_outstanding > 10 * 4 * 1.5


def stops(*slos: str) -> list[tuple[float, str, tuple[int, int] | None]]:
    return [(stop.limit_ms, stop.measure, stop.payloads) for stop in asked(*slos).early_stop]


def test_an_slo_stops_a_probe_by_its_own_measure_and_the_requests_of_its_own_model():
    assert stops("p99=50ms", "errors=1%") == [(50.0, "", None)]
    assert stops("chat:ttft:p90=1s", "search:p99=20ms") == [(1000.0, "ttft", (0, 2)), (20.0, "", (2, 5))]


def test_of_a_model_of_a_mix_as_many_requests_are_expected_as_are_its_own():
    (mine,), (every,) = asked("chat:p90=1s").early_stop, asked("p90=1s", requests=250).early_stop
    assert mine == EarlyStop(1000.0, every.count, "", (0, 2))


def test_the_load_is_kept_up_for_as_long_as_answers_in_parts_take():
    """However short the limit on the time to their first part is."""
    whole, streamed = asked("p90=100ms"), asked("ttft:p90=100ms", answer_s=20.0)
    assert whole.cooldown == 11
    assert streamed.cooldown == 210
    assert streamed.max_outstanding > 10 * 20
