"""The loop that tritonclient's documentation leads to: `tritonclient.grpc.aio`, N requests in flight; its own process.

`python -m fathom.bench.tritonclient_loop URL IN_FLIGHT SECONDS` asks `rain_forecast`; prints as `closed_loop` does.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time

import numpy as np
import uvloop

INPUTS = ("temperature_c", "humidity_pct", "pressure_hpa", "wind_speed_m_s", "cloud_cover_pct")


def drive(url: str, *, in_flight: int, seconds: float) -> dict[str, float]:
    """Run the loop in a process of its own; returns `rate_per_s` and `cpu_us` per request."""
    command = [sys.executable, "-m", "fathom.bench.tritonclient_loop", url, str(in_flight), str(seconds)]
    done = subprocess.run(command, capture_output=True, check=True)
    result: dict[str, float] = json.loads(done.stdout)
    return result


async def _loop(url: str, in_flight: int, seconds: float) -> dict[str, float]:
    import tritonclient.grpc.aio as triton

    async with triton.InferenceServerClient(url) as client:
        inputs = []
        for name in INPUTS:
            tensor = triton.InferInput(name, [1, 1], "FP32")
            tensor.set_data_from_numpy(np.ones((1, 1), np.float32))
            inputs.append(tensor)
        await asyncio.gather(*(client.infer("rain_forecast", inputs) for _ in range(in_flight)))
        count = 0
        start, cpu = time.perf_counter(), time.process_time()
        end = start + seconds

        async def keep_asking() -> None:
            nonlocal count
            while time.perf_counter() < end:
                await client.infer("rain_forecast", inputs)
                count += 1

        await asyncio.gather(*(keep_asking() for _ in range(in_flight)))
        elapsed = time.perf_counter() - start
        return {"rate_per_s": count / elapsed, "cpu_us": (time.process_time() - cpu) / count * 1e6}


if __name__ == "__main__":
    print(json.dumps(uvloop.run(_loop(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))))
