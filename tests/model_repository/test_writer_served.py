"""`recipe_writer` in a real Triton, with a tiny decoder whose texts never end by themselves."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from queue import Queue
from typing import Any

import numpy as np
import psutil
import pytest
import tiny_decoder
from complete_server import HEADERS, TOKEN, complete_server
from mortal import mortal
from tritonclient.grpc import InferenceServerClient, InferInput
from waiting import until

from clients import AsyncClient, Client, OverloadedError
from server import TritonServer

ROOT = Path(__file__).parents[2]
LONG, QUEUE = 8000, 100
PROMPTS = tiny_decoder.SENTENCES.read_text(encoding="utf-8").splitlines()[:5]
PACED = """
import time
from quick_decoder import Decoder as QuickDecoder


class Decoder(QuickDecoder):
    def step(self, tokens, lengths):
        time.sleep(0.02)
        return super().step(tokens, lengths)
"""
"""A decoder about as slow as a real one: Triton 2.51 dies when many streams are cancelled whose parts come faster."""

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    """Serves the committed recipe_writer with more context, a longer queue and a paced decoder."""
    repository = tmp_path_factory.mktemp("writer") / "model_repository"
    shutil.copytree(ROOT / "model_repository" / "recipe_writer", repository / "recipe_writer")
    config = repository / "recipe_writer" / "config.pbtxt"
    decoder = repository / "recipe_writer" / "1" / "decoder.py"
    decoder.rename(decoder.with_name("quick_decoder.py"))
    decoder.write_text(PACED)
    wanted = {"context": 8192, "waiting": QUEUE}
    for key, value in wanted.items():
        text, changed = re.subn(rf'("{key}" value {{ string_value:) "\d+"', rf'\1 "{value}"', config.read_text())
        assert changed == 1
        config.write_text(text)
    exported = repository / "smollm2" / "1"
    tiny_decoder.write_folder(exported, shape=replace(tiny_decoder.SHAPE, context=8192))
    about = json.loads((exported / "generation.json").read_text())
    (exported / "generation.json").write_text(json.dumps({**about, "eos_ids": []}))
    explicit = ("--model-control-mode=explicit", "--load-model=recipe_writer")
    with complete_server(repository, extra=explicit, admin_token=TOKEN) as running:
        yield running


def figures(server: TritonServer) -> dict[str, int]:
    """What the model publishes, without the beginning of each name."""
    with urllib.request.urlopen(f"http://{server.metrics_url.removeprefix('http://')}") as page:
        found = re.findall(r'^fathom_generation_(\w+){model="recipe_writer"} (\d+)$', page.read().decode(), re.M)
    return {name: int(value) for name, value in found}


def idle(server: TritonServer) -> dict[str, int] | None:
    """The figures once no request has a slot or waits."""
    found = figures(server)
    return found if not (found["slots_in_use"] or found["waiting"]) else None


def stubs(server: TritonServer, model: str) -> list[psutil.Process]:
    """The processes of a python model."""
    found = psutil.Process(server.pid).children()
    return [process for process in found if f"/{model}/" in " ".join(process.cmdline())]


def refusal(server: TritonServer, model: str, asked: dict[str, Any]) -> tuple[str, str]:
    """The status and the sentence of an error. The text has both, since a stream over gRPC has the text alone."""
    url = f"http://{server.http_url}/v2/models/{model}/generate_stream"
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(url, json.dumps(asked).encode())
    status, _, sentence = json.loads(caught.value.read().decode().removeprefix("data: "))["error"].partition(": ")
    return status, sentence


async def pieces(model: Any, prompt: str, count: int, *, leave: int = 0, **options: Any) -> list[bytes]:
    """The pieces of an answer, or its first `leave` ones."""
    got = []
    inputs = {"prompt": [prompt], "max_tokens": [count], **options}
    async for part in model.stream(inputs, timeout_s=120):
        got.append(part["text"][0])
        if len(got) == leave:
            return got
        assert ("finish_reason" in part) == (len(got) == count)
    assert part["finish_reason"].tolist() == [b"length"]
    assert part["output_tokens"].tolist() == [count]
    return got


async def ask_all(server: TritonServer, asked: list[tuple[str, int, int]], **options: Any) -> list[Any]:
    """Answers and errors for (prompt, tokens, parts to leave after), all at a time."""
    async with AsyncClient(server.grpc_url) as client:
        model = await client.model("recipe_writer")
        answers = (pieces(model, prompt, count, leave=leave, **options) for prompt, count, leave in asked)
        return await asyncio.gather(*answers, return_exceptions=True)


def alone(server: TritonServer, count: int, **options: Any) -> dict[str, list[bytes]]:
    """The pieces for each prompt, one request at a time."""
    return {prompt: asyncio.run(ask_all(server, [(prompt, count, 0)], **options))[0] for prompt in PROMPTS}


def test_a_model_that_is_unloaded_ends_its_answers_and_its_process(server: TritonServer) -> None:
    """The first test: Triton 2.51 keeps some of the requests that are cancelled, and with one the model, for ever."""
    admin, before = InferenceServerClient(server.grpc_url), stubs(server, "recipe_writer")
    with Client(server.grpc_url) as client:
        model = client.model("recipe_writer")
        parts = model.stream(prompt=["tea"], max_tokens=[30], timeout_s=120)
        next(parts)
        admin.unload_model("recipe_writer", headers=HEADERS)
        assert len(list(parts)) == 29
        until(lambda: not any(process.is_running() for process in before))
        admin.load_model("recipe_writer", headers=HEADERS)
        assert len(list(model.stream(prompt=["tea"], max_tokens=[3]))) == 3
    until(lambda: idle(server))


def test_a_hundred_at_a_time_of_whom_thirty_leave(server: TritonServer) -> None:
    """The others' answers are those of each alone, the slots are free again, and memory does not grow."""
    expected, before = alone(server, 14), figures(server)
    (stub,) = stubs(server, "recipe_writer")
    asked = [
        (PROMPTS[n % 5], LONG, 1 + n % 7) if n % 10 in (0, 4, 7) else (PROMPTS[n % 5], 5 + n % 10, 0)
        for n in range(100)
    ]
    memory = []
    for _ in range(2):
        got = asyncio.run(ask_all(server, asked))
        for (prompt, count, leave), answer in zip(asked, got, strict=True):
            assert answer == expected[prompt][: leave or count]
        until(lambda: idle(server))
        memory.append(stub.memory_info().rss)
    assert figures(server)["cancelled_total"] == before["cancelled_total"] + 60
    assert memory[1] - memory[0] < 4e6


def test_a_seed_gives_the_same_text_among_others(server: TritonServer) -> None:
    drawn = {"temperature": [1.0], "top_p": [0.9], "seed": [7]}
    expected = alone(server, 14, **drawn)
    assert len(set(map(tuple, expected.values()))) == len(PROMPTS)
    got = asyncio.run(ask_all(server, [(prompt, 14, 0) for prompt in PROMPTS], **drawn))
    assert dict(zip(PROMPTS, got, strict=True)) == expected


def test_a_full_queue_is_an_overload(server: TritonServer) -> None:
    got = asyncio.run(ask_all(server, [(PROMPTS[0], LONG, 40)] * 8 + [(PROMPTS[0], 1, 0)] * (QUEUE + 12)))
    refused = [answer for answer in got if isinstance(answer, Exception)]
    assert 0 < len(refused) <= 20
    assert {type(error) for error in refused} == {OverloadedError}
    until(lambda: idle(server))


def test_the_slot_of_a_killed_client_is_freed(server: TritonServer) -> None:
    cancelled = figures(server)["cancelled_total"]
    code = (
        "import sys; from clients import Client\n"
        "model = Client(sys.argv[1]).model('recipe_writer')\n"
        f"for part in model.stream(prompt=['tea'], max_tokens=[{LONG}], timeout_s=120): print('part', flush=True)"
    )
    command = mortal([sys.executable, "-c", code, server.grpc_url])
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        process.kill()
    until(lambda: figures(server)["cancelled_total"] == cancelled + 1)
    until(lambda: idle(server))


@pytest.mark.parametrize(
    "asked",
    [
        {"prompt": ""},
        {"prompt": " \n"},
        {"prompt": "tea " * 8192},  # more tokens than the context has
        {"prompt": "tea" * 1_000_000},  # and so many that they are not counted
        {"prompt": "tea", "max_tokens": 0},
        {"prompt": "tea", "max_tokens": -1},
        {"prompt": "tea", "temperature": -0.1},
        {"prompt": "tea", "temperature": float("nan")},
        {"prompt": "tea", "temperature": float("inf")},
        {"prompt": "tea", "top_p": 0},
        {"prompt": "tea", "top_p": 1.5},
        {"prompt": "tea", "stop": ["cake", ""]},
        {"prompt": "tea", "temprature": 1},  # a parameter that nobody reads
        {"max_tokens": 1},
    ],
    ids=lambda asked: str(asked)[:40],
)
def test_bad_input_is_refused_with_a_sentence(server: TritonServer, asked: dict[str, Any]) -> None:
    status, sentence = refusal(server, "recipe_writer", asked)
    assert status == "INVALID_ARG"
    assert "\n" not in sentence
    assert "Traceback" not in sentence


@pytest.mark.parametrize("wrong", [{"prompt": b"\xff"}, {"prompt": b"tea", "stop": b"\xe6"}], ids=repr)
def test_text_that_is_not_utf_8_is_refused(server: TritonServer, wrong: dict[str, bytes]) -> None:
    """By a client that lets the stream end: Triton 2.51 never lets go of one that is cancelled after its error."""
    answers: Queue[tuple[Any, Any]] = Queue()
    with InferenceServerClient(server.grpc_url) as client:
        client.start_stream(lambda result, error: answers.put((result, error)))
        inputs = [InferInput(name, [1], "BYTES") for name in wrong]
        for tensor, value in zip(inputs, wrong.values(), strict=True):
            tensor.set_data_from_numpy(np.array([value], object))
        client.async_stream_infer("recipe_writer", inputs)
        assert "INVALID_ARG" in str(answers.get(timeout=30)[1])
