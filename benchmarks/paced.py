"""Load at a rate from the loops that one would write without the generator, in a process of its own.

`python -m benchmarks.paced KIND URL RATE SECONDS < request` prints the rate it reached, the p99 of how late it sent,
and its CPU microseconds a request. `tritonclient` fires a metronome's schedule with tritonclient's aio client; `locust`
is the gRPC user of Locust's documentation, 50 of them, each pacing itself. A rate of 0 means 16 requests in flight
without a pause.
"""

# isort: off
import sys

if len(sys.argv) > 1 and sys.argv[1] == "locust":
    import locust  # first: it patches the process for gevent

# isort: on
import asyncio
import json
import subprocess
import time
from typing import Any

import numpy as np

IN_FLIGHT, USERS = 16, 50
_WARM_S = 0.5


class Meter:
    """Requests, lag and CPU from the end of warming up to the end of the time."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.begin_s = self.end_s = float("inf")
        self._cpu_s: float | None = None
        self._count = 0
        self._lags_s: list[float] = []

    def start(self) -> None:
        """When everything is set up; what happens in the first moment is not counted."""
        self.begin_s = time.perf_counter() + _WARM_S
        self.end_s = self.begin_s + self._seconds

    def answered(self, lag_s: float) -> bool:
        """Counts an answer to a request that left so late; false when the time is over."""
        now_s = time.perf_counter()
        if now_s >= self.begin_s:
            if self._cpu_s is None:
                self._cpu_s = time.process_time()
            self._count += 1
            self._lags_s.append(lag_s)
        return now_s < self.end_s

    def result(self) -> dict[str, float]:
        if self._cpu_s is None:
            return {"rate_per_s": 0.0, "lag_p99_ms": float("inf"), "cpu_us": float("inf")}
        cpu_s, elapsed_s = time.process_time() - self._cpu_s, time.perf_counter() - self.begin_s
        lag_ms = float(np.quantile(self._lags_s, 0.99)) * 1e3
        return {"rate_per_s": self._count / elapsed_s, "lag_p99_ms": lag_ms, "cpu_us": cpu_s / self._count * 1e6}


def drive(kind: str, url: str, request: bytes, *, rate_per_s: float, seconds: float) -> dict[str, float]:
    """Run the loop in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.paced", kind, url, str(rate_per_s), str(seconds)]
    done = subprocess.run(command, input=request, capture_output=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {done.stderr.decode().strip()}")
    result: dict[str, float] = json.loads(done.stdout)
    return result


async def over_tritonclient(url: str, request: bytes, rate_per_s: float, meter: Meter) -> None:
    """tritonclient's aio client, its inputs made once."""
    import tritonclient.grpc.aio as triton

    from benchmarks.closed_loop import for_tritonclient

    model, inputs = for_tritonclient(request)
    async with triton.InferenceServerClient(url) as client:

        async def ask(intended_s: float) -> bool:
            lag_s = time.perf_counter() - intended_s
            await client.infer(model, inputs)
            return meter.answered(lag_s)

        async def keep_asking() -> None:
            while await ask(time.perf_counter()):
                pass

        await client.infer(model, inputs)
        meter.start()
        if not rate_per_s:
            await asyncio.gather(*(keep_asking() for _ in range(IN_FLIGHT)))
            return
        tasks: set[asyncio.Task[bool]] = set()
        intended_s = time.perf_counter()
        while intended_s < meter.end_s:
            intended_s += 1 / rate_per_s
            await asyncio.sleep(max(intended_s - time.perf_counter(), 0))
            tasks.add(task := asyncio.ensure_future(ask(intended_s)))
            task.add_done_callback(tasks.discard)
        await asyncio.gather(*tasks)


def over_locust(url: str, request: bytes, rate_per_s: float, meter: Meter) -> None:
    """The documented way: a stub behind an interceptor that reports to Locust, under gevent."""
    import gevent
    import grpc
    import grpc.experimental.gevent
    from locust.env import Environment
    from tritonclient.grpc import service_pb2, service_pb2_grpc

    grpc.experimental.gevent.init_gevent()
    message = service_pb2.ModelInferRequest.FromString(request)
    users = USERS if rate_per_s else IN_FLIGHT
    pause_s = users / rate_per_s if rate_per_s else 0.0

    class Reporting(grpc.UnaryUnaryClientInterceptor):  # type: ignore[misc]
        def __init__(self, environment: Any) -> None:
            self.environment = environment

        def intercept_unary_unary(self, continuation: Any, details: Any, asked: Any) -> Any:
            began_s = time.perf_counter()
            response = continuation(details, asked)
            self.environment.events.request.fire(
                request_type="grpc",
                name=details.method,
                response_time=(time.perf_counter() - began_s) * 1e3,
                response_length=response.result().ByteSize(),
                response=response,
                context=None,
                exception=None,
            )
            return response

    class GrpcUser(locust.User):  # type: ignore[misc]
        host = url

        def __init__(self, environment: Any) -> None:
            super().__init__(environment)
            channel = grpc.intercept_channel(grpc.insecure_channel(url), Reporting(environment))
            self.stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            self.intended_s = time.perf_counter() + np.random.default_rng().uniform(0, pause_s)

        def wait_time(self) -> float:
            return max(self.intended_s - time.perf_counter(), 0.0)

        def ask(self) -> None:
            lag_s = max(time.perf_counter() - self.intended_s, 0.0)
            self.stub.ModelInfer(message)
            meter.answered(lag_s)
            self.intended_s += pause_s

        tasks = [ask]  # noqa: RUF012  (as Locust has it)

    environment = Environment(user_classes=[GrpcUser], events=locust.events)
    runner: Any = environment.create_local_runner()
    runner.start(users, spawn_rate=users)
    while runner.user_count < users:
        gevent.sleep(0.01)
    gevent.sleep(pause_s)  # by then each user has sent its first request
    meter.start()
    gevent.sleep(meter.end_s - time.perf_counter())
    sys.stdout.write(json.dumps(meter.result()))
    sys.stdout.flush()
    runner.quit()


def main() -> None:
    kind, url, rate_per_s, seconds = sys.argv[1:]
    request = sys.stdin.buffer.read()
    meter = Meter(float(seconds))
    if kind == "locust":
        over_locust(url, request, float(rate_per_s), meter)
    else:
        import uvloop

        uvloop.run(over_tritonclient(url, request, float(rate_per_s), meter))
        sys.stdout.write(json.dumps(meter.result()))


if __name__ == "__main__":
    main()
