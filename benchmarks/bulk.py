"""`model.map`, blocking and asyncio, against the loop that one would tune by hand over grpc.aio: items per second.

The hand-written loop keeps 64 requests in flight with one task each and does the same work per item (numpy in, numpy
out), but keeps no order. The server is a real Triton whose response cache answers in C++, on the same cores.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable
from pathlib import Path

import grpc.aio

from benchmarks.client import PAYLOADS, _identities
from benchmarks.row import Row, from_repetitions
from clients import AsyncClient, Client, codec
from clients.options import open_channel
from clients.servers import INFER_METHOD

IN_FLIGHT = 64
ITEMS = {"tiny": 2000, "image": 600}
WANTED = ">= 0.9"


def measure(repository: Path, *, repetitions: int = 5) -> list[Row]:
    """Items per second of map over those of the hand-written loop, in turns within each repetition."""
    with _identities() as server:
        rates = {key: [_take_turns(server.grpc_url, key) for _ in range(repetitions + 1)][1:] for key in ITEMS}
    return [
        from_repetitions(
            f"{name} / a hand-tuned asyncio loop, items/s, {PAYLOADS[key].what}",
            [turn[way] / turn["loop"] for turn in turns],
            unit="x",
            wanted=WANTED,
            detail=f"{turns[-1][way]:.0f} against {turns[-1]['loop']:.0f} items/s in the last repetition",
        )
        for key, turns in rates.items()
        for way, name in (("async", "AsyncModel.map"), ("blocking", "Model.map"))
    ]


def _take_turns(url: str, key: str) -> dict[str, float]:
    """Items per second of each way; each has two turns, there and back, so that a trend meets all alike."""
    ways: dict[str, Callable[[], float]] = {
        "loop": lambda: asyncio.run(_loop(url, key)),
        "async": lambda: asyncio.run(_async_map(url, key)),
        "blocking": lambda: _blocking_map(url, key),
    }
    spent = dict.fromkeys(ways, 0.0)
    for way in (*ways, *reversed(ways)):
        spent[way] += ways[way]()
    return {way: 2 * ITEMS[key] / seconds for way, seconds in spent.items()}


async def _loop(url: str, key: str) -> float:
    async with AsyncClient(url) as client:
        spec = (await client.model(key)).spec
    array, left = PAYLOADS[key].array, iter(range(ITEMS[key]))
    async with open_channel(grpc.aio, None, None, url) as channel:
        infer = channel.unary_unary(INFER_METHOD)

        async def keep_asking() -> None:
            for _ in left:
                codec.decode(spec, await infer(codec.encode(spec, {"x": array}), timeout=30))

        await infer(codec.encode(spec, {"x": array}))
        start = time.perf_counter()
        await asyncio.gather(*(keep_asking() for _ in range(IN_FLIGHT)))
        return time.perf_counter() - start


async def _async_map(url: str, key: str) -> float:
    async with AsyncClient(url) as client:
        model = await client.model(key)
        await model(x=PAYLOADS[key].array)
        start = time.perf_counter()
        async for _ in model.map(itertools.repeat(PAYLOADS[key].array, ITEMS[key]), in_flight=IN_FLIGHT):
            pass
        return time.perf_counter() - start


def _blocking_map(url: str, key: str) -> float:
    with Client(url) as client:
        model = client.model(key)
        model(x=PAYLOADS[key].array)
        start = time.perf_counter()
        for _ in model.map(itertools.repeat(PAYLOADS[key].array, ITEMS[key]), in_flight=IN_FLIGHT):
            pass
        return time.perf_counter() - start
