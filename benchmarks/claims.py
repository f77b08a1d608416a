"""What the benchmarks show: a title, what is compared, and the command that measures it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Claim:
    """One section of docs/benchmarks.md."""

    title: str
    about: str
    command: str


CLAIMS = {
    "served": Claim(
        "Served against bare ONNX Runtime",
        "Images per second of the served mobilenet_v2, divided by those of two bare ONNX Runtime processes with one "
        "thread each at their best batch size. Served means a closed loop over gRPC on the same two cores, so the CPU "
        "of the client is part of the figure. Bare is measured before and after each served figure.\n\n"
        "A request adds about 0.6 ms of CPU in Triton and the client to the 2 ms that the model needs for an image of "
        "128x128. That is why one small image a request stays below 0.9, and several do better.",
        "python -m benchmarks served",
    ),
    "generator": Claim(
        "Cost of the load generator",
        "Requests per CPU-second of the generator, divided by those of a loop over tritonclient's or grpc's asyncio "
        "client. Send lag is how late a request leaves after its scheduled time.",
        "python -m benchmarks generator",
    ),
    "rates": Claim(
        "Highest rate that is sent on time",
        "Three ways to load rain_forecast behind Triton's response cache, so that the model is not the limit: the "
        "generator with Poisson arrivals, a tritonclient loop with constant arrivals, and the documented Locust gRPC "
        "user (50 users). A rate of 0 means that even the lowest tested rate, 100/s, was sent late.",
        "python -m benchmarks rates",
    ),
    "client": Claim(
        "The clients against tritonclient",
        "CPU time per call of the Python clients, divided by that of tritonclient for the same call. The response "
        "cache of the server answers, so the model costs nothing.",
        "python -m benchmarks client",
    ),
    "bulk": Claim(
        "`map` against a hand-tuned loop",
        "Items per second of `map` with 64 requests in flight, divided by those of 64 asyncio tasks over grpc.aio that "
        "use the same codec and ignore the order.",
        "python -m benchmarks bulk",
    ),
    "shared_memory": Claim(
        "Shared memory against plain gRPC",
        "CPU time of client and server per call with shared memory, divided by that without. Tensors of less than 128 "
        "kB travel in messages, because shared memory costs more there.",
        "python -m benchmarks shared_memory",
    ),
    "idle": Claim(
        "Idle server",
        "Memory of the embedded server's process tree, and seconds until it is ready, with all bundled models.",
        "python -m benchmarks idle",
    ),
    "generation": Claim(
        "Streamed text generation",
        "recipe_writer with FP32 weights and a context of 1,024 tokens. Bare means the same decoder without a server.",
        "python -m benchmarks generation",
    ),
    "server_faults": Claim(
        "Killed servers",
        "Two servers are killed with SIGKILL and restarted in turn, while 16 threads or 32 asyncio tasks send requests "
        "to both. The figures are printed by the test and entered by hand.",
        "pytest tests/clients/test_servers.py -m slow",
    ),
    "export_faults": Claim(
        "Killed exports",
        "An export of a trained model is killed with SIGKILL at random moments. After each kill the repository is "
        "checked; Triton loads it after every tenth. The figures are printed by the test and entered by hand.",
        "FATHOM_KILLS=50 pytest tests/export/test_exporter.py -m slow -k sigkill -s",
    ),
}
