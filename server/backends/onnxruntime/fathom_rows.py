"""How many rows of a batch one run computes, measured where config.pbtxt says `rows_per_run: "auto"`.

More rows share what a run costs besides the arithmetic, fewer keep their activations in the CPU's caches: which wins
depends on the model and on the CPU.
"""

from __future__ import annotations

import time

import numpy as np
import triton_python_backend_utils as pb_utils

AUTO = "auto"
MOST_ROWS = 16
BUDGET_S = 0.25
CLOSE = 1.1  # costs so near to the least are equal, as noise is: then the most rows, which read the weights once


def measured_rows(session, config, clock):
    """How many rows a run should compute: the most of those that cost least by the `clock`, in seconds.

    Inputs are zeros of the declared sizes. Raises TritonModelException where a size is open or zeros cannot be run.
    """
    name = config["name"]
    feeds = {tensor["name"]: _row(tensor) for tensor in config["input"]}

    def run(rows):
        session.run(None, {name: np.repeat(row, rows, axis=0) for name, row in feeds.items()})

    try:
        costs = _costs(run, min(config["max_batch_size"], MOST_ROWS), clock)
    except Exception as error:
        raise pb_utils.TritonModelException(
            f"parameters rows_per_run of '{name}' is 'auto', but a run of zeros fails: give a number instead ({error})"
        ) from error
    least = min(costs.values())
    chosen = max(rows for rows, cost in costs.items() if cost <= least * CLOSE)
    told = ", ".join(f"{rows}: {cost * 1e3:.3g}" for rows, cost in costs.items())
    pb_utils.Logger.log_info(f"'{name}' computes {chosen} rows a run (ms a row by rows a run: {told})")
    return chosen


def _costs(run, most, clock):
    """Least seconds a row by rows a run, for powers of two; the large ones are left out where there is no time."""
    sizes = [1 << power for power in range(most.bit_length())]
    costs, end_s = {}, time.perf_counter() + (BUDGET_S if len(sizes) > 1 else 0)
    while True:
        for rows in sizes:
            for _ in range(1 if rows in costs else 2):  # the first run of a size takes memory, too
                start_s = clock()
                run(rows)
                costs[rows] = min((clock() - start_s) / rows, costs.get(rows, float("inf")))
            if time.perf_counter() > end_s:
                return costs


def _row(tensor):
    shape = tensor.get("reshape", {}).get("shape", tensor["dims"])
    sizes = [int(size) for size in shape]
    if min(sizes, default=0) < 0:
        raise pb_utils.TritonModelException(
            f"parameters rows_per_run is 'auto', but input '{tensor['name']}' has dims {sizes}: give a number of rows, "
            "since what is fastest depends on its size"
        )
    dtype = pb_utils.triton_string_to_numpy(tensor["data_type"])
    return np.full([1, *sizes], "", dtype=object) if dtype == np.object_ else np.zeros([1, *sizes], dtype=dtype)
