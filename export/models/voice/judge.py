"""Judge voice_command on speech that it was never trained on: `python -m export.models.voice.judge`.

It speaks thousands of held-out utterances with espeak-ng and follows them through the graph that export publishes:
commands in quiet and in noise; then other speech for as long as `--minutes` says, and as much that begins, ends or goes
on like a command. It also prints what was heard in recordings given as arguments.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from export.graph import onnx_file
from export.models.voice import voice_command_graph as graph
from export.models.voice import voice_command_network as network
from export.models.voice import voice_command_speech as kept
from export.models.voice.voice_command import VoiceCommand, first_command
from export.models.voice.voice_synthesis import HELD_OUT, commands, other_speech, spoken
from export.recipe.recipe import Array, Predict

SEED = 1000
"""Other draws than those of the utterances that come with the model."""
TOGETHER, IN_A_ROW = 64, 8
"""Sessions that are followed at a time, and utterances of a session of other speech."""
NOISES_DB = (None, 20.0, 10.0, 5.0)
"""Ratios of speech to white noise; None for quiet."""


def commands_table(predict: Predict, each: int) -> list[str]:
    """The held-out commands, `each` times every phrase, in quiet and in noise: a line for each noise."""
    said = sorted(spoken(HELD_OUT, commands(each), SEED), key=lambda utterance: len(utterance.audio))
    lines = []
    for noise_db in NOISES_DB:
        right, after_ms, wrong = 0, [], dict.fromkeys(network.phrases(), 0)
        for start in range(0, len(said), TOGETHER):
            some = said[start : start + TOGETHER]
            audio, ends = kept.in_quiet([each.audio for each in some])
            intents = graph.follow(predict, audio if noise_db is None else _noisy(audio, noise_db))["intent"]
            for utterance, given, end in zip(some, intents, ends, strict=True):
                answer, at = first_command(given)
                if answer == utterance.label:
                    right += 1
                    after_ms.append(((at + 1) * network.CHUNK - end) / network.RATE * 1e3)
                else:
                    wrong[utterance.label] += 1
        noise = "quiet" if noise_db is None else f"{noise_db:g} dB over white noise"
        worst = sorted(wrong.items(), key=lambda item: -item[1])[:3]
        half, most = np.percentile(after_ms, [50, 90])
        lines.append(
            f"{len(said)} commands, {noise}: {right / len(said):.1%} right; answered {half:.0f} ms after the last "
            f"sound (p90 {most:.0f} ms); most errors: {', '.join(f'{intent} {count}' for intent, count in worst)}"
        )
    return lines


def false_alarms(predict: Predict, minutes: float, *, near: bool) -> str:
    """Other speech, plain or `near` commands: how often a command was heard in it, and which most often."""
    wanted, had, found, uttered = minutes * 60 * network.RATE, 0.0, Counter[str](), 0
    seed = SEED
    while had < wanted:
        seed += 1
        said = list(spoken(HELD_OUT, other_speech(TOGETHER * IN_A_ROW, seed, held_out=True, near=near), seed))
        pause = np.zeros(int((kept.LEAD_S + kept.TRAIL_S) * network.RATE), np.int16)
        rows = [[part for each in said[at::TOGETHER] for part in (each.audio, pause)] for at in range(TOGETHER)]
        joined = [np.concatenate(row) for row in rows]
        audio, _ = kept.in_quiet(joined)
        had += sum(map(len, joined))
        uttered += len(said)
        for intents in graph.follow(predict, audio)["intent"]:
            heard = [now for now, before in zip(intents[1:, 0], intents[:-1, 0], strict=True) if now != before]
            found.update(intent for intent in heard if intent in network.phrases())
    hours, alarms = had / network.RATE / 3600, found.total()
    what = "speech near to commands" if near else "other speech"
    most = ", ".join(f"{intent} {count}" for intent, count in found.most_common(3))
    return f"{hours:.2f} h of {what}, {uttered} utterances: {alarms} false alarms, {alarms / hours:.1f} an hour; {most}"


def recorded(predict: Predict, file: Path) -> str:
    """What was heard in a file of raw samples."""
    audio, _ = kept.in_quiet([np.fromfile(file, np.int16)])
    answers = {name: rows[0] for name, rows in graph.follow(predict, audio).items()}
    return f"{file.name}: {'; '.join(VoiceCommand().interpret(answers))}"


def _noisy(audio: Array, ratio_db: float) -> Array:
    """White noise in each row, so much softer than the row's loudest tenth of chunks."""
    levels = np.sqrt((audio.astype(np.float64) ** 2).mean(axis=2))
    level = np.quantile(levels, 0.9, axis=1)[:, None, None] * 10 ** (-ratio_db / 20)
    noise = np.random.default_rng(SEED).normal(0, 1, audio.shape) * level
    return np.asarray(np.clip(audio + noise, -32768, 32767), np.int16)


def main(arguments: Sequence[str] | None = None) -> None:
    """Judge, and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--each", type=int, default=30, help="times that every phrase is spoken (default: 30)")
    parser.add_argument("--minutes", type=float, default=60, help="of other speech (default: 60)")
    parser.add_argument("files", nargs="*", type=Path, help="recordings: INT16 samples at 16 kHz, without a header")
    given = parser.parse_args(arguments)
    recipe = VoiceCommand()
    with tempfile.TemporaryDirectory() as room:
        path = Path(room) / "model.onnx"
        recipe.load(recipe.resolve(None)).write_onnx(path)
        predict = onnx_file.session(path, threads=1)
    for line in commands_table(predict, given.each):
        print(line, flush=True)
    for near in (False, True):
        print(false_alarms(predict, given.minutes, near=near), flush=True)
    for file in given.files:
        print(recorded(predict, file), flush=True)


if __name__ == "__main__":
    main()
