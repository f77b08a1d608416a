"""Spoken commands: the graph against what it is made of, and what it answers to held-out speech."""

from __future__ import annotations

from importlib import metadata

import numpy as np
import pytest

from export.errors import RecipeError
from export.graph import onnx_file
from export.models.voice import voice_command_graph as graph
from export.models.voice import voice_command_network as network
from export.models.voice import voice_command_speech as speech
from export.models.voice.voice_command import VoiceCommand
from export.recipe.measure import parity

SOME = 6


@pytest.fixture(scope="module")
def recipe():
    return VoiceCommand()


@pytest.fixture(scope="module")
def source(recipe):
    return recipe.load(recipe.resolve(None))


@pytest.fixture(scope="module")
def session(source, tmp_path_factory):
    path = tmp_path_factory.mktemp("voice") / "model.onnx"
    source.write_onnx(path)
    return onnx_file.session(path, threads=1)


@pytest.fixture(scope="module")
def answers(session, source):
    """To all held-out utterances, as one batch of sessions."""
    return graph.follow(session, source.evaluation.inputs["audio"])


def test_held_out_speech_gets_the_right_intent_soon(recipe, source, answers):
    figures = recipe.score(answers, source.evaluation)
    assert figures["intent_accuracy"] >= 0.94
    assert figures["answer_after_ms"] <= 320


def test_every_intent_and_other_speech_is_among_the_utterances(source):
    assert set(source.evaluation.truth["label"].tolist()) == set(range(1, len(network.classes())))


def test_the_graph_answers_as_silero_vad_and_torch_do(source, session):
    """silero-vad's published graph, window by window, and the torch network, put together in Python."""
    for audio in source.evaluation.inputs["audio"][:: len(source.evaluation) // SOME]:
        wanted = source.predict({"audio": audio})
        given = {name: rows[0] for name, rows in graph.follow(session, audio[None]).items()}
        assert given["intent"].tolist() == wanted["intent"].tolist()
        assert parity(given, wanted).max_abs < 1e-4


def test_a_session_is_answered_alone_as_among_others(source, session, answers):
    last = len(source.evaluation) - 1
    alone = graph.follow(session, source.evaluation.inputs["audio"][last:])
    assert alone["intent"][0].tolist() == answers["intent"][last].tolist()
    assert np.abs(alone["score"][0] - answers["score"][last]).max() < 1e-5


def heard(session, *parts):
    """The recipe's sentences about a session that is made of these."""
    audio, _ = speech.in_quiet([np.concatenate(parts)])
    return [
        sentence.split()[2] if " s: " in sentence else ""
        for sentence in VoiceCommand().interpret({name: rows[0] for name, rows in graph.follow(session, audio).items()})
    ]


def quiet(seconds):
    return np.zeros(int(seconds * network.RATE), np.int16)


def said(label, number=0):
    return [each.audio for each in speech.utterances() if each.label == label][number]


def test_a_session_goes_on_after_each_utterance(session):
    parts = [said("lights_on"), said("volume_up"), said("volume_up", 1)]
    alone = [answer for part in parts for answer in heard(session, part)]
    assert alone[0] == "lights_on"
    assert heard(session, parts[0], quiet(0.8), parts[1], quiet(0.8), parts[2]) == alone


def test_what_was_said_before_changes_nothing(session):
    """Minutes of silence and a click leave no trace either."""
    click = np.full(400, 20_000, np.int16)
    assert heard(session, quiet(40), click, quiet(2), said("timer")) == ["timer"]


def test_nobody_speaks(session):
    assert heard(session, quiet(1)) == [""]
    assert heard(session, np.random.default_rng(0).normal(0, 3000, network.RATE * 2).astype(np.int16)) == [""]


@pytest.mark.parametrize("level_db", [-24, 6])
def test_soft_and_loud_speech(session, level_db):
    audio = said("lights_on").astype(np.float64)
    level = 10 ** (level_db / 20)
    assert heard(session, np.clip(audio * level, -32768, 32767).astype(np.int16)) == ["lights_on"]


def test_mu_law_is_near_enough():
    """Eight bits a sample: 35 dB below the sound that it codes."""
    audio = said("weather").astype(np.float64)
    error = speech.from_mu_law(speech.mu_law(audio.astype(np.int16))) - audio
    assert (error**2).mean() < (audio**2).mean() * 10 ** (-35 / 10)


def test_without_the_package_the_remedy_installs_it(recipe, monkeypatch):
    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "files", missing)
    with pytest.raises(RecipeError) as refused:
        recipe.resolve(None)
    assert refused.value.about["expected"] == "silero-vad"


def test_weights_of_ones_own(recipe, tmp_path):
    (tmp_path / speech.WEIGHTS.name).write_bytes(speech.WEIGHTS.read_bytes())
    found = recipe.resolve(str(tmp_path))
    assert found.custom
    assert found.files[speech.WEIGHTS.name].parent == tmp_path
    (tmp_path / speech.WEIGHTS.name).rename(tmp_path / "other.safetensors")
    with pytest.raises(RecipeError):
        recipe.resolve(str(tmp_path))
