import numpy as np
import pytest

from loadtests.errors import ResultsError
from loadtests.judge.backlog import backlog_at_arrivals, judge_backlog
from loadtests.records.record import MOST_TIMELINES, NOT_SENT, UNANSWERED, Record, histogram, percentile


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


def streams() -> Record:
    """Scheduled each second: ten parts, one part, failed after two, running after two, failed without one, not sent."""
    intended_s = np.arange(6.0)
    return Record(
        intended_s,
        intended_s,
        intended_s + np.array([1.0, 0.3, 0.5, np.nan, 0.1, np.nan]),
        np.array([0, 0, 13, UNANSWERED, 14, NOT_SENT], np.uint8),
        first_s=intended_s + np.array([0.1, 0.25, 0.2, 0.3, np.nan, np.nan]),
        gap_s=np.array([0.4, np.nan, 0.1, 0.2, np.nan, np.nan]),
        parts=np.array([10, 1, 2, 2, 0, 0], np.uint32),
        timelines={0: np.linspace(0.1, 1.0, 10), 3: np.array([3.3, 3.5])},
    )


def test_the_measures_of_streams():
    found = {measure: streams().measured_ms(measure) for measure in ("", "ttft", "itl", "gap")}
    assert {measure: values.tolist() for measure, values in found.items()} == {
        "": pytest.approx([1000, 300, np.inf, np.inf, np.inf]),
        "ttft": pytest.approx([100, 250, np.inf, 300, np.inf]),
        "itl": pytest.approx([100, 0, np.inf, np.inf, np.inf]),
        "gap": pytest.approx([400, 0, np.inf, np.inf, np.inf]),
    }
    assert not record(np.full(3, 0.02)).streamed


def test_what_is_known_of_streams_at_a_stop():
    """What was scheduled two seconds before, where that is the limit; of how the parts came, what has ended."""
    assert streams().known_at(4.0, 2.0).intended_s.tolist() == [0, 1, 2]
    assert streams().ended_at(4.0).intended_s.tolist() == [0, 1, 2, 4]


def test_streams_saved_and_loaded(tmp_path):
    before = streams()
    before.save(tmp_path / "probe.npz")
    back = Record.load(tmp_path / "probe.npz")
    for name in ("first_s", "gap_s", "parts"):
        assert np.array_equal(getattr(back, name), getattr(before, name), equal_nan=True)
    assert {row: times.tolist() for row, times in back.timelines.items()} == {
        row: times.tolist() for row, times in before.timelines.items()
    }


@pytest.mark.parametrize(
    "timelines",
    [{"timeline_row": [0, 9], "timeline_s": [0.1, 0.2]}, {"timeline_row": [0], "timeline_s": [0.1, 0.2]}],
    ids=["a request that there is not", "a time too many"],
)
def test_time_lines_of_nothing_are_refused(tmp_path, timelines):
    columns = dict.fromkeys(("intended_s", "sent_s", "done_s"), np.zeros(2))
    np.savez(tmp_path / "probe.npz", **columns, status=np.zeros(2, np.uint8), **timelines)
    with pytest.raises(ResultsError):
        Record.load(tmp_path / "probe.npz")


def test_a_record_of_before_streams_still_loads(tmp_path):
    record(np.full(3, 0.02)).save(tmp_path / "probe.npz")
    assert set(np.load(tmp_path / "probe.npz")) == {"intended_s", "sent_s", "done_s", "status", "model", "worker"}
    back = Record.load(tmp_path / "probe.npz")
    assert np.isnan(back.first_s).all()
    assert back.parts.tolist() == [0, 0, 0]


def test_time_lines_follow_their_requests():
    merged = Record.merge([streams(), streams()])
    assert {row: times[0] for row, times in merged.timelines.items()} == pytest.approx({0: 0.1, 1: 0.1, 6: 3.3, 7: 3.3})
    assert merged.parts[[0, 1, 6, 7]].tolist() == [10, 10, 2, 2]
    failed = merged.where(~merged.ok)
    assert {row: times[0] for row, times in failed.timelines.items()} == {2: 3.3, 3: 3.3}
    assert len(Record.merge([streams()] * 20).timelines) <= MOST_TIMELINES


def test_times_from_another_start():
    moved = streams().since(-100.0)
    assert moved.first_s[0] == pytest.approx(100.1)
    assert moved.timelines[3].tolist() == pytest.approx([103.3, 103.5])
    for measure in ("", "ttft", "itl", "gap"):
        assert moved.measured_ms(measure) == pytest.approx(streams().measured_ms(measure))


def test_backlog_counts_the_unanswered_at_each_arrival():
    assert backlog_at_arrivals(record(np.full(5, 0.025))).tolist() == [0, 1, 2, 2, 2]


def test_backlog_of_a_server_that_falls_behind_grows():
    steady = np.random.default_rng(4).exponential(0.03, 1000)
    assert not judge_backlog(record(steady)).growing
    behind = judge_backlog(record(steady + np.arange(1000) * 0.001))
    assert behind.growing
    assert behind.second_half > behind.first_half > 0
