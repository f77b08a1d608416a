"""`road_scene` on a real Triton: right boxes, refusals, urgent frames that overtake and stale ones that are dropped."""

from __future__ import annotations

import asyncio
import io
import re
import shutil
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from complete_server import complete_server
from PIL import Image

from clients import AsyncClient, Client, InferenceError, InvalidInputError, OverloadedError, QueueTimeoutError
from export.exporter import export_model
from export.models.road import road_frames
from export.models.road.road_frames import LABELS
from export.models.road.road_scene import ASKED, RoadScene, held_out
from fathom.recipes import measure_served, measured_at_export
from fathom.workload import with_requests
from loadtests.capacity import CapacityRequest, load
from loadtests.slo import Slo
from loadtests.target.access import Access
from loadtests.target.metrics import parse
from loadtests.workload.shape import parse_shape
from loadtests.workload.workload import ModelWeight
from server import TritonServer

pytestmark = pytest.mark.process

COMMITTED = Path(__file__).parents[2] / "model_repository"
PAGE = COMMITTED.with_name("docs") / "systems" / "road-scene.md"
MODELS = ("road_scene", "road_scene_detector", "road_scene_pixels")
WAITING = 60
"""Frames that are sent at once: fewer than a queue holds, more than the instances take."""


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    repository = tmp_path_factory.mktemp("road") / "model_repository"
    for name in MODELS:
        built = shutil.ignore_patterns("*.onnx", "*.json", "*.npz", "labels.txt", "__pycache__")
        shutil.copytree(COMMITTED / name, repository / name, ignore=built)
        for config in (repository / name).rglob("*.pbtxt"):  # nothing grows stale by itself, however slow the machine
            config.write_text(config.read_text().replace("microseconds: 500000", "microseconds: 60000000"))
    export_model(RoadScene(), repository)
    return repository


@pytest.fixture(scope="module")
def server(repository: Path) -> Iterator[TritonServer]:
    with complete_server(repository, models=("road_scene",)) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: TritonServer) -> Iterator[Client]:
    with Client(server.grpc_url) as connected:
        yield connected


def test_every_station_finds_what_is_on_held_out_frames(client: Client, repository: Path) -> None:
    recipe = RoadScene()
    stations = measured_at_export(recipe, repository) | measure_served(recipe, client, repository)

    assert stations.keys() == {"source", "onnx", "served", "pipeline"}
    for measured in stations.values():
        assert measured.accuracy["map50"] >= 0.9
        assert measured.accuracy["found_again"] >= 0.99


def test_the_answer_to_a_frame_in_words(client: Client) -> None:
    (system,) = RoadScene().systems
    question = system.question()

    (sentence,) = RoadScene().interpret(client.model("road_scene")(question.inputs))

    for counted in question.truth.split(", "):
        number, label = counted.split(" ", 1)
        assert sentence.count(f"{label} (") == int(number), sentence


def test_the_example_of_the_page_prints_what_is_on_the_frame(
    server: TritonServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (example,) = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "frame.jpg").write_bytes(held_out()[0][ASKED])

    exec(example.replace("localhost:8001", server.grpc_url), {})

    lines = capsys.readouterr().out.splitlines()
    assert lines
    assert all(line.split(" (")[0] in LABELS for line in lines)


def jpeg(size: tuple[int, int]) -> bytes:
    return road_frames.jpeg(Image.new("RGB", size, "grey"))


def bomb() -> bytes:
    data = io.BytesIO()
    Image.new("1", (10_000, 10_000)).save(data, "PNG")
    return data.getvalue()


REFUSED = {
    "no image": b"a road, honest",
    "nothing": b"",
    "a JPEG that was cut off": jpeg((640, 360))[:700],
    "too many pixels": bomb(),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_frame_is_invalid_input(client: Client, case: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        client.model("road_scene")(image=[REFUSED[case]])
    assert caught.value.source == "server"


@pytest.mark.parametrize("image", [3, [1.5], np.zeros((1, 192, 320, 3), np.uint8)], ids=["number", "float", "pixels"])
def test_another_type_is_refused_before_it_is_sent(client: Client, image: object) -> None:
    with pytest.raises(InvalidInputError) as caught:
        client.model("road_scene")(image=image)
    assert caught.value.source == "client"


@pytest.mark.parametrize("size", [(64, 64), (360, 640), (1920, 1080)])
def test_a_frame_of_any_size_is_looked_at(client: Client, size: tuple[int, int]) -> None:
    answer = client.model("road_scene")(image=[jpeg(size)])
    assert (answer["boxes"] >= 0).all()
    assert (answer["boxes"] <= 1).all()


def test_a_bad_frame_fails_alone(client: Client) -> None:
    frames = [b"no image" if number % 3 == 0 else held_out()[0][number] for number in range(24)]
    answers = client.model("road_scene").map(([frame] for frame in frames), in_flight=24, errors="return")
    refused = [isinstance(answer, InvalidInputError) for answer in answers]
    assert refused == [number % 3 == 0 for number in range(24)]


def rejected(server: TritonServer) -> int:
    """Requests that the detector's queue refused, by Triton's own count."""
    with urllib.request.urlopen(server.metrics_url) as page:
        counts = parse(page.read().decode())["nv_inference_request_failure"]
    wanted = {"model": "road_scene_detector", "reason": "REJECTED"}
    return round(sum(value for labels, value in counts if wanted.items() <= labels.items()))


async def in_turn(server: TritonServer, *late: dict[str, float]) -> list[str | InferenceError]:
    """Fill the detector's queue with normal frames, then send some more with these options.

    Returns the ends in their order: "normal", "late" or the error of a late one.
    """
    pixels = RoadScene().example()["pixels"]
    ends: list[str | InferenceError] = []
    async with AsyncClient(server.grpc_url) as client:
        model = await client.model("road_scene_detector")

        async def ask(kind: str, **options: float) -> None:
            try:
                await model(pixels=pixels, **options)
            except InferenceError as error:
                ends.append(error)
            else:
                ends.append(kind)

        normal = [asyncio.create_task(ask("normal", queue_timeout_s=60)) for _ in range(WAITING)]
        while not ends:  # the first batches are done, the others wait
            await asyncio.sleep(0)
        await asyncio.gather(*normal, *(ask("late", **options) for options in late))
    return ends


def test_an_urgent_frame_overtakes_those_that_wait(server: TritonServer) -> None:
    ends = asyncio.run(in_turn(server, {"priority": 1}))
    assert ends.index("late") < WAITING - 10  # at most three batches were begun before it

    ends = asyncio.run(in_turn(server, {"priority": 2}))
    assert ends.index("late") > WAITING - 20


def test_a_stale_frame_is_dropped_and_counted(server: TritonServer) -> None:
    before = rejected(server)

    ends = asyncio.run(in_turn(server, *[{"queue_timeout_s": 1e-6}] * 5))

    stale = [end for end in ends if end not in ("normal", "late")]
    assert stale
    assert {type(error) for error in stale} == {QueueTimeoutError}
    assert isinstance(stale[0], OverloadedError)
    assert rejected(server) - before == len(stale)


def test_a_load_test_reports_urgent_and_normal_frames_apart(server: TritonServer, repository: Path) -> None:
    access, names = Access(), ("road_scene", "road_scene@1")
    shares = with_requests(server.grpc_url, [ModelWeight.parse(name) for name in names], repository, access)
    request = CapacityRequest(server.grpc_url, "road", [Slo.parse("p99=2s"), Slo.parse("errors=1%")], mix=shares)

    point = load(request, parse_shape("constant:10", 1.0))

    assert tuple(entry.model for entry in point.models) == names
    assert sum(entry.requests for entry in point.models) == point.requests
    assert all(entry.requests and not entry.errors for entry in point.models)
