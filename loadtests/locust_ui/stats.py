"""Our latencies in Locust's statistics, to the microsecond.

Locust keeps a response time as a key of a dictionary, rounded to whole milliseconds (below 100 ms) by a function that
it lets one replace; the master adds up the dictionaries of its workers, and every percentile and chart comes from them.
So the keys are given the resolution of an HDR histogram instead: exact to 1 us below 2 ms, to 0.1 % above. Adding such
dictionaries up loses nothing, so the master's percentiles are those of all requests together.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from typing import Any

import locust.stats
import numpy as np

from loadtests.judge.judge import describe_status
from loadtests.records.record import HIGHEST_US, LOWEST_US, OK, Floats, Record

METHOD, STREAM = "infer", "stream"
"""Types of the rows."""
_EXACT_BITS = 11  # HDR's three significant digits: 2048 values per power of two
_DECIMALS = 3


def install() -> None:
    """Replaces Locust's rounding and its percentile rule, for the whole process."""
    locust.stats.bucket_response_time = lambda latency_ms: float(hdr_ms(np.asarray([latency_ms]))[0])
    locust.stats.calculate_response_time_percentile = percentile
    locust.stats.proper_round = lambda value, digits=_DECIMALS: round(float(value), max(digits, _DECIMALS))
    locust.stats.StatsEntry.to_string = _row
    locust.stats.StatsEntry.percentile = _percentile_row
    locust.stats.PERCENTILES_TO_STATISTICS = [0.9, 0.99, 0.999]  # it has a median anyway
    locust.stats.PERCENTILES_TO_CHART = [0.5, 0.9, 0.99]


def hdr_ms(latencies_ms: Floats) -> Floats:
    """Each latency as the highest value of its bucket in `record.histogram`."""
    us = np.clip(np.rint(latencies_ms * 1e3), LOWEST_US, HIGHEST_US).astype(np.int64)
    bits = np.frexp(us.astype(np.float64))[1]
    width = np.left_shift(1, np.maximum(bits - _EXACT_BITS, 0))
    highest: Floats = (us // width * width + width - 1) / 1e3
    return highest


def percentile(response_times: Mapping[float, int], requests: int, share: float) -> float:
    """The nearest-rank percentile of a {latency in ms: count} dictionary; 0 where there is nothing."""
    rank = max(int(np.ceil(share * requests - 1e-9)), 1)
    counted = 0
    for latency_ms in sorted(response_times):
        counted += response_times[latency_ms]
        if counted >= rank:
            return latency_ms
    return 0


def feed_mix(
    stats: Any, models: Sequence[str], record: Record, messages: Mapping[str, str], streaming: Container[str] = ()
) -> None:
    """`feed` for each model of a mix: each has a row of its own. `streaming` are those that answer in parts."""
    for number, model in enumerate(models):
        feed(stats, model, record.where(record.model == number), messages, streams=model in streaming)


def feed(stats: Any, model: str, record: Record, messages: Mapping[str, str], *, streams: bool = False) -> None:
    """Adds requests to a `locust.stats.RequestStats`, one call for thousands of them. Times are unix seconds.

    The row of a model that streams has the type `stream`. Two more rows, `ttft` and `itl`, have the other times of the
    same answers; they are not in the sum of all rows.
    """
    if not len(record):
        return
    method = STREAM if streams else METHOD
    answered = np.isfinite(record.done_s)
    latencies_ms = (record.done_s - record.intended_s)[answered] * 1e3
    failed = ~record.ok
    entry = _entry(stats, model, method, np.where(answered, record.done_s, record.intended_s), latencies_ms)
    entry.num_requests = len(record)
    entry.num_none_requests = int((~answered).sum())
    entry.num_failures = int(failed.sum())
    entry.num_fail_per_sec = Counter(
        np.where(answered, record.done_s, record.intended_s)[failed].astype(np.int64).tolist()
    )
    entry.last_request_timestamp = float(record.done_s[answered].max()) if answered.any() else time.time()
    stats.entries[(model, method)].extend(entry)
    stats.total.extend(entry)
    if streams:
        begun, ended = record.where(record.parts > 0), record.where(record.ok & (record.parts > 1))
        for kind, shown, at_s, values_ms in (
            ("ttft", begun, begun.first_s, (begun.first_s - begun.intended_s) * 1e3),
            ("itl", ended, ended.done_s, ended.itl_ms()),
        ):
            if len(shown):
                stats.entries[(model, kind)].extend(_entry(stats, model, kind, at_s, values_ms))
    for status, count in Counter(record.status[record.status != OK].tolist()).items():
        _count_error(stats, model, method, describe_status(status, messages), count)


def _entry(stats: Any, model: str, method: str, at_s: Floats, values_ms: Floats) -> Any:
    """A row of requests that ended at these times."""
    entry = locust.stats.StatsEntry(stats, model, method)
    entry.num_requests = len(at_s)
    entry.start_time = min(stats.total.start_time, time.time())
    entry.last_request_timestamp = float(at_s.max())
    entry.num_reqs_per_sec = Counter(at_s.astype(np.int64).tolist())
    if len(values_ms):
        entry.total_response_time = float(values_ms.sum())
        entry.min_response_time = round(float(values_ms.min()), _DECIMALS)
        entry.max_response_time = round(float(values_ms.max()), _DECIMALS)
        entry.response_times = Counter(hdr_ms(values_ms).tolist())
    return entry


def _row(entry: Any, current: bool = True) -> str:
    """A line of the table in the terminal, where Locust prints whole milliseconds."""
    rate = (entry.current_rps, entry.current_fail_per_sec) if current else (entry.total_rps, entry.total_fail_per_sec)
    failures = f"{entry.num_failures}({entry.fail_ratio * 100:.2f}%)"
    times_ms = (entry.avg_response_time, entry.min_response_time or 0, entry.max_response_time)
    return (
        f"{_head(entry, 4 - locust.stats.STATS_TYPE_WIDTH)} {entry.num_requests:7d} {failures:>12} |"
        + " ".join(f"{value:7.2f}" for value in times_ms)
        + f"{entry.median_response_time:7.2f} | {rate[0]:7.2f} {rate[1]:11.2f}"
    )


def _percentile_row(entry: Any) -> str:
    first, *others = (
        f"{entry.get_response_time_percentile(share):.2f}" for share in locust.stats.PERCENTILES_TO_REPORT
    )
    return " ".join([_head(entry), f"{first:>8}", *(f"{value:>6}" for value in others), f"{entry.num_requests:6d}"])


def _head(entry: Any, more: int = 0) -> str:
    width = locust.stats.STATS_NAME_WIDTH + more
    return f"{entry.method or '':<{locust.stats.STATS_TYPE_WIDTH}} {entry.name:<{width}}"


def _count_error(stats: Any, model: str, method: str, error: str, count: int) -> None:
    key = locust.stats.StatsError.create_key(method, model, error)
    known = stats.errors.setdefault(key, locust.stats.StatsError(method, model, error))
    known.occurred()
    known.occurrences += count - 1
