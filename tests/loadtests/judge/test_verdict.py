import numpy as np
import pytest
from queueing import md1_capacity_per_s, sojourn_s

from loadtests.judge.verdict import at_least, at_most, judge, judge_counts, most_over, required_requests
from loadtests.slo import Slo
from loadtests.workload.schedule import poisson

P99 = Slo.parse("p99=50ms")


@pytest.mark.parametrize(
    ("percentile", "over", "requests"),
    [
        (0.99, 0, 459), (0.99, 1, 662), (0.99, 2, 838), (0.99, 3, 1001), (0.99, 5, 1307), (0.99, 10, 2010),
        (0.99, 50, 6898), (0.99, 1000, 107_569),
        (0.95, 0, 90), (0.95, 1, 130), (0.95, 2, 165), (0.95, 10, 398),
        (0.90, 0, 44), (0.90, 1, 64), (0.90, 2, 81), (0.90, 10, 197),
        (0.999, 0, 4603), (0.999, 1, 6636), (0.999, 2, 8403),
    ],
)  # fmt: skip
def test_needs_as_many_requests_as_mlperf_loadgen(percentile, over, requests):
    assert required_requests(percentile, over) == requests
    assert judge_counts(requests, over, 1 - percentile) == "pass"
    assert judge_counts(requests - 1, over, 1 - percentile) == "undecided"


@pytest.mark.parametrize(("requests", "most"), [(458, -1), (459, 0), (662, 1), (2000, 9), (16_000, 130)])
def test_most_over_that_still_passes(requests, most):
    assert most_over(requests, 0.01) == most


def test_tails_agree_with_the_binomial_distribution():
    from scipy.stats import binom

    assert at_most(3, 500, 0.01) == pytest.approx(binom.cdf(3, 500, 0.01))
    assert at_least(12, 500, 0.01) == pytest.approx(binom.sf(11, 500, 0.01))
    assert at_most(5, 5, 0.01) == 1.0
    assert at_least(0, 5, 0.01) == 1.0


@pytest.mark.parametrize(
    ("latencies_ms", "verdict", "why"),
    [
        (np.full(459, 50.0), "pass", "an answer exactly at the limit is in time"),
        (np.full(458, 1.0), "undecided", "one request too few"),
        (np.full(20, 51.0), "fail", "all of them late"),
        (np.full(3, np.inf), "fail", "failed requests are late"),
        (np.empty(0), "undecided", "nothing was measured"),
    ],
)
def test_judges_latencies(latencies_ms, verdict, why):
    assert judge(P99, latencies_ms).verdict == verdict, why


def test_errors_slo_counts_failures_alone():
    latencies_ms = np.full(5000, 1e6)
    assert judge(Slo.parse("errors=0.1%"), latencies_ms).verdict == "pass"
    latencies_ms[::100] = np.inf
    assert judge(Slo.parse("errors=0.1%"), latencies_ms).verdict == "fail"


def test_undecided_says_how_many_requests_would_decide():
    found = judge(P99, np.full(300, 1.0))
    assert 459 <= found.requests_to_decide <= 482
    hopeless = judge(P99, np.concatenate([np.full(300, 1.0), np.full(4, 99.0)]))
    assert (hopeless.verdict, hopeless.requests_to_decide) == ("undecided", None)


def test_false_pass_rate_of_independent_requests_at_the_limit():
    rng = np.random.default_rng(0)
    runs = 10_000
    passed = 0
    for requests in rng.integers(459, 5000, runs):
        over = rng.binomial(requests, 0.01)  # the share that the SLO just does not forgive
        passed += judge_counts(requests, over, 0.01) == "pass"
    assert passed / runs <= 0.01


def test_dependence_is_one_for_independent_requests():
    rng = np.random.default_rng(1)
    factors = [judge(P99, rng.exponential(10, 2000)).dependence for _ in range(200)]
    assert np.mean(factors) < 1.02
    assert np.median(factors) == 1.0


def test_late_requests_in_runs_count_as_one():
    latencies_ms = np.full(2000, 1.0)
    latencies_ms[500:505] = 99.0
    alone = np.full(2000, 1.0)
    alone[100:2000:400] = 99.0
    assert judge(P99, alone).dependence == 1.0
    assert judge(P99, latencies_ms).dependence > 3


@pytest.mark.parametrize(
    ("percentile", "limit_services", "requests", "wanted"),
    [(0.99, 6, 3000, 0.01), (0.99, 15, 3000, 0.01), (0.9, 5, 1500, 0.04)],
    ids=["p99, short limit", "p99, long limit", "p90 of a hundred independent requests"],
)
def test_a_queue_at_its_limit_passes_at_most_so_often(percentile, limit_services, requests, wanted):
    """Where just as many are late as may be, the plain test passes every third to second time: they come in runs."""
    capacity = md1_capacity_per_s(1.0, limit_services, percentile)
    slo = Slo(round(1 - percentile, 9), limit_services * 1e3)
    plain = corrected = 0
    runs = 1000
    for seed in range(runs):
        arrivals_s = poisson(capacity, seed=seed, count=requests)
        latencies_ms = sojourn_s(arrivals_s, np.ones(len(arrivals_s))) * 1e3
        corrected += judge(slo, latencies_ms).verdict == "pass"
        plain += judge_counts(requests, int((latencies_ms > slo.limit_ms).sum()), slo.allowed_share) == "pass"
    assert plain / runs > 0.2
    assert corrected / runs <= wanted
