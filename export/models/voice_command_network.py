"""The network that hears commands: what it hears them in (log-mel frames) and what it is made of, for training and
export alike.

A step is 40 ms: four frames of 40 mel bands. Two layers of gated recurrent units follow the steps, and each step has a
probability for "listening" (nothing is decided yet), for every intent, and for other speech.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from export.recipe.recipe import Array

COMMANDS = Path(__file__).with_name("voice_command.txt")
"""`intent: phrase | phrase` on each line, in the order of the network's outputs."""

RATE = 16_000
CHUNK = 1280
"""Samples of one request, 80 ms."""
FRAME, HOP, TRANSFORM, BANDS = 400, 160, 512, 40
"""Samples of a frame and between two; the length of its Fourier transform; mel bands."""
TAIL = FRAME - HOP
"""Samples before a chunk that its first frame begins with."""
STEP = 4 * HOP
WIDTH = 128
FLOOR = 1e-7
"""Added to the power of every band: -70 dB of full scale."""

LISTENING, OTHER = "", "other"


def phrases() -> dict[str, list[str]]:
    """The phrases that people say, by intent."""
    lines = (line.partition(": ") for line in COMMANDS.read_text(encoding="utf-8").splitlines())
    return {intent: said.split(" | ") for intent, _, said in lines}


def classes() -> tuple[str, ...]:
    """The network's outputs: "" for listening, the intents, other speech."""
    return (LISTENING, *phrases(), OTHER)


def window() -> Array:
    """Hann's window of one frame, FP32 [FRAME]."""
    return np.asarray(0.5 - 0.5 * np.cos(2 * np.pi * np.arange(FRAME) / FRAME), np.float32)


def mel_weights() -> Array:
    """Triangular filters of equal distance in mel from 60 Hz to 7.6 kHz: FP32 [TRANSFORM / 2 + 1, BANDS]."""

    def mel(hertz: Any) -> Any:
        return 2595 * np.log10(1 + hertz / 700)

    corners = np.linspace(mel(60), mel(7600), BANDS + 2)
    bins = mel(np.arange(TRANSFORM // 2 + 1) * RATE / TRANSFORM)[:, None]
    rising = (bins - corners[:-2]) / (corners[1:-1] - corners[:-2])
    falling = (corners[2:] - bins) / (corners[2:] - corners[1:-1])
    return np.asarray(np.maximum(0, np.minimum(rising, falling)), np.float32)


def log_mel(audio: Any) -> Any:
    """Torch FP32 [n, samples] in -1..1 as FP32 [n, frames, BANDS]; the first frame begins TAIL samples before."""
    import torch

    frames = torch.nn.functional.pad(audio, (TAIL, 0)).unfold(1, FRAME, HOP) * torch.from_numpy(window())
    power = torch.fft.rfft(frames, n=TRANSFORM).abs().square()
    return torch.log(power @ torch.from_numpy(mel_weights()) + FLOOR)


def network() -> Any:
    """The network with random weights; a class made here because its base needs torch."""
    import torch

    class Listener(torch.nn.Module):  # type: ignore[misc]
        """Log-mel frames FP32 [n, frames, BANDS], and the state of an earlier call -> logits [n, steps, classes], and
        the state after it."""

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mean", torch.zeros(BANDS))
            self.register_buffer("deviation", torch.ones(BANDS))
            self.enter = torch.nn.Linear(STEP // HOP * BANDS, WIDTH)
            self.recur = torch.nn.GRU(WIDTH, WIDTH, num_layers=2, batch_first=True)
            self.leave = torch.nn.Linear(WIDTH, len(classes()))

        def forward(self, frames: Any, state: Any = None) -> tuple[Any, Any]:
            scaled = (frames - self.mean) / self.deviation
            steps = scaled.reshape(len(scaled), -1, STEP // HOP * BANDS)
            recurred, state = self.recur(torch.relu(self.enter(steps)), state)
            return self.leave(recurred), state

    return Listener()
