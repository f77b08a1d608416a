"""Spoken commands: 80 ms of a microphone in, what the person wants out, while he speaks.

The network and its weights are of `train`; whether somebody speaks is silero-vad's to say, from its package. The
graph of `voice_command_graph` computes one chunk of many sessions, and Triton keeps the state of each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from export.graph import onnx_file
from export.models.voice import voice_command_graph as graph
from export.models.voice import voice_command_network as network
from export.models.voice import voice_command_speech as speech
from export.recipe import measure, weight_files
from export.recipe.limits import Figure, Tolerance
from export.recipe.recipe import BUNDLED, Array, Arrays, Evaluation, Predict, Recipe, Source, Weights
from export.recipe.system import Question, System

PACKAGE = "silero-vad"
SILERO = "silero_vad_16k_op15.onnx"
LICENCE = "Apache-2.0 AND MIT"
"""Of this project's own weights and of silero-vad's."""
ASKED = "lights_on"


class VoiceCommand(Recipe):
    """`audio` INT16 [N, 1280] of N sessions -> `intent` STRING, `score` and `speech` FP32, `end_of_speech` BOOL [N, 1].

    A row of the evaluation is a whole session, INT16 [chunks, 1280], and its answers are one of each chunk.
    """

    name = "voice_command"
    summary = "spoken commands (streaming network with silero-vad, synthetic speech)"
    figures = (
        Figure(
            "intent_accuracy",
            "fraction of held-out utterances answered with their intent, or with none where they are other speech",
            tolerance=0.0,
        ),
        Figure(
            "answer_after_ms",
            "audio between the last sound of a command and its answer, the median over those answered rightly",
            tolerance=0.0,
            higher_is_better=False,
        ),
    )
    tolerance = Tolerance(max_abs=1e-3, min_cosine=0.9999)
    why_not_reduced = "its products are too small to gain: a chunk takes less than a request's way through Triton"
    packages: ClassVar[tuple[str, ...]] = ("torch", PACKAGE)

    def __init__(self, *, rows: int | None = None) -> None:
        """`rows`: judge by the first so many utterances instead of all."""
        self._rows = rows

    @property
    def systems(self) -> tuple[System, ...]:
        """The model itself: a sequence for each of the held-out utterances."""
        system = System(
            self.name,
            steps=(),
            requests=lambda: {"audio": speech.rows()[0]},
            question=_question,
            judged=False,  # as the model's own station
            slos=("p90=100ms",),  # for a p99 of sequences of seconds a proof would take half an hour
            sequence_interval_s=network.CHUNK / network.RATE,
        )
        return (system,)

    def resolve(self, weights: str | None) -> Weights:
        silero = {SILERO: _silero()}
        if weights not in (None, BUNDLED):
            found = weight_files.find(weights, needs=(speech.WEIGHTS.name,))
            return Weights(found.description, {**found.files, **silero}, found.folder, custom=True, explicit=True)
        own = weight_files.trained_here(
            speech.WEIGHTS, "python -m export.models.voice.train", explicit=weights is not None
        )
        description = f"{own.description}, with silero-vad from the package {PACKAGE}"
        return replace(own, description=description, files={**own.files, **silero}, licence=LICENCE)

    def load(self, weights: Weights) -> Source:
        from safetensors.numpy import load_file

        trained = load_file(weights.files[speech.WEIGHTS.name])
        silero = weights.files[SILERO]
        predict = _published(trained, silero)
        return Source(predict, lambda path: graph.write(trained, silero, path), self.evaluation())

    def evaluation(self) -> Evaluation:
        audio, label, end = (values[: self._rows] for values in speech.rows())
        return Evaluation({"audio": audio}, {"label": label, "end": end}, batched=False)

    def judged_graph(self, predict: Predict, graph_file: Path) -> Predict:
        """The graph with the states that Triton would keep."""
        return lambda row: {name: rows[0] for name, rows in graph.follow(predict, row["audio"][None]).items()}

    def data(self) -> tuple[Path, ...]:
        return network.COMMANDS, speech.UTTERANCES

    def score(self, outputs: Arrays, evaluation: Evaluation, source: Arrays | None = None) -> dict[str, float]:
        classes = network.classes()
        label, end = evaluation.truth["label"], evaluation.truth["end"]
        right, after_ms = [], []
        for row, given in enumerate(outputs["intent"]):
            answer, at = first_command(given)
            wanted = classes[label[row]]
            right.append(answer == (wanted if wanted != network.OTHER else None))
            if answer == wanted:
                after_ms.append(((at + 1) * network.CHUNK - end[row]) / network.RATE * 1e3)
        never_ms = outputs["intent"].shape[1] * network.CHUNK / network.RATE * 1e3
        return {
            "intent_accuracy": float(np.mean(right)),
            "answer_after_ms": float(np.median(after_ms or [never_ms])),
        }

    def interpret(self, outputs: Arrays, labels: Sequence[str] = ()) -> list[str]:
        """Each utterance of a session, whose rows are its chunks: "1.52 s: lights_off (98 %)"."""
        intents = [measure.text(value) for value in np.ravel(outputs["intent"])]
        scores, ends = np.ravel(outputs["score"]), np.ravel(outputs["end_of_speech"])
        sentences, waiting = [], True
        for at, (intent, score) in enumerate(zip(intents, scores, strict=True)):
            if intent and waiting:
                what = "other speech, no command" if intent == network.OTHER else f"{intent} ({score:.0%})"
                sentences.append(f"{(at + 1) * network.CHUNK / network.RATE:.2f} s: {what.replace('%', ' %')}")
            waiting = not intent or bool(ends[at])
        if sentences:
            return sentences
        heard = bool((np.ravel(outputs["speech"]) >= graph.SPEECH).any())
        return ["no command yet: the audio ends before 400 ms of silence" if heard else "nobody speaks in this audio"]


def _question() -> Question:
    row = next(at for at, each in enumerate(speech.utterances()) if each.label == ASKED)
    text = speech.utterances()[row].text
    return Question(f'a voice that says "{text}"', {"audio": speech.rows()[0][row]}, ASKED)


def first_command(intents: Array) -> tuple[str | None, int]:
    """The first command of a session's intents, and the chunk that it is the answer to."""
    for at, value in enumerate(np.ravel(intents)):
        if measure.text(value) not in (network.LISTENING, network.OTHER):
            return measure.text(value), at
    return None, -1


def _silero() -> Path:
    """The package's graph. Raises RecipeError where it is not installed."""
    if (found := weight_files.in_package(PACKAGE, SILERO)) is None:
        raise weight_files.not_installed("voice_command", PACKAGE)
    return found


def _published(trained: Arrays, silero_graph: Path) -> Predict:
    """What the graph is compared with: silero-vad's published graph, window by window, and the torch network, put
    together in Python."""
    import torch

    silero = onnx_file.session(silero_graph)
    listener = network.network()
    listener.load_state_dict({name: torch.from_numpy(array) for name, array in trained.items()})
    listener.eval()

    def predict(row: Arrays) -> dict[str, Array]:
        audio = row["audio"].reshape(1, -1).astype(np.float32) / 32768
        voices = _speech_by_window(silero, audio[0])
        with torch.inference_mode():
            frames = network.log_mel(torch.from_numpy(audio))
            chunks = frames.reshape(len(row["audio"]), network.CHUNK // network.HOP, network.BANDS)
            return _decided(listener, chunks, voices)

    return predict


def _speech_by_window(silero: Predict, audio: Array) -> Array:
    """silero-vad's probability of every whole window of 512 samples, each with the 64 before it."""
    padded = np.pad(audio, (graph.CONTEXT, 0))
    state, voices = np.zeros((2, 1, graph.VOICE), np.float32), []
    for start in range(0, len(audio) - graph.WINDOW + 1, graph.WINDOW):
        window = padded[None, start : start + graph.CONTEXT + graph.WINDOW]
        answer = silero({"input": window, "state": state, "sr": np.array(network.RATE)})
        state = answer["stateN"]
        voices.append(answer["output"].item())
    return np.array(voices, np.float32)


def _probabilities(listener: Any, chunks: Any) -> Any:
    """Of every class in every chunk, for a network that begins with the first of them."""
    if not len(chunks):
        return chunks
    logits, _ = listener(chunks.reshape(1, -1, network.BANDS))
    steps = network.CHUNK // network.STEP
    return logits[0].softmax(dim=-1).reshape(len(chunks), steps, -1).mean(dim=1)


def _decided(listener: Any, chunks: Any, voices: Array) -> dict[str, Array]:
    """The answers to every chunk of frames."""
    classes = network.classes()
    begun, spoken, silent, decided = 0, 0, 0, 0
    by_chunk = _probabilities(listener, chunks)
    answers: dict[str, list[Any]] = {"intent": [], "score": [], "speech": [], "end_of_speech": []}
    for at in range(len(chunks)):
        first, last = (samples // graph.WINDOW for samples in (at * network.CHUNK, (at + 1) * network.CHUNK))
        speech_now = float(voices[first:last].max())
        spoken += speech_now >= graph.SPEECH
        silent = 0 if speech_now >= graph.SPEECH else silent + 1
        probabilities = by_chunk[at - begun, 1:]
        best = int(probabilities.argmax())
        sure = float(probabilities[best]) >= graph.SURE and classes[best + 1] != network.OTHER
        if not decided and sure and spoken >= graph.SPOKEN:
            decided = best + 1
        end = spoken >= graph.SPOKEN and silent == graph.SILENT
        intent = network.OTHER if end and not decided else classes[decided]
        for name, value in zip(answers, (intent, float(probabilities[best]), speech_now, end), strict=True):
            answers[name].append([value])
        if silent == graph.SILENT:
            begun, spoken, decided = at + 1, 0, 0
            by_chunk = _probabilities(listener, chunks[begun:])
    kinds = {"intent": object, "score": np.float32, "speech": np.float32, "end_of_speech": bool}
    return {name: np.array(values, kinds[name]) for name, values in answers.items()}
