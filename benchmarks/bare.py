"""What the cores give without a server: ONNX Runtime sessions in a loop, one process and one thread per core.

`python -m benchmarks.bare MODEL.onnx BATCH SECONDS` prints samples/s of one process; `measure` runs two at a time.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

PROCESSES = 2


def measure(model: Path, *, batch: int, seconds: float) -> float:
    """Samples per second of PROCESSES loops that run at the same time."""
    command = [sys.executable, "-m", "benchmarks.bare", str(model), str(batch), str(seconds)]
    loops = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(PROCESSES)
    ]
    for loop in loops:
        assert loop.stdout is not None
        loop.stdout.readline()  # warm
    for loop in loops:
        assert loop.stdin is not None
        loop.stdin.write("go\n")
        loop.stdin.flush()
    return sum(float(json.loads(loop.communicate()[0])) for loop in loops)


def _loop(model: str, batch: int, seconds: float) -> float:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    (image,) = session.get_inputs()
    pixels = np.random.default_rng(0).integers(0, 256, (batch, *image.shape[1:]), dtype=np.uint8)
    for _ in range(5):
        session.run(None, {image.name: pixels})
    print("warm", flush=True)
    sys.stdin.readline()
    count, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds:
        session.run(None, {image.name: pixels})
        count += batch
    return count / elapsed


if __name__ == "__main__":
    print(json.dumps(_loop(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))))
