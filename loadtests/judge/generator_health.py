"""Each generator's lags and CPU in a probe, and whether they make the probe invalid."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from loadtests.records.point import GeneratorStats
from loadtests.records.record import Outcome, Record, percentile
from loadtests.slo import Slo, format_ms

_LAG_SHARE = 0.1
"""A request sent later than this part of the tightest limit is no measure of the server."""
_INTERVALS = 10
"""A pause of the generator is in one of the times between the tokens of an answer. Their mean, the inter-token latency,
grows by it divided by their number, which is at least so many."""
LATE_MS = 1.0
"""Sent later than that is reported as late: a multiple of what a free core takes to send."""
_FEWEST_LATE = 4
"""In a probe of a few dozen requests the p99 is the largest value, and a single hiccup makes nothing invalid."""
REMEDY = "use more workers (--workers), run them on free cores or another machine, or lower the rate"


def allowed_lag_ms(slos: Sequence[Slo]) -> float:
    """How late a request may be sent: a tenth of the tightest limit, by what a late send adds to each measure."""
    limits_ms = (slo.limit_ms * (_INTERVALS if slo.measure == "itl" else 1) for slo in slos if slo.limit_ms is not None)
    return _LAG_SHARE * min(limits_ms)


def generator_stats(record: Record, outcome: Outcome) -> tuple[GeneratorStats, ...]:
    """One entry per generator of the probe."""
    used = outcome.workers or ((outcome.cpu_s, outcome.wall_s),)
    made = []
    for number, (cpu_s, wall_s) in enumerate(used):
        lags_ms = record.where(record.worker == number).send_lags_ms()
        lags_ms = lags_ms if len(lags_ms) else np.zeros(1)
        made.append(
            GeneratorStats(
                name=str(number + 1),
                requests=int((record.attempted & (record.worker == number)).sum()),
                send_lag_p50_ms=percentile(lags_ms, 0.5),
                send_lag_p99_ms=percentile(lags_ms, 0.99),
                send_lag_max_ms=float(lags_ms.max()),
                late_share=float((lags_ms > LATE_MS).mean()),
                cpu_share=cpu_s / wall_s if wall_s > 0 else 0.0,
            )
        )
    return tuple(made)


def invalid_reason(record: Record, outcome: Outcome, slos: Sequence[Slo]) -> str:
    """Why the generators make the probe invalid, and what to do; empty when they do not. The worst one decides."""
    if outcome.lost:
        return f"{outcome.lost}; the probe does not count"
    allowed_ms = allowed_lag_ms(slos)
    found = generator_stats(record, outcome)
    for number, stats in enumerate(found):
        who = f"generator {stats.name} of {len(found)}" if len(found) > 1 else "the generator"
        if stats.saturated:
            return f"{who} used {stats.cpu_share * 100:.0f} % of a core, so its own latency was measured too; {REMEDY}"
        lags_ms = record.where(record.worker == number).send_lags_ms()
        if stats.send_lag_p99_ms > allowed_ms and int((lags_ms > allowed_ms).sum()) >= _FEWEST_LATE:
            return (
                f"{who} sent requests late (p99 {stats.send_lag_p99_ms:.2f} ms; the SLOs allow "
                f"{format_ms(allowed_ms)}); {REMEDY}"
            )
    return ""
