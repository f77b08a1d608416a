"""Many generations with cancelled ones among them: `python -m benchmarks.soak [--generations N] [--at-once N]`.

Of each ten streams, three leave midway. Prints a line a round: whether the others' texts equal those generated alone,
the slots in use afterwards, and the memory of the model's process.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

import psutil

from benchmarks.generation import PROMPTS
from clients import AsyncClient
from export.command import default_repository
from server import TritonServer

TOKENS, LEAVE_AFTER = 16, 6


def main() -> None:
    """Serve the exported recipe_writer, and nothing else, and ask."""
    command = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    command.add_argument("--generations", type=int, default=2000, metavar="N", help="default: %(default)s")
    command.add_argument("--at-once", type=int, default=60, metavar="N", help="default: %(default)s")
    command.add_argument("--model-repository", type=Path, default=default_repository(), metavar="DIR")
    arguments = command.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for name in ("recipe_writer", "smollm2"):
            shutil.copytree(arguments.model_repository / name, Path(folder, name))
        explicit = ("--model-control-mode=explicit", "--load-model=recipe_writer")
        with TritonServer(folder, stop_timeout_s=0, extra=explicit) as server:
            asyncio.run(_soak(server, arguments.generations, arguments.at_once))


async def _soak(server: TritonServer, generations: int, at_once: int) -> None:
    (stub,) = psutil.Process(server.pid).children()
    async with AsyncClient(server.grpc_url) as client:
        model = await client.model("recipe_writer")
        alone = {prompt: await _text(model, prompt, 0) for prompt in PROMPTS}
        for done in range(0, generations, at_once):
            asked = [(PROMPTS[n % len(PROMPTS)], LEAVE_AFTER if n % 10 in (0, 4, 7) else 0) for n in range(at_once)]
            start_s = time.perf_counter()
            texts = await asyncio.gather(*(_text(model, prompt, leave) for prompt, leave in asked))
            wrong = sum(text != alone[prompt] for text, (prompt, leave) in zip(texts, asked, strict=True) if not leave)
            print(
                f"{done + at_once} generations, {time.perf_counter() - start_s:.1f} s, {wrong} texts differ, "
                f"{await _slots_in_use(server)} slots in use, {stub.memory_info().rss / 1e6:.1f} MB",
                flush=True,
            )


async def _text(model: Any, prompt: str, leave: int) -> bytes:
    """The answer, or what came of it before the client left."""
    text, parts = b"", 0
    async for part in model.stream(prompt=prompt, max_tokens=TOKENS, timeout_s=3600):
        text, parts = text + part["text"][0], parts + 1
        if parts == leave:
            break
    return text


async def _slots_in_use(server: TritonServer) -> int:
    """Once the figures are published, a tenth of a second after the last part."""
    await asyncio.sleep(0.5)
    with urllib.request.urlopen(server.metrics_url) as page:
        lines = page.read().decode().splitlines()
    return int(next(line.split()[-1] for line in lines if line.startswith("fathom_generation_slots_in_use{")))


if __name__ == "__main__":
    main()
