"""`voice_command` in a real Triton: many sessions at a time, sessions that nobody ends, more than there are slots."""

from __future__ import annotations

import asyncio
import shutil
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from complete_server import complete_server
from waiting import until

from clients import AsyncClient, Client, DeadlineExceededError, InferenceError, InvalidInputError, Model
from export.exporter import export_model
from export.graph import onnx_file
from export.models.voice import voice_command_graph as graph
from export.models.voice import voice_command_network as network
from export.models.voice import voice_command_speech as speech
from export.models.voice.voice_command import VoiceCommand
from fathom import cli
from server import TritonServer

ROOT = Path(__file__).parents[2]
SESSIONS, CHUNKS = 200, 20

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    """Serves `voice_command` as it is, and as `brief`, which has one slot and keeps it for a second."""
    repository = tmp_path_factory.mktemp("voice") / "model_repository"
    shutil.copytree(ROOT / "model_repository" / "voice_command", repository / "voice_command")
    export_model(VoiceCommand(rows=4), repository)
    config = (repository / "voice_command" / "config.pbtxt").read_text()
    for before, after in (
        ('"voice_command"', '"brief"'),
        ("max_candidate_sequences: 100", "max_candidate_sequences: 1"),
        ("max_sequence_idle_microseconds: 3000000", "max_sequence_idle_microseconds: 1000000"),
        ("count: 2", "count: 1"),
    ):
        assert before in config
        config = config.replace(before, after)
    (repository / "brief" / "1").mkdir(parents=True)
    (repository / "brief" / "config.pbtxt").write_text(config)
    shutil.copy(repository / "voice_command" / "1" / "model.onnx", repository / "brief" / "1" / "model.onnx")
    with complete_server(repository) as running:
        yield running


@pytest.fixture(scope="module")
def alone(server: TritonServer) -> Any:
    """The graph as the server has it, in this process."""
    return onnx_file.session(server.model_repository / "voice_command" / "1" / "model.onnx", threads=1)


def test_two_hundred_sessions_keep_their_states_apart(server: TritonServer, alone: Any) -> None:
    """Each gets the answers that it would get alone, though their chunks come in turns."""
    audio, _, _ = speech.rows()
    said = np.concatenate([audio[:, 3:], audio[:, 2:-1]])[:SESSIONS, :CHUNKS]
    wanted = graph.follow(alone, said)

    async def converse() -> list[list[dict[str, Any]]]:
        async with AsyncClient(server.grpc_url) as client:
            model = await client.model("voice_command")
            sessions = [model.sequence() for _ in said]
            return [
                await asyncio.gather(
                    *(ask(audio=row[None], end=at == CHUNKS - 1) for ask, row in zip(sessions, turn, strict=True))
                )
                for at, turn in enumerate(said.swapaxes(0, 1))
            ]

    turns = asyncio.run(converse())
    intents = np.array([[answer["intent"][0, 0].decode() for answer in turn] for turn in turns]).T
    scores = np.array([[answer["score"][0, 0] for answer in turn] for turn in turns]).T
    assert intents.tolist() == wanted["intent"][:, :, 0].tolist()
    assert len(set(intents.ravel())) > 10
    assert np.abs(scores - wanted["score"][:, :, 0]).max() < 1e-4


def conversation(model: Model, audio: Any) -> Any:
    """The scores of a whole session; None where it got no slot, or Triton took its waiting for idleness."""
    try:
        with model.sequence() as ask:
            return [answer["score"] for answer in ask.each(audio=audio, timeout_s=1)]
    except InferenceError:
        return None


def test_more_sessions_than_slots_wait_and_one_that_vanished_is_forgotten(server: TritonServer, alone: Any) -> None:
    audio = speech.rows()[0][0]
    wanted = graph.follow(alone, audio[None])["score"][0]
    with Client(server.grpc_url) as client:
        brief = client.model("brief")
        with brief.sequence() as first:
            first(audio=audio[:1])
            with pytest.raises(DeadlineExceededError), brief.sequence() as second:
                second(audio=audio[:1], timeout_s=0.1)
        vanished = brief.sequence()  # outside of a block: nobody ends it
        for chunk in audio[:9]:
            vanished(audio=chunk[None])
        scores = until(lambda: conversation(brief, audio))
        assert np.abs(np.concatenate(scores) - wanted).max() < 1e-4
        with pytest.raises(InferenceError) as refused:
            vanished(audio=audio[9:10])
        assert not isinstance(refused.value, DeadlineExceededError)


def test_the_command_line_prints_what_was_said(
    server: TritonServer, alone: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    word = next(each for each in speech.utterances() if each.label == "lights_on")
    audio, _ = speech.in_quiet([word.audio])
    with wave.open(str(tmp_path / "word.wav"), "wb") as file:
        file.setparams((1, 2, network.RATE, 0, "NONE", ""))
        file.writeframes(audio.tobytes())
    assert cli.main(["infer", "voice_command", f"audio=@{tmp_path}/word.wav", "--server", server.grpc_url]) == 0
    wanted = VoiceCommand().interpret({name: rows[0] for name, rows in graph.follow(alone, audio).items()})
    assert capsys.readouterr().out.splitlines() == wanted
    assert "lights_on" in wanted[0]


@pytest.mark.parametrize("number", [-1, 1 << 63, 1.5, "7"])
def test_a_sequence_id_that_triton_does_not_take_is_refused_before_anything_is_sent(
    server: TritonServer, number: Any
) -> None:
    with Client(server.grpc_url) as client, pytest.raises(InvalidInputError) as refused:
        client.model("voice_command").sequence(sequence_id=number)
    assert refused.value.source == "client"
