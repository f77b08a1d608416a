"""The network that hears commands: what it hears them in (log-mel frames) and what it is made of, for training and
export alike.

A step is 40 ms: four frames of 40 mel bands. Convolutions over what came before it, ever further apart, give each step
a probability for "listening" (nothing is decided yet), for every intent, and for other speech.
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
WIDTH, DILATIONS = 96, (1, 2, 4, 8, 16)
"""Channels, and how many steps lie between the three that each convolution sees: 2.5 seconds in all."""
CONTEXT = 2 * sum(DILATIONS)
"""Steps before a chunk that the convolutions keep, one behind the other."""
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


def bands(audio: Any) -> Any:
    """The power in mel bands of torch FP32 [n, samples] in -1..1: FP32 [n, frames, BANDS]. The first frame begins TAIL
    samples before."""
    import torch

    frames = torch.nn.functional.pad(audio, (TAIL, 0)).unfold(1, FRAME, HOP) * torch.from_numpy(window())
    return torch.fft.rfft(frames, n=TRANSFORM).abs().square() @ torch.from_numpy(mel_weights())


def log_mel(audio: Any) -> Any:
    """What the network hears of torch FP32 [n, samples] in -1..1: FP32 [n, frames, BANDS]."""
    return (bands(audio) + FLOOR).log()


def network() -> Any:
    """The network with random weights; a class made here because its base needs torch."""
    import torch

    class Listener(torch.nn.Module):  # type: ignore[misc]
        """Log-mel frames FP32 [n, frames, BANDS], and the state of an earlier call FP32 [n, WIDTH, CONTEXT] -> logits
        [n, steps, classes], and the state after it."""

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mean", torch.zeros(BANDS))
            self.register_buffer("deviation", torch.ones(BANDS))
            self.enter = torch.nn.Conv1d(STEP // HOP * BANDS, WIDTH, 1)
            self.look_back = torch.nn.ModuleList(torch.nn.Conv1d(WIDTH, WIDTH, 3, dilation=each) for each in DILATIONS)
            self.normalize = torch.nn.ModuleList(torch.nn.BatchNorm1d(WIDTH) for _ in range(1 + len(DILATIONS)))
            self.leave = torch.nn.Linear(WIDTH, len(classes()))

        def forward(self, frames: Any, state: Any = None) -> tuple[Any, Any]:
            scaled = (frames - self.mean) / self.deviation
            steps = scaled.reshape(len(scaled), -1, STEP // HOP * BANDS).transpose(1, 2)
            hidden = torch.relu(self.normalize[0](self.enter(steps)))
            state = torch.zeros(len(frames), WIDTH, CONTEXT) if state is None else state
            after = []
            parts = state.split([2 * dilation for dilation in DILATIONS], dim=2)
            for convolution, normalize, before in zip(self.look_back, self.normalize[1:], parts, strict=True):
                seen = torch.cat([before, hidden], dim=2)
                after.append(seen[:, :, -before.shape[2] :])
                hidden = hidden + torch.relu(normalize(convolution(seen)))
            return self.leave(hidden.transpose(1, 2)), torch.cat(after, dim=2)

    return Listener()
