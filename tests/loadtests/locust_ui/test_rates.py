"""What the panel expects of rates that somebody tried by hand."""

from __future__ import annotations

import pytest
from queueing import md1_capacity_per_s
from simulated import simulate

from loadtests.locust_ui.rates import Rates
from loadtests.records.point import Point, Probe
from loadtests.slo import Slo

P99 = Slo.parse("p99=20ms")
SERVICE_S = 0.002


def tried(*rates_per_s: float, seconds: float = 20.0) -> list[Point]:
    probes = (Probe(0, "double", rate, round(rate * seconds), seed) for seed, rate in enumerate(rates_per_s))
    return [simulate(probe, P99, SERVICE_S, None) for probe in probes]


def capacity(points: list[Point]) -> dict[str, object] | None:
    rates = Rates()
    for point in points:
        rates.add(point)
    return rates.capacity([P99])


def test_four_rates_on_both_sides_give_the_capacity() -> None:
    exact_per_s = md1_capacity_per_s(SERVICE_S, 0.02, 0.99)
    found = capacity(tried(300, 380, 430, 470, 430))
    assert found is not None
    assert found["rates"] == 4  # one of them twice
    assert found["estimate_per_s"] == pytest.approx(exact_per_s, rel=0.05)


@pytest.mark.parametrize(
    "points",
    [tried(300, 380, 470), tried(50, 100, 150, 200), tried(300, 380, 430, 470, seconds=0.1)],
    ids=["three rates", "none too high", "a moment each"],
)
def test_less_gives_none(points: list[Point]) -> None:
    assert capacity(points) is None
