"""`next_word` in a real Triton, with a tiny decoder: answers, the response cache, and what it refuses."""

from __future__ import annotations

import shutil
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import repository_code
import tiny_decoder
from complete_server import complete_server
from tokenizers import Tokenizer

from clients import Client, InvalidInputError, Model
from server import TritonServer

ROOT = Path(__file__).parents[2]
MODELS = ("next_word", "next_word_text", "next_word_search")

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    """Serves next_word and its steps beside a tiny decoder."""
    repository = tmp_path_factory.mktemp("next_word") / "model_repository"
    for name in MODELS:
        shutil.copytree(ROOT / "model_repository" / name, repository / name)
    tiny_decoder.write_folder(repository / "smollm2" / "1")
    with complete_server(repository, models=["next_word"]) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: TritonServer) -> Iterator[Client]:
    with Client(server.grpc_url) as connected:
        yield connected


@pytest.fixture
def model(client: Client) -> Model:
    return client.model("next_word")


def words(model: Model, *texts: str | bytes) -> list[tuple[list[str], Any]]:
    answer = model(text=[[text] for text in texts])
    return [
        ([word.decode() for word in row], probabilities)
        for row, probabilities in zip(answer["words"], answer["probabilities"], strict=True)
    ]


def test_a_text_gets_five_words_best_first(model: Model) -> None:
    ((found, probabilities),) = words(model, "play some")
    assert len(set(found)) == 5
    assert all(word for word in found)
    assert (np.diff(probabilities) <= 0).all()
    assert 0 < probabilities.sum() <= 1


def test_the_words_are_those_that_the_decoder_without_a_cache_finds(server: TritonServer, model: Model) -> None:
    """Each word of one or two pieces has the probability that the whole texts, read at once, give it."""
    folder = server.model_repository / "smollm2" / "1"
    session = ort.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    (pieces_module,) = repository_code.load("next_word_search", "pieces")
    pieces = pieces_module.Pieces.of(tokenizer)

    def after(ids: list[int]) -> Any:
        feeds = {
            name.name: np.zeros((1, name.shape[1], 0, name.shape[3]), np.float32)
            for name in session.get_inputs()
            if name.name.startswith("past")
        }
        feeds |= {
            "input_ids": np.array([ids], np.int64),
            "seqlens_k": np.array([len(ids) - 1], np.int32),
            "total_sequence_length": np.array([len(ids)], np.int32),
            "logits_at": np.array([len(ids) - 1], np.int64),
        }
        logits = session.run(["logits"], feeds)[0][0, 0].astype(np.float64)
        raised = np.exp(logits - logits.max())
        return raised / raised.sum()

    ids = tokenizer.encode("\nplay some").ids
    first = after(ids)
    covering, _ = pieces.following(b" ")
    ((found, probabilities),) = words(model, "play some ")
    for word, probability in zip(found, probabilities, strict=True):
        way = tokenizer.encode(f" {word}").ids
        chance = first[way[0]]
        for length in range(1, len(way)):
            chance *= after(ids + way[:length])[way[length]]
        chance *= after(ids + way)[pieces.ends].sum() / first[covering].sum()
        assert probability == pytest.approx(chance, rel=1e-3)


def test_an_answer_does_not_depend_on_the_texts_beside_it(model: Model) -> None:
    texts = ["play", "what is the weather like in", "set an alarm for seven", "e"]
    together = words(model, *texts)
    for text, (found, probabilities) in zip(texts, together, strict=True):
        ((alone, chances),) = words(model, text)
        assert alone == found
        assert chances == pytest.approx(probabilities, rel=1e-4)


@pytest.mark.parametrize(
    ("text", "same", "why"),
    [
        ("play some", "play some ", "a space behind a whole word"),
        ("Yes.", "Yes. \t", "spaces behind a mark"),
        ("play some ", "play some" + " " * 3000, "more spaces than are passed on"),
        ("x" * 5000 + " play some ", "x" * 9000 + " play some ", "longer than what is read"),
    ],
)
def test_texts_with_the_same_answer(model: Model, text: str, same: str, why: str) -> None:
    (first, second) = words(model, text, same)
    assert first[0] == second[0], why


@pytest.mark.parametrize(
    ("text", "why"),
    [("", "empty"), (" \n", "spaces alone"), (b"caf\xe9", "not UTF-8")],
)
def test_a_text_is_refused_each_time_it_comes(model: Model, text: str | bytes, why: str) -> None:
    """Triton's cache would keep an error as an answer without outputs: the texts are checked in front of it."""
    for _ in range(3):
        with pytest.raises(InvalidInputError):
            words(model, text)


def test_an_equal_text_is_answered_from_the_response_cache(server: TritonServer, model: Model) -> None:
    text = "a text that no other test asks for"
    before = cached(server)
    answers = [words(model, text)[0] for _ in range(3)]
    after = cached(server)
    assert after["hits"] - before["hits"] == 2
    assert after["misses"] - before["misses"] == 1
    assert all(found == answers[0][0] for found, _ in answers)
    assert all((chances == answers[0][1]).all() for _, chances in answers)


def cached(server: TritonServer) -> dict[str, int]:
    """Triton's own counters of the model."""
    with urllib.request.urlopen(server.metrics_url) as page:
        lines = page.read().decode().splitlines()
    counted = {}
    for kind in ("hits", "misses"):
        own = f'nv_cache_num_{kind}_per_model{{model="next_word_search"'
        counted[kind] = sum(int(line.split()[1]) for line in lines if line.startswith(own))
    return counted
