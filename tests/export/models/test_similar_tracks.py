"""The search for similar tracks: the graph against an exact search, and how answers are judged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from export.errors import RecipeError
from export.graph import onnx_file
from export.models.tracks import catalogue
from export.models.tracks.similar_tracks import FOUND, NEAREST, Search, SimilarTracks
from export.precision.weights_only import WeightsOnly
from export.recipe.recipe import Arrays, Evaluation

TRACKS = 300


def unit(rows: int, seed: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(rows, 384)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def search() -> Search:
    """Ids that are not places, and a track that lies on another."""
    vectors = unit(TRACKS, 1)
    vectors[7] = vectors[5]
    return Search.of(catalogue.generated(TRACKS, first=1001), vectors)


@pytest.fixture(scope="module")
def station(search: Search, tmp_path_factory: pytest.TempPathFactory):
    path = tmp_path_factory.mktemp("search") / "model.onnx"
    search.write_onnx(path)
    return onnx_file.session(path)


def asked(*ids: int) -> Arrays:
    """By these ids, and for each 0 by a vector."""
    return {"vector": unit(len(ids), 2), "track_id": np.array(ids, np.int64)[:, None]}


def test_the_graph_finds_what_an_exact_search_finds(search: Search, station) -> None:
    inputs = asked(0, 1001, 0, 1300, 1111)

    exact, found = search.predict(inputs), station(inputs)

    assert found["track_ids"].tolist() == exact["track_ids"].tolist()
    assert found["tracks"].tolist() == exact["tracks"].tolist()
    assert np.abs(found["scores"] - exact["scores"]).max() < 1e-6
    assert found["known"].all()


def test_a_track_is_not_similar_to_itself(station) -> None:
    assert 1111 not in station(asked(1111))["track_ids"]
    assert station(asked(1006))["track_ids"][0, 0] == 1008, "the track that lies on it comes first"


def test_a_search_by_id_does_not_look_at_the_vector(station) -> None:
    inputs = asked(1111)

    assert (station(inputs)["scores"] == station({**inputs, "vector": unit(1, 3)})["scores"]).all()


@pytest.mark.parametrize("track_id", [1, 1000, 1301, -1, 2**63 - 1])
def test_an_id_of_no_track_is_not_known(search: Search, station, track_id: int) -> None:
    inputs = asked(track_id, 0)

    assert station(inputs)["known"].tolist() == search.predict(inputs)["known"].tolist() == [[False], [True]]


def test_vectors_in_8_bits_find_almost_the_same(search: Search, tmp_path: Path) -> None:
    search.write_onnx(tmp_path / "fp32.onnx")
    WeightsOnly(tmp_path / "fp32.onnx", SimilarTracks.reduced["int8"], (), tmp_path).write(tmp_path / "int8.onnx")
    inputs = asked(0, 1001, 1300)

    exact, found = search.predict(inputs), onnx_file.session(tmp_path / "int8.onnx")(inputs)

    assert np.abs(found["scores"] - exact["scores"]).max() < 0.005
    assert (found["track_ids"][:, 0] == exact["track_ids"][:, 0]).all()


def evaluation(search: Search, inputs: Arrays) -> Evaluation:
    places, cosines = search.nearest(inputs, NEAREST)
    truth = {"near_ids": search.ids[places], "near_scores": cosines, "genre": np.full(len(places), "")}
    return Evaluation(inputs, truth)


def recall(search: Search, change=lambda ids: ids) -> float:
    inputs = asked(0, 1001, 0, 1300)
    outputs = search.predict(inputs)
    ids = outputs["track_ids"].copy()
    change(ids)
    return SimilarTracks().score({**outputs, "track_ids": ids}, evaluation(search, inputs))["recall_at_10"]


def test_recall_counts_what_it_says(search: Search) -> None:
    def one_wrong(ids: np.ndarray) -> None:
        ids[0, 3] = 9999

    def one_twice(ids: np.ndarray) -> None:
        ids[0, 3] = ids[0, 4]

    def another_order(ids: np.ndarray) -> None:
        ids[:] = ids[:, ::-1]

    assert recall(search) == recall(search, another_order) == 1
    assert recall(search, one_wrong) == recall(search, one_twice) == pytest.approx(1 - 1 / (4 * FOUND))


def test_a_track_as_near_as_the_tenth_is_as_good() -> None:
    """Twelve tracks in one place: any ten of them are the ten nearest."""
    vectors = np.concatenate([np.tile(unit(1, 2), (12, 1)), -unit(20, 5)])
    search = Search.of(catalogue.generated(32), vectors)
    inputs = asked(0)
    outputs = {**search.predict(inputs), "track_ids": np.arange(12, 2, -1)[None]}

    places, cosines = search.nearest(inputs, 32)
    truth = {"near_ids": search.ids[places], "near_scores": cosines, "genre": np.array([""])}
    assert SimilarTracks().score(outputs, Evaluation(inputs, truth)) == {"recall_at_10": 1.0}


def test_the_genre_of_what_is_found_counts_where_one_is_meant(search: Search) -> None:
    inputs = asked(0, 0)
    outputs = {**search.predict(inputs), "tracks": np.full((2, FOUND), "A - B. Calm bebop jazz, slow, with c.", object)}
    outputs["tracks"][0, :3] = b"A - B. Calm opera, slow, with c."
    truth = evaluation(search, inputs).truth

    judged = Evaluation(inputs, {**truth, "genre": np.array(["opera", ""])})
    assert SimilarTracks().score(outputs, judged)["genre_at_10"] == pytest.approx(0.3)


def test_the_first_three_are_named(search: Search) -> None:
    (words,) = SimilarTracks().interpret(search.predict(asked(1006)))

    assert words.startswith(f"1008 {search.texts[7]} (1.00); ")
    assert words.count(";") == 2


def test_a_folder_without_a_catalogue_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        SimilarTracks().resolve(str(tmp_path))
    assert (caught.value.file, caught.value.field) == (str(tmp_path / "tracks.csv"), "weights")
