"""recipe_writer's streams: what a batch gains, what a long prompt costs the others, and what serving costs a token.

Each repetition measures all three, one after the other, so that both sides of a ratio see the same machine. The
client's share of the cores is inside every served figure. The bare loop is the model's own decoder in this process.
"""

from __future__ import annotations

import asyncio
import importlib.util
import itertools
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.row import Row, from_repetitions
from clients import AsyncClient
from export import recipes
from export.exporter import export_model
from server import TritonServer

STREAMS = 8
DISHES = ("bread", "soup", "curry", "cake", "salad", "pie", "stew", "pasta")
PROMPTS = tuple(f"Write a recipe for {dish}." for dish in DISHES)
LONG_PROMPT = "Shorten this recipe: " + "stir the flour into the warm milk and wait " * 50  # about 500 tokens
TOKENS = 32


def measure(repository: Path, *, repetitions: int = 5) -> list[Row]:
    """A row per claim."""
    export_model(recipes.find("smollm2"), repository)
    decoder = _bare_decoder(repository)
    with tempfile.TemporaryDirectory() as folder:
        for name in ("recipe_writer", "smollm2"):
            shutil.copytree(repository / name, Path(folder, name))
        explicit = ("--model-control-mode=explicit", "--load-model=recipe_writer")
        with TritonServer(folder, stop_timeout_s=0, extra=explicit) as server:
            found = asyncio.run(_measure(server.grpc_url, decoder, repetitions))
    gain, stall, overhead, alone = (list(values) for values in zip(*found, strict=True))
    return [
        from_repetitions("tokens/s of 8 streams / one at a time", gain, unit="x", wanted=">= 3"),
        from_repetitions("p99 gap while a 500-token prompt arrives / without", stall, unit="x", wanted="<= 3"),
        from_repetitions("served / bare time a token, 8 streams", overhead, unit="x", wanted="<= 1.1"),
        from_repetitions("served / bare time a token, 1 stream", alone, unit="x", wanted="<= 1.1"),
    ]


async def _measure(url: str, decoder: Any, repetitions: int) -> list[tuple[float, float, float, float]]:
    found = []
    async with AsyncClient(url) as client:
        model = await client.model("recipe_writer")
        await _together(model, PROMPTS)  # warm-up
        for _ in range(repetitions):
            before = {rows: _bare_step_s(decoder, rows) for rows in (1, STREAMS)}
            served = {rows: _step_s(await _together(model, PROMPTS[:rows])) for rows in (1, STREAMS)}
            after = {rows: _bare_step_s(decoder, rows) for rows in (1, STREAMS)}
            ratios = {rows: served[rows] / ((before[rows] + after[rows]) / 2) for rows in served}
            gain = await _one_by_one_s(model) / await _at_once_s(model)
            found.append((gain, await _stall(model), ratios[STREAMS], ratios[1]))
    return found


async def _stream(model: Any, prompt: str, tokens: int) -> list[float]:
    """When each part came."""
    inputs = {"prompt": [prompt], "max_tokens": [tokens]}
    return [time.perf_counter() async for _ in model.stream(inputs, timeout_s=600)]


async def _together(model: Any, prompts: tuple[str, ...], tokens: int = TOKENS) -> list[list[float]]:
    return list(await asyncio.gather(*(_stream(model, prompt, tokens) for prompt in prompts)))


async def _one_by_one_s(model: Any) -> float:
    start_s = time.perf_counter()
    for prompt in PROMPTS:
        await _stream(model, prompt, TOKENS)
    return time.perf_counter() - start_s


async def _at_once_s(model: Any) -> float:
    start_s = time.perf_counter()
    await _together(model, PROMPTS)
    return time.perf_counter() - start_s


def _step_s(streams: list[list[float]]) -> float:
    """Mean time of a step in which all of them ran."""
    first, last = max(parts[0] for parts in streams), min(parts[-1] for parts in streams)
    steps = [sum(first <= at <= last for at in parts) - 1 for parts in streams]
    return (last - first) / float(np.mean(steps))


async def _stall(model: Any) -> float:
    """p99 gap of running streams from the moment a long prompt is sent until its first token, and before that."""
    running = asyncio.ensure_future(_together(model, PROMPTS[: STREAMS - 1], 100))
    await _stream(model, PROMPTS[-1], 40)
    sent_s = time.perf_counter()
    (first_s,) = await _stream(model, LONG_PROMPT, 1)
    gaps: dict[bool, list[float]] = {True: [], False: []}
    for parts in await running:
        for earlier, later in itertools.pairwise(parts):
            if later <= sent_s or sent_s <= earlier <= first_s:
                gaps[earlier >= sent_s].append(later - earlier)
    return float(np.percentile(gaps[True], 99) / np.percentile(gaps[False], 99))


def _bare_decoder(repository: Path) -> Any:
    """recipe_writer's own, as config.pbtxt has it, without a server."""
    spec = importlib.util.spec_from_file_location("bare_decoder", repository / "recipe_writer" / "1" / "decoder.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    graph = repository / "smollm2" / "1" / "model.onnx"
    return module.Decoder(graph, slots=STREAMS, context=1024, threads=0, prefix=[])


def _bare_step_s(decoder: Any, rows: int, steps: int = 16) -> float:
    """Mean time of a step of so many rows, at the lengths that the served ones have."""
    tokens, lengths = [1] * rows, [40] * rows
    start_s = time.perf_counter()
    for step in range(steps):
        logits = decoder.step(tokens, [length + step for length in lengths])
        tokens = logits.argmax(axis=1).tolist()
    return (time.perf_counter() - start_s) / steps
