"""`translator` in a real Triton, with its own weights: how good it is, what it answers, and what it refuses."""

from __future__ import annotations

import asyncio
import re
import shutil
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from complete_server import complete_server
from waiting import until

from clients import AsyncClient, Client, InvalidInputError
from export import recipes
from export.exporter import export_model
from fathom.recipes import measure_served, measured_at_export

ROOT = Path(__file__).parents[2] / "model_repository"
LONG = "the twenty-seventh of September nineteen seventy-seven"

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    made = tmp_path_factory.mktemp("translator") / "model_repository"
    recipe = recipes.find("translator")
    for name in (recipe.name, *recipe.companions):
        shutil.copytree(ROOT / name, made / name, ignore=shutil.ignore_patterns("*.onnx", "*.json", "*.npz"))
    export_model(recipe, made)
    return made


@pytest.fixture(scope="module")
def server(repository):
    with complete_server(repository) as running:
        yield running


@pytest.fixture(scope="module")
def client(server):
    with Client(server.grpc_url) as connected:
        yield connected


@pytest.fixture
def translate(client):
    model = client.model("translator")

    def ask(*texts, language="fr", **options):
        rows = [[text] for text in texts]
        answer = model(text=rows, language=[[language]] * len(rows), **options)
        return [text.decode() for text in answer["translation"].ravel()], answer["score"].ravel()

    return ask


def test_phrases_never_trained_on_are_translated_at_every_station(client, repository):
    recipe = recipes.find("translator")
    measured = measured_at_export(recipe, repository) | measure_served(recipe, client, repository)

    assert set(measured) == {"source", "onnx", "served", "pipeline"}
    for station in measured.values():
        assert station.accuracy["exact_match"] >= 0.98
        assert station.accuracy["same_as_source"] == 1.0
    assert all(measured[station].parity.max_abs < 1e-4 for station in ("onnx", "served", "pipeline"))


@pytest.mark.parametrize(
    ("text", "french", "german"),
    [
        ("May 17th, 2024", "dix-sept mai deux mille vingt-quatre", "siebzehnter Mai zweitausendvierundzwanzig"),
        ("  FORTY-TWO\n", "quarante-deux", "zweiundvierzig"),
        ("500,000", "cinq cent mille", "fünfhunderttausend"),
        ("100001", "cent mille un", "einhunderttausendeins"),
        ("eightieth", "quatre-vingtième", "achtzigste"),
        ("80,081", "quatre-vingt mille quatre-vingt-un", "achtzigtausendeinundachtzig"),
        ("the first of August 2001", "le premier août deux mille un", "der erste August zweitausendeins"),
        ("$12.50", "douze dollars et cinquante cents", "zwölf Dollar und fünfzig Cent"),
    ],
)
@pytest.mark.parametrize("beams", [1, 4])
def test_what_people_ask(translate, text, french, german, beams):
    assert translate(text, beams=[[beams]])[0] == [french]
    assert translate(text, language="de", beams=[[beams]])[0] == [german]


def test_texts_of_one_request_do_not_change_each_other(translate, client):
    texts = [
        "7",
        "the third of May 1998",
        "nine hundred and ninety-nine thousand, nine hundred and ninety-nine",
        "12th",
    ]
    languages, beams = ["fr", "de", "de", "fr"], [1, 4, 2, 3]

    columns = {"text": texts, "language": languages, "beams": beams}
    together = client.model("translator")(**{name: [[value] for value in column] for name, column in columns.items()})
    for row, (text, language, width) in enumerate(zip(texts, languages, beams, strict=True)):
        (alone,), score = translate(text, language=language, beams=[[width]])
        assert together["translation"][row, 0].decode() == alone
        assert together["score"][row, 0] == pytest.approx(score[0], abs=1e-4)


@pytest.mark.parametrize(
    ("why", "text", "options"),
    [
        ("empty", " ", {}),
        ("not UTF-8", b"\xff\xfe", {}),
        ("a word that the model does not know", "two bananas", {}),
        ("the marker of the end", "two </s>", {}),
        ("longer than the model reads", "two " * 40, {}),
        ("more characters than its tokens have, which take minutes to count", "1" * 1_000_000, {}),
        ("a word too long for an answer's headers", "é" * 400, {}),
        ("a number with more digits than the model knows", "1,234,567", {}),
        ("another language", "two", {"language": "es"}),
        ("a language too long for an answer's headers", "two", {"language": "e" * 100_000}),
        ("no beams", "two", {"beams": [[0]]}),
        ("more beams than candidates", "two", {"beams": [[5]]}),
    ],
)
def test_what_cannot_be_translated_is_refused(translate, why, text, options):
    with pytest.raises(InvalidInputError) as raised:
        translate(text, **options)
    assert raised.value.status == "INVALID_ARGUMENT"
    assert translate("two")[0] == ["deux"]


def test_a_bad_text_is_refused_to_who_sent_it_alone(translate):
    """Requests that wait together are one batch of Triton's."""

    def ask(index):
        try:
            return translate("two bananas" if index % 5 == 0 else "two")[0]
        except InvalidInputError:
            return "refused"

    with ThreadPoolExecutor(20) as threads:
        answers = list(threads.map(ask, range(60)))
    assert answers == ["refused" if index % 5 == 0 else ["deux"] for index in range(60)]


def test_a_request_that_is_cancelled_is_not_searched_to_its_end(server, translate):
    texts, options = [LONG] * 16, {"beams": [[4]] * 16}

    def steps():
        with urllib.request.urlopen(server.metrics_url) as answer:
            return int(
                re.search(r'exec_count\{model="translator_decoder",version="1"\} (\d+)', answer.read().decode())[1]
            )

    async def leave():
        async with AsyncClient(server.grpc_url) as client:
            model = await client.model("translator")
            rows = {"text": [[text] for text in texts], "language": [["fr"]] * len(texts), **options}
            task = asyncio.create_task(model(**rows))
            await asyncio.to_thread(until, lambda: steps() > begun)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    begun = steps()
    assert len(set(translate(*texts, **options)[0])) == 1
    whole = steps() - begun
    begun = steps()
    asyncio.run(leave())
    assert translate("two")[0] == translate("two")[0] == ["deux"]  # by both instances, or after the one left off
    assert steps() - begun < whole


def test_the_score_is_that_of_the_best_translation_found(translate):
    _, (greedy,) = translate(LONG)
    _, (searched,) = translate(LONG, beams=[[4]])
    assert greedy <= searched + 1e-6 <= 1e-6
    assert np.isfinite(greedy)
