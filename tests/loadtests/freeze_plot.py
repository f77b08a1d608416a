"""Draw docs/images/freeze.png: a server that stands still for 1 s every 10 s, asked by an open and by a closed loop.

python tests/loadtests/freeze_plot.py [FILE]      takes two minutes
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import grpc
import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
from queue_process import QueueProcess

from loadtests.generator.messages import Limits
from loadtests.generator.process import GeneratorProcess, GeneratorSettings
from loadtests.generator.transport import METHOD
from loadtests.records.record import percentile
from loadtests.report import page
from loadtests.report.svg import FAIL, MUTED, P99, make_picture
from loadtests.workload.schedule import payload_choices, poisson

RATE_PER_S, DURATION_S = 100.0, 50.0
FREEZE = ("--service-ms", "2", "--freeze-every-s", "10", "--freeze-s", "1")
DOTS = 1200


def open_loop() -> tuple[np.ndarray, np.ndarray]:
    """When each request was due (s) and its latency (ms) from then."""
    queue = QueueProcess(*FREEZE)
    try:
        schedule = poisson(RATE_PER_S, seed=1, duration_s=DURATION_S)
        with GeneratorProcess(GeneratorSettings(queue.address, [b""])) as worker:
            record, _ = worker.run_schedule(schedule, payload_choices(len(schedule), 1, seed=0), Limits(10_000))
        return record.intended_s, record.latencies_ms()
    finally:
        queue.stop()


def closed_loop() -> tuple[np.ndarray, np.ndarray]:
    """The same for a client that asks again when it was answered, at most at the same rate."""
    queue = QueueProcess(*FREEZE)
    sent_s, latencies_ms = [], []
    try:
        with grpc.insecure_channel(queue.address) as channel:
            call = channel.unary_unary(METHOD)
            call(b"")
            start_s = time.monotonic()
            while (begin_s := time.monotonic()) < start_s + DURATION_S:
                call(b"")
                end_s = time.monotonic()
                sent_s.append(begin_s - start_s)
                latencies_ms.append((end_s - begin_s) * 1e3)
                time.sleep(max(1 / RATE_PER_S - (end_s - begin_s), 0))
    finally:
        queue.stop()
    return np.asarray(sent_s), np.asarray(latencies_ms)


def main() -> None:
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[2] / "docs" / "images" / "freeze.png"
    runs = {"open loop": (P99, *open_loop()), "closed loop": (FAIL, *closed_loop())}

    def draw(figure: Any, narrow: bool) -> None:
        for axes, (name, (colour, at_s, latency_ms)) in zip(
            figure.subplots(2, 1, sharex=True, sharey=True), runs.items(), strict=True
        ):
            keep = (latency_ms > 20) | (np.arange(len(at_s)) % max(len(at_s) // DOTS, 1) == 0)
            axes.plot(at_s[keep], latency_ms[keep], ".", color=colour, markersize=3)
            p99_ms = percentile(latency_ms, 0.99)
            axes.axhline(p99_ms, color=colour, linewidth=1.2, dashes=(5, 3))
            axes.annotate(
                f"{name}: p99 {p99_ms:.0f} ms, {np.mean(latency_ms > 50) * 100:.1f} % of {len(at_s):,} over 50 ms",
                (0, 1), (6, -4), xycoords="axes fraction", textcoords="offset points", va="top", fontsize=10,
                color=colour,
            )  # fmt: skip
            axes.set_ylabel("latency, ms", labelpad=9, color=MUTED)
            axes.set_ylim(0, 1350)
        figure.axes[-1].set_xlabel("s", labelpad=6)

    picture = make_picture("A server that freezes for 1 s every 10 s", "freeze", draw, 4.6, 4.6)
    path.write_bytes(picture.png(page.colours()))
    for name, (_, _, latency_ms) in runs.items():
        sys.stdout.write(
            f"{name}: p50 {percentile(latency_ms, 0.5):.1f} ms, p99 {percentile(latency_ms, 0.99):.1f} ms\n"
        )


if __name__ == "__main__":
    main()
