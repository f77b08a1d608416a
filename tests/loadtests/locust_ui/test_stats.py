"""Locust's own statistics, fed by us: percentiles exact to a microsecond, on one process and merged at a master."""

from __future__ import annotations

from collections.abc import Iterator

import locust.stats
import msgpack
import numpy as np
import pytest

from loadtests.locust_ui import stats as locust_stats
from loadtests.records.record import Record, histogram, percentile

BEGAN_S = 1_700_000_000.0
ENTRY = {name: getattr(locust.stats.StatsEntry, name) for name in ("to_string", "percentile")}
REPLACED = (
    "bucket_response_time",
    "calculate_response_time_percentile",
    "proper_round",
    "PERCENTILES_TO_STATISTICS",
    "PERCENTILES_TO_CHART",
)


@pytest.fixture(autouse=True)
def installed() -> Iterator[None]:
    """Ours in place of Locust's, for the length of a test."""
    before = {name: getattr(locust.stats, name) for name in REPLACED}
    locust_stats.install()
    yield
    for name, value in before.items():
        setattr(locust.stats, name, value)
    for name, value in ENTRY.items():
        setattr(locust.stats.StatsEntry, name, value)


def record(latencies_ms: np.ndarray, statuses: int = 0) -> Record:
    intended_s = BEGAN_S + np.arange(len(latencies_ms)) / 1000
    return Record(
        intended_s, intended_s, intended_s + latencies_ms / 1e3, np.full(len(latencies_ms), statuses, np.uint8)
    )


LATENCIES_MS = np.random.default_rng(0).lognormal(1.0, 1.2, 5000)


def test_keys_are_the_values_of_an_hdr_histogram():
    filled = histogram(LATENCIES_MS)
    keys = locust_stats.hdr_ms(LATENCIES_MS)
    for percent in (1, 50, 90, 99, 99.9, 100):
        expected_ms = filled.get_value_at_percentile(percent) / 1e3
        assert percentile(keys, percent / 100) == pytest.approx(expected_ms, abs=1e-9)


def test_tables_show_the_percentiles_of_the_requests():
    stats = locust.stats.RequestStats()
    locust_stats.feed(stats, "queue", record(LATENCIES_MS), {})
    row = stats.get("queue", "infer").to_dict()
    for share in (0.9, 0.99, 0.999):
        exact_ms = percentile(LATENCIES_MS, share)
        assert row[f"response_time_percentile_{share}"] == pytest.approx(exact_ms, rel=1e-3)
    assert row["median_response_time"] == pytest.approx(percentile(LATENCIES_MS, 0.5), abs=2e-3)
    assert row["min_response_time"] == pytest.approx(LATENCIES_MS.min(), abs=2e-3)
    assert row["max_response_time"] == pytest.approx(LATENCIES_MS.max(), abs=2e-3)
    assert row["num_requests"] == stats.total.num_requests == 5000


def test_what_four_workers_report_is_what_all_requests_together_say():
    pooled, master = locust.stats.RequestStats(), locust.stats.RequestStats()
    locust_stats.feed(pooled, "queue", record(LATENCIES_MS), {})
    for part in np.array_split(LATENCIES_MS, 4):
        worker = locust.stats.RequestStats(use_response_times_cache=False)
        locust_stats.feed(worker, "queue", record(part), {})
        wire = msgpack.loads(msgpack.dumps(worker.serialize_stats()), strict_map_key=False)
        for entry in wire:
            master.get("queue", "infer").extend(locust.stats.StatsEntry.unserialize(entry, master))
    merged, together = master.get("queue", "infer"), pooled.get("queue", "infer")
    assert merged.response_times == together.response_times
    for share in (0.5, 0.9, 0.99, 0.999, 1.0):
        assert merged.get_response_time_percentile(share) == together.get_response_time_percentile(share)


def test_the_terminal_shows_more_than_whole_milliseconds():
    stats = locust.stats.RequestStats()
    locust_stats.feed(stats, "queue", record(LATENCIES_MS), {})
    median = f"{stats.total.median_response_time:.2f}"
    heading, rule, row, *_ = locust.stats.get_stats_summary(stats, False)
    assert median in row
    assert len(row) == len(rule)
    _, heading, rule, row, *_ = locust.stats.get_percentile_stats_summary(stats)
    assert median in row
    assert len(row) == len(heading)


def test_streams_have_rows_for_their_first_token_and_the_time_between_tokens():
    """Three answers, of which the second failed after its first part and the third before it."""
    due_s, came_s = BEGAN_S + np.arange(3.0), np.array([0.1, 0.4, np.nan])
    streams = Record(
        due_s, due_s, due_s + np.array([2.1, 1.5, 0.2]), np.array([0, 14, 14], np.uint8),
        first_s=due_s + came_s, gap_s=np.array([0.5, np.nan, np.nan]), parts=np.array([5, 1, 0], np.uint32),
    )  # fmt: skip
    stats = locust.stats.RequestStats()
    locust_stats.feed_mix(stats, ["writer"], streams, {"14": "full"}, {"writer"})
    rows = {method: entry for (_, method), entry in stats.entries.items()}
    counted = {method: (entry.num_requests, entry.num_failures) for method, entry in rows.items()}
    assert counted == {"stream": (3, 2), "ttft": (2, 0), "itl": (1, 0)}
    assert (stats.total.num_requests, stats.total.num_failures) == (3, 2)
    assert rows["ttft"].max_response_time == pytest.approx(400, rel=1e-3)
    assert rows["itl"].max_response_time == pytest.approx(500, rel=1e-3)
    assert {error.method for error in stats.errors.values()} == {"stream"}


def test_failures_are_counted_with_their_reason():
    stats = locust.stats.RequestStats()
    locust_stats.feed(stats, "queue", record(LATENCIES_MS[:30], statuses=14), {"14": "Exceeds maximum queue size"})
    assert stats.total.num_failures == 30
    (error,) = stats.errors.values()
    assert error.error == "UNAVAILABLE: Exceeds maximum queue size"
    assert error.occurrences == 30


def test_closed_loop_users_get_the_same_resolution():
    assert locust.stats.bucket_response_time(1.2344) == 1.234
    assert locust.stats.bucket_response_time(147.0) == pytest.approx(147.0, rel=1e-3)
