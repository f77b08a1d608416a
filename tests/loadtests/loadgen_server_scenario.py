"""MLPerf LoadGen's Server scenario against one KServe-v2 server, as a process that leaves LoadGen's logs in its folder.

It asks through gRPC's own Python channel, as tritonclient's `async_infer` does, and so shares no code with the
generator that it is put beside. Run by `support/loadgen_process.py`; prints how many answers were errors, which LoadGen
cannot know, and how busy the process was.
"""

from __future__ import annotations

import argparse
import functools
import json
import time
from pathlib import Path

import grpc
import mlperf_loadgen as loadgen

from loadtests.generator.clock import take_priority
from loadtests.generator.messages import read_payloads
from loadtests.generator.transport import METHOD

TIMEOUT_S = 60.0


def main() -> None:
    command = argparse.ArgumentParser(description=__doc__)
    command.add_argument("address")
    command.add_argument("payloads", type=Path)
    command.add_argument("--rate-per-s", type=float, required=True)
    command.add_argument("--limit-ms", type=float, required=True)
    command.add_argument("--percentile", type=float, required=True)
    command.add_argument("--duration-s", type=float, required=True)
    command.add_argument("--seed", type=int, required=True)
    arguments = command.parse_args()
    payloads = read_payloads(arguments.payloads)
    settings = loadgen.TestSettings()
    settings.scenario = loadgen.TestScenario.Server
    settings.mode = loadgen.TestMode.PerformanceOnly
    settings.server_target_qps = arguments.rate_per_s
    settings.server_target_latency_ns = round(arguments.limit_ms * 1e6)
    settings.server_target_latency_percentile = arguments.percentile
    settings.min_duration_ms = round(arguments.duration_s * 1e3)
    settings.min_query_count = 1
    settings.schedule_rng_seed = settings.sample_index_rng_seed = settings.qsl_rng_seed = arguments.seed
    failed: list[str] = []
    take_priority()  # as our generator does

    def answered(sample: int, call: grpc.Future) -> None:
        loadgen.QuerySamplesComplete([loadgen.QuerySampleResponse(sample, 0, 0)])
        if call.code() is not grpc.StatusCode.OK:
            failed.append(str(call.code()))

    with grpc.insecure_channel(arguments.address) as channel:
        infer = channel.unary_unary(METHOD)
        infer(payloads[0], timeout=TIMEOUT_S)  # the connection stands before the clock starts

        def issue(samples: list[loadgen.QuerySample]) -> None:
            for sample in samples:
                call = infer.future(payloads[sample.index], timeout=TIMEOUT_S)
                call.add_done_callback(functools.partial(answered, sample.id))

        system = loadgen.ConstructSUT(issue, lambda: None)
        library = loadgen.ConstructQSL(len(payloads), len(payloads), lambda _: None, lambda _: None)
        began_s, cpu_s = time.monotonic(), time.process_time()
        loadgen.StartTest(system, library, settings)
        cpu_share = (time.process_time() - cpu_s) / (time.monotonic() - began_s)
        loadgen.DestroyQSL(library)
        loadgen.DestroySUT(system)
    print(json.dumps({"failed": len(failed), "cpu_share": cpu_share}))


if __name__ == "__main__":
    main()
