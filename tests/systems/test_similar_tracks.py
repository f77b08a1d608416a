"""`similar_tracks` on a real Triton: right answers by text and id, refusals, and a new catalogue under load."""

from __future__ import annotations

import os
import shutil
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from complete_server import TOKEN, complete_server
from tritonclient.grpc import service_pb2

from clients import Client, InferenceError, InvalidInputError, Retries
from export.exporter import export_model
from export.models.tracks import catalogue
from export.models.tracks.similar_tracks import SimilarTracks
from export.repository.manifest import Manifest
from fathom.cli import main
from fathom.recipes import measure_served
from fathom.replica import call
from server import TritonServer
from server.command import GRPC_ADMIN_HEADER

pytestmark = pytest.mark.process

TRACKS, GONE = 300, 50
REQUESTS = int(os.environ.get("FATHOM_TEST_SWAP_REQUESTS", "1000"))
MODELS = ("minilm", "similar_tracks", "text_embedding", "text_tokenizer", "track_search")


@pytest.fixture(scope="module")
def recipe() -> SimilarTracks:
    return SimilarTracks(tracks=TRACKS)


@pytest.fixture(scope="module")
def repository(exported_repository: Path, recipe: SimilarTracks, tmp_path_factory: pytest.TempPathFactory) -> Path:
    repository = tmp_path_factory.mktemp("similar") / "model_repository"
    for name in MODELS:
        shutil.copytree(exported_repository / name, repository / name, copy_function=os.link)
    export_model(recipe, repository)
    return repository


@pytest.fixture(scope="module")
def server(repository: Path) -> Iterator[TritonServer]:
    extra = ("--model-control-mode=explicit", "--load-model=*")
    with complete_server(repository, admin_token=TOKEN, extra=extra) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: TritonServer) -> Iterator[Client]:
    with Client(server.grpc_url) as connected:
        yield connected


def test_the_figures_of_every_station(client: Client, recipe: SimilarTracks, repository: Path) -> None:
    manifest = Manifest.read(repository / "track_search")
    assert manifest is not None
    assert manifest.stations is not None
    stations = {**manifest.stations, **measure_served(recipe, client, repository)}

    assert stations.keys() == {"source", "onnx", "served", "pipeline"}
    for measured in stations.values():
        assert measured.accuracy["recall_at_10"] == 1
        assert measured.accuracy["genre_at_10"] == stations["source"].accuracy["genre_at_10"] >= 0.7  # ten a genre


def test_by_a_text_and_by_the_id_of_what_it_found(client: Client) -> None:
    similar = client.model("similar_tracks")

    by_text = similar(text=[["jazz with a saxophone"]])
    best = by_text["track_ids"][0, 0]
    assert b"jazz" in by_text["tracks"][0, 0]
    assert (np.diff(by_text["scores"][0]) <= 0).all()

    by_id = similar(track_id=[[best]])
    by_its_text = similar(text=[[by_text["tracks"][0, 0]]])
    assert by_its_text["track_ids"][0].tolist() == [best, *by_id["track_ids"][0, :9]]


def test_a_batch_mixes_texts_and_ids(client: Client) -> None:
    similar = client.model("similar_tracks")

    both = similar(text=[["slow tango"], [""], ["reggae"]], track_id=[[0], [7], [0]])

    alone = [similar(text=[["slow tango"]]), similar(track_id=[[7]]), similar(text=[["reggae"]])]
    assert [ids.tolist() for ids in both["track_ids"]] == [each["track_ids"][0].tolist() for each in alone]


# (a request, what the answer names, why)
REFUSED = [
    ({"text": [[""]]}, ["text 0", "empty"], "an empty text"),
    ({"text": [["jazz"], [" \n"]]}, ["text 1", "empty"], "white space in a batch"),
    ({"text": [[b"caf\xe9"]]}, ["text 0", "UTF-8"], "Latin-1"),
    ({"track_id": [[TRACKS + GONE + 1]]}, [str(TRACKS + GONE + 1)], "an id of no track"),
    ({"track_id": [[-3]]}, ["-3"], "a negative id"),
    ({"track_id": [[0]]}, ["empty"], "0, which is no id"),
    ({"text": [["jazz"]], "track_id": [[7]]}, ["row 0", "both"], "both in a row"),
    ({}, ["text", "track_id"], "neither"),
]


@pytest.mark.parametrize(("request_", "named", "why"), REFUSED, ids=[row[-1] for row in REFUSED])
def test_what_is_refused(client: Client, request_: dict[str, object], named: list[str], why: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        client.model("similar_tracks")(request_)
    assert all(part in str(caught.value) for part in named)


def test_who_is_batched_with_a_refused_request_is_answered(client: Client) -> None:
    similar = client.model("similar_tracks")
    asked = [{"text": [["jazz"]]}, {"track_id": [[9]]}, {"text": [[""]]}, {"track_id": [[-1]]}] * 6
    ends: list[int | None] = [None] * len(asked)

    def call(number: int) -> None:
        try:
            ends[number] = similar(asked[number])["track_ids"].size
        except InvalidInputError:
            ends[number] = 0

    threads = [threading.Thread(target=call, args=(number,)) for number in range(len(asked))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ends == [10, 10, 0, 0] * 6


class Load:
    """Requests by ids that both catalogues have, and every fourth by a text, without retries."""

    def __init__(self, address: str, threads: int = 8) -> None:
        self.answered = 0
        self.errors: Counter[str] = Counter()
        self._address, self._stop, self._lock = address, threading.Event(), threading.Lock()
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(threads)]

    def _run(self, number: int) -> None:
        kept = range(GONE + 1, TRACKS + 1)
        with Client(self._address, retries=Retries(reserve=0)) as client:
            similar = client.model("similar_tracks")
            while not self._stop.is_set():
                number += 1
                try:
                    if number % 4:
                        similar(track_id=[[kept[number % len(kept)]]])
                    else:
                        similar(text=[["calm solo piano"]])
                except InferenceError as error:
                    self.errors[str(error)] += 1
                with self._lock:
                    self.answered += 1

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def wait_for(self, count: int) -> None:
        while self.answered < count:
            self._stop.wait(0.02)


def test_a_new_catalogue_is_swapped_in_under_load(
    server: TritonServer, client: Client, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    similar = client.model("similar_tracks")
    catalogue.main([str(tmp_path / "new"), "--first", str(GONE + 1), "--tracks", str(TRACKS)])
    build = tmp_path / "build"
    shutil.copytree(repository / "track_search", build / "track_search")
    named = ["--weights", str(tmp_path / "new"), "--model-repository", str(build), "--no-engine"]
    assert main(["export", "similar_tracks", *named]) == 0

    monkeypatch.setenv("FATHOM_ADMIN_TOKEN", TOKEN)
    where = ["--server", server.grpc_url, "--model-repository", str(repository)]
    with Load(server.grpc_url) as load:
        load.wait_for(REQUESTS // 4)
        files = ["--from", str(build / "track_search" / "1")]
        assert main(["publish", "track_search", *files, "--no-parity", "--watch", "0.1", *where]) == 0
        load.wait_for(REQUESTS)

    assert load.errors == {}
    assert similar(track_id=[[TRACKS + GONE]])["track_ids"].min() > GONE
    with pytest.raises(InvalidInputError) as caught:
        similar(track_id=[[GONE]])
    assert str(GONE) in str(caught.value)


def test_without_the_search_it_is_unavailable(server: TritonServer) -> None:
    """And not broken: the model that is called comes back, or has room again."""
    unload = service_pb2.RepositoryModelUnloadRequest(model_name="track_search")
    with Client(server.grpc_url, headers={GRPC_ADMIN_HEADER: TOKEN}, retries=Retries(reserve=0)) as client:
        call(client, "RepositoryModelUnload", unload, 10.0)
        with pytest.raises(InferenceError) as caught:
            client.model("similar_tracks")(track_id=[[1]])
    assert caught.value.status == "UNAVAILABLE"
