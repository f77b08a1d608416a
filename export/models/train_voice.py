"""Train voice_command's network on espeak-ng's speech: `python -m export.models.train_voice`.

It writes `voice_command.safetensors`, and with `voice_command.npz` the held-out utterances that an export is judged by
(about a quarter of an hour on one core). The held-out speech is only looked at after training, never trained on.

Each training row is an utterance in 2.6 seconds of other circumstances: faster or slower, louder or softer, in a
room, through another microphone, in noise, after some silence. A step's target is "listening" until the last word
ends, and the utterance's class from LATE_S after.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from export.models import voice_command_network as network
from export.models import voice_command_speech as kept
from export.models.voice_command_speech import Utterance
from export.models.voice_synthesis import HELD_OUT, TRAINING, commands, kept_texts, other_speech, spoken

SEED = 0
BATCH = 64
EPOCHS = 12
PEAK_LEARNING_RATE = 2e-3
SPOKEN_EACH = 36
"""How often each phrase is spoken for training."""
OTHERS = 3000
LENGTH = 65 * network.STEP
"""Samples of a training row, 2.6 seconds."""
EARLY_S, LATE_S, LONGEST_S = 0.1, 0.12, 1.0
"""Before the last sound ends, a step is surely "listening" until EARLY_S; after, surely decided from LATE_S on."""
IGNORED = -100


def training_rows(utterances: Sequence[Utterance], draw: np.random.Generator) -> tuple[Any, Any]:
    """Torch FP32 [n, LENGTH] in -1..1 and the targets INT64 [n, steps]."""
    import torch

    classes = network.classes()
    audio = np.zeros((len(utterances), LENGTH), np.float32)
    targets = np.zeros((len(utterances), LENGTH // network.STEP), np.int64)
    ends_s = (np.arange(targets.shape[1]) + 1) * network.STEP / network.RATE
    for row, utterance in enumerate(utterances):
        said = utterance.audio.astype(np.float32) / 32768
        stretched = np.arange(0, len(said) - 1, draw.uniform(0.88, 1.14))
        said = np.interp(stretched, np.arange(len(said)), said).astype(np.float32)
        start = int(network.RATE * draw.uniform(0.05, 1.2 if len(said) < LENGTH // 2 else 0.3))
        stop = min(start + len(said), LENGTH)
        audio[row, start:stop] = said[: stop - start]
        after_s = ends_s - (start + len(said)) / network.RATE
        targets[row, after_s > -EARLY_S] = IGNORED
        targets[row, (after_s > LATE_S) & (after_s < LONGEST_S)] = classes.index(utterance.label)
    return _circumstances(torch.from_numpy(audio), draw), torch.from_numpy(targets)


def _circumstances(audio: Any, draw: np.random.Generator) -> Any:
    """The rows in rooms, at other levels, and in noise."""
    import torch

    count, length = audio.shape

    def uniform(low: float, high: float) -> Any:
        return torch.from_numpy(draw.uniform(low, high, (count, 1)).astype(np.float32))

    times = torch.arange(network.RATE // 4) / network.RATE
    echoes = torch.randn(count, len(times)) * torch.exp(-times / uniform(0.02, 0.09)) * uniform(0.0, 0.06)
    echoes = torch.where(uniform(0, 1) < 0.5, echoes, torch.zeros(()))
    echoes[:, 0] = 1
    size = length + len(times)
    audio = torch.fft.irfft(torch.fft.rfft(audio, n=size) * torch.fft.rfft(echoes, n=size), n=size)[:, :length]
    audio = audio / audio.abs().amax(dim=1, keepdim=True) * 10 ** (uniform(-26, -0.5) / 20)
    level = audio.square().mean(dim=1, keepdim=True).sqrt()
    frequencies = torch.fft.rfftfreq(length, 1 / network.RATE) + 50
    shape = (frequencies / 1000) ** uniform(-1.2, 0.2)  # from brown to white
    noise = torch.fft.irfft(torch.fft.rfft(torch.randn(count, length)) * shape, n=length)
    noise = noise / noise.square().mean(dim=1, keepdim=True).sqrt()
    crowd = audio[torch.from_numpy(draw.permutation(count))] * 10 ** (uniform(-35, -14) / 20)
    crowd = torch.where(uniform(0, 1) < 0.25, crowd, torch.zeros(()))
    return (audio + crowd + noise * level * 10 ** (uniform(-45, -6) / 20)).clamp(-1, 1)


def microphone(frames: Any) -> Any:
    """Log-mel frames [n, frames, BANDS] through other microphones: up to 8 dB more or less, smooth over the bands."""
    import torch

    curve = torch.nn.functional.interpolate(torch.randn(len(frames), 1, 5) * 0.8, size=network.BANDS, mode="linear")
    return frames + curve


def train(utterances: Sequence[Utterance], seed: int = SEED, epochs: int = EPOCHS) -> Any:
    """The trained network."""
    import torch

    torch.manual_seed(seed)
    draw = np.random.default_rng(seed)
    listener = network.network()
    optimizer = torch.optim.AdamW(listener.parameters(), lr=PEAK_LEARNING_RATE, weight_decay=0.01)
    steps, began_s = len(utterances) // BATCH, time.monotonic()
    weights = torch.ones(len(network.classes()))
    weights[0] = 0.3  # most steps are listening
    for epoch in range(epochs):
        order = draw.permutation(len(utterances))
        losses = []
        for step in range(steps):
            audio, targets = training_rows([utterances[at] for at in order[step * BATCH : (step + 1) * BATCH]], draw)
            frames = network.log_mel(audio)
            if epoch == step == 0:
                listener.mean.copy_(frames.mean(dim=(0, 1)))
                listener.deviation.copy_(frames.std(dim=(0, 1)))
            progress = (epoch * steps + step) / (epochs * steps)
            rate = (
                PEAK_LEARNING_RATE
                * min(1, (epoch * steps + step + 1) / 60)
                * (0.5 + 0.5 * math.cos(math.pi * progress))
            )
            for group in optimizer.param_groups:
                group["lr"] = rate
            logits, _ = listener(microphone(frames))
            loss = torch.nn.functional.cross_entropy(
                logits.flatten(0, 1), targets.flatten(), weight=weights, ignore_index=IGNORED, label_smoothing=0.02
            )
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(listener.parameters(), 1.0)
            optimizer.step()
            losses.append(float(loss.detach()))
        print(f"epoch {epoch + 1}  loss {np.mean(losses):.3f}  {time.monotonic() - began_s:.0f} s", flush=True)
    return listener.eval()


def main() -> None:
    """Speak, train, and write the weights and the held-out utterances."""
    import torch
    from safetensors.torch import save_file

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seed", type=int, default=SEED, help="seed of the speech, the weights and the circumstances")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads to train with")
    parser.add_argument("--out", type=Path, default=kept.WEIGHTS, help="safetensors file to write")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    seed = arguments.seed
    kept.write(spoken(HELD_OUT, kept_texts(seed), seed + 1))
    texts = commands(SPOKEN_EACH) + other_speech(OTHERS, seed, held_out=False)
    listener = train(list(spoken(TRAINING, texts, seed)), seed)
    state = {name: tensor.contiguous() for name, tensor in listener.state_dict().items()}
    save_file(state, arguments.out, metadata={"format": "pt"})
    print(
        f"{arguments.out.stat().st_size / 1e6:.2f} MB in {arguments.out}; judge it with `fathom export voice_command`"
    )


if __name__ == "__main__":
    main()
