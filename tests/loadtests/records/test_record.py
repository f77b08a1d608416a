import numpy as np
import pytest

from loadtests.errors import ResultsError
from loadtests.judge.backlog import backlog_at_arrivals, judge_backlog
from loadtests.records.record import NOT_SENT, UNANSWERED, Record, histogram, percentile


def record(latency_s, *, gap_s=0.01, status=None):
    intended_s = np.arange(len(latency_s)) * gap_s
    status = np.zeros(len(latency_s), np.uint8) if status is None else np.asarray(status, np.uint8)
    done_s = np.where(status < 100, intended_s + latency_s, np.nan)
    return Record(intended_s, intended_s + 0.001, done_s, status)


def test_latency_runs_from_the_intended_time_and_failures_are_infinite():
    probe = record(np.array([0.02, 0.03, 0.04, 0.05]), status=[0, 14, UNANSWERED, NOT_SENT])
    assert probe.latencies_ms().tolist() == pytest.approx([20.0, np.inf, np.inf])
    assert probe.send_lags_ms() == pytest.approx([1.0, 1.0, 1.0])


@pytest.mark.parametrize(("share", "expected"), [(0.5, 50), (0.99, 99), (0.999, 100), (1.0, 100), (0.001, 1)])
def test_percentile_is_the_nearest_rank(share, expected):
    assert percentile(np.random.default_rng(0).permutation(np.arange(1.0, 101.0)), share) == expected


def test_histogram_agrees_with_the_exact_percentiles():
    latencies_ms = np.random.default_rng(2).lognormal(1, 1, 20_000)
    filled = histogram(latencies_ms)
    for percent in (50, 90, 99, 99.9):
        exact_us = percentile(latencies_ms, percent / 100) * 1e3
        assert filled.get_value_at_percentile(percent) == pytest.approx(exact_us, rel=2e-3)


def test_merged_histograms_equal_the_pooled_one():
    rng = np.random.default_rng(3)
    parts = [rng.exponential(5, 3000) for _ in range(4)]
    merged = histogram(parts[0])
    for part in parts[1:]:
        merged.add(histogram(part))
    pooled = histogram(np.concatenate(parts))
    assert [merged.get_value_at_percentile(p) for p in (50, 99)] == [
        pooled.get_value_at_percentile(p) for p in (50, 99)
    ]
    assert merged.get_total_count() == 12_000


def test_merge_orders_by_intended_time():
    one, other = record(np.full(3, 0.02)), record(np.full(3, 0.03), gap_s=0.007)
    merged = Record.merge([one, other])
    assert np.all(np.diff(merged.intended_s) >= 0)
    assert sorted(merged.latencies_ms()) == pytest.approx([20, 20, 20, 30, 30, 30])


def test_saved_and_loaded(tmp_path):
    probe = record(np.array([0.02, 0.03]), status=[0, UNANSWERED])
    probe.save(tmp_path / "probe.npz")
    back = Record.load(tmp_path / "probe.npz")
    assert np.array_equal(back.done_s, probe.done_s, equal_nan=True)
    assert back.status.tolist() == probe.status.tolist()
    (tmp_path / "probe.npz").write_bytes(b"no")
    with pytest.raises(ResultsError) as refused:
        Record.load(tmp_path / "probe.npz")
    assert refused.value.path == tmp_path / "probe.npz"


def test_known_at_a_stop_leaves_out_what_could_still_be_late():
    probe = record(np.full(100, 0.02))
    assert len(probe.known_at(0.5, 0.1)) == 41


def test_backlog_counts_the_unanswered_at_each_arrival():
    assert backlog_at_arrivals(record(np.full(5, 0.025))).tolist() == [0, 1, 2, 2, 2]


def test_backlog_of_a_server_that_falls_behind_grows():
    steady = np.random.default_rng(4).exponential(0.03, 1000)
    assert not judge_backlog(record(steady)).growing
    behind = judge_backlog(record(steady + np.arange(1000) * 0.001))
    assert behind.growing
    assert behind.second_half > behind.first_half > 0
