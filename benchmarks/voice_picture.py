"""Draw what voice_command hears: `python -m benchmarks.voice_picture docs/images/voice-command.png`.

One session of the held-out speech: two commands and a sentence that is none, with the answer to each where it was
given. The graph is the one that `fathom export voice_command` publishes.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from export.graph import onnx_file
from export.models.voice import voice_command_graph as graph
from export.models.voice import voice_command_network as network
from export.models.voice import voice_command_speech as speech
from export.models.voice.voice_command import VoiceCommand

SPOKEN = ("lights_on", "timer", network.OTHER)


def main() -> None:
    """Follow the session and draw it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("picture", type=Path, help="PNG file to write")
    said = _spoken()
    audio, _ = speech.in_quiet([np.concatenate([np.concatenate([each, _pause()]) for each, _ in said])])
    with tempfile.TemporaryDirectory() as room:
        path = Path(room) / "model.onnx"
        VoiceCommand().load(VoiceCommand().resolve(None)).write_onnx(path)
        answers = {name: rows[0, :, 0] for name, rows in graph.follow(onnx_file.session(path), audio).items()}
    _draw(audio.ravel(), answers, said, parser.parse_args().picture)


def _spoken() -> list[tuple[Any, str]]:
    """One held-out utterance of each class, and its words."""
    utterances = speech.utterances()
    return [next((each.audio, each.text) for each in utterances if each.label == label) for label in SPOKEN]


def _pause() -> Any:
    return np.zeros(int(0.8 * network.RATE), np.int16)


def _draw(audio: Any, answers: dict[str, Any], said: list[tuple[Any, str]], picture: Path) -> None:
    import matplotlib
    import torch

    matplotlib.use("Agg")
    from matplotlib import pyplot

    seconds = len(audio) / network.RATE
    frames = network.log_mel(torch.from_numpy(audio[None].astype(np.float32) / 32768))[0].numpy()
    figure, (above, below) = pyplot.subplots(
        2, 1, sharex=True, figsize=(11, 5.2), height_ratios=(2, 1), layout="constrained"
    )
    above.imshow(frames.T, origin="lower", aspect="auto", extent=(0, seconds, 0, network.BANDS), cmap="magma")
    above.set_ylabel("mel band")
    at = speech.LEAD_S
    for part, text in said:
        length = len(part) / network.RATE
        above.annotate(f"“{text}”", (at + length / 2, network.BANDS + 0.6), ha="center", annotation_clip=False)
        above.axvline(at + length, color="white", linewidth=1, linestyle=":")
        at += length + len(_pause()) / network.RATE
    times = (np.arange(len(answers["intent"])) + 1) * network.CHUNK / network.RATE
    below.step(times, answers["speech"], where="pre", color="0.6", label="speech")
    below.step(times, answers["score"], where="pre", color="tab:blue", label="score of the likeliest intent")
    for chunk, intent in enumerate(answers["intent"]):
        if intent and (chunk == 0 or intent != answers["intent"][chunk - 1]):
            below.axvline(times[chunk], color="tab:red", linewidth=1)
            above.axvline(times[chunk], color="tab:red", linewidth=1)
            label = {"color": "white", "backgroundcolor": "tab:red", "fontsize": 9}
            above.text(times[chunk] + 0.03, 2, f"{intent}, {times[chunk]:.2f} s", **label)
    below.set(xlabel="seconds of the session", ylim=(0, 1.05), xlim=(0, seconds))
    below.legend(loc="center right", fontsize=8)
    figure.savefig(picture, dpi=110)


if __name__ == "__main__":
    main()
