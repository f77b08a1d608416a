"""A closed loop at saturation: N requests in flight over grpc.aio, pre-built; run as its own process.

`python -m fathom.bench.closed_loop URL IN_FLIGHT SECONDS < request` prints requests/s and CPU microseconds per request.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time

import uvloop

from clients.client import CHANNEL_OPTIONS, INFER_METHOD


def drive(url: str, request: bytes, *, in_flight: int, seconds: float) -> dict[str, float]:
    """Run the loop in a process of its own; returns `rate_per_s` and `cpu_us` per request."""
    command = [sys.executable, "-m", "fathom.bench.closed_loop", url, str(in_flight), str(seconds)]
    done = subprocess.run(command, input=request, capture_output=True, check=True)
    result: dict[str, float] = json.loads(done.stdout)
    return result


async def _loop(url: str, request: bytes, in_flight: int, seconds: float) -> dict[str, float]:
    import grpc.aio

    async with grpc.aio.insecure_channel(url, options=CHANNEL_OPTIONS) as channel:
        infer = channel.unary_unary(INFER_METHOD)
        await asyncio.gather(*(infer(request) for _ in range(in_flight)))
        count = 0
        start, cpu = time.perf_counter(), time.process_time()
        end = start + seconds

        async def keep_asking() -> None:
            nonlocal count
            while time.perf_counter() < end:
                await infer(request)
                count += 1

        await asyncio.gather(*(keep_asking() for _ in range(in_flight)))
        elapsed = time.perf_counter() - start
        return {"rate_per_s": count / elapsed, "cpu_us": (time.process_time() - cpu) / count * 1e6}


if __name__ == "__main__":
    result = uvloop.run(_loop(sys.argv[1], sys.stdin.buffer.read(), int(sys.argv[2]), float(sys.argv[3])))
    print(json.dumps(result))
