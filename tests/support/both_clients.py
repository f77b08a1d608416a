"""One test for both clients: what it does runs in a thread beside the asyncio client's loop."""

from __future__ import annotations

import asyncio
import time

import numpy as np
import pytest

from clients import AsyncClient, Client

X = np.ones((1, 4), np.float32)
KINDS = pytest.mark.parametrize("kind", [Client, AsyncClient])


def drive(kind, endpoint, steps, **options):
    """Run `steps(rotation, ask, mark)` beside a client: `ask` sends a request to model `m`, `mark` marks servers."""

    async def with_asyncio():
        async with kind(endpoint, **options) as client:
            loop = asyncio.get_running_loop()
            model = await client.model("m")

            def ask():
                return asyncio.run_coroutine_threadsafe(model(x=X), loop).result(20)

            def mark(server, **how):
                loop.call_soon_threadsafe(lambda: client.rotation().mark(server, **how))

            await asyncio.to_thread(steps, client._rotation, ask, mark)

    if issubclass(kind, AsyncClient):
        asyncio.run(with_asyncio())
        return
    with kind(endpoint, **options) as client:
        model = client.model("m")
        steps(client.rotation(), lambda: model(x=X), client.rotation().mark)


def until(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)
