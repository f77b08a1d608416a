"""Train voice_command's network on espeak-ng's speech: `python -m export.models.voice.train`.

It writes `voice_command.safetensors`, and with `voice_command.npz` the held-out utterances that an export is judged by
(about a quarter of an hour on one idle core). The held-out speech is only looked at after training, never trained on.

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

from export.models.voice import voice_command_network as network
from export.models.voice import voice_command_speech as kept
from export.models.voice.voice_command_speech import Utterance
from export.models.voice.voice_synthesis import HELD_OUT, TRAINING, commands, kept_texts, other_speech, spoken

SEED = 0
BATCH = 32
CYCLES = ((12, 4e-3, 0.0), (8, 3e-3, 0.5), (32, 4e-3, 0.25))
"""Epochs of each cycle, its first learning rate, which falls to 0, and the share of its rows that stay as spoken."""
SPOKEN_EACH = 36
"""How often each phrase is spoken for training."""
OTHERS = 3000
FRAMES = 260
"""Of a training row, 2.6 seconds."""
EARLY_S, LATE_S, LONGEST_S = 0.1, 0.12, 1.0
"""Before the last sound ends, a step is surely "listening" until EARLY_S; after, surely decided from LATE_S on."""
IGNORED = -100


def heard(utterance: Utterance) -> Any:
    """The power of an utterance in mel bands, torch FP32 [frames, BANDS]."""
    import torch

    return network.bands(torch.from_numpy(utterance.audio.astype(np.float32) / 32768)[None])[0]


def training_rows(said: Sequence[tuple[str, Any]], draw: np.random.Generator, *, plain: float) -> tuple[Any, Any]:
    """Log-mel frames FP32 [n, FRAMES, BANDS] of labels with the power of their utterances, and the targets INT64
    [n, steps]. About a share `plain` of the rows is as spoken, but for its level."""
    import torch

    classes, per_step = network.classes(), network.STEP // network.HOP
    power = torch.zeros(len(said), FRAMES, network.BANDS)
    targets = np.zeros((len(said), FRAMES // per_step), np.int64)
    ends_s = (np.arange(targets.shape[1]) + 1) * network.STEP / network.RATE
    for row, (label, bands) in enumerate(said):
        length = int(len(bands) / draw.uniform(0.85, 1.18))
        stretched = torch.nn.functional.interpolate(bands.T[None], size=length, mode="linear")[0].T
        start = int(draw.uniform(5, 120 if length < FRAMES // 2 else 30))
        part = stretched[: FRAMES - start]
        power[row, start : start + len(part)] = part
        after_s = ends_s - (start + length) * network.HOP / network.RATE
        targets[row, after_s > -EARLY_S] = IGNORED
        targets[row, (after_s > LATE_S) & (after_s < LONGEST_S)] = classes.index(label)
    levels = torch.from_numpy(10 ** draw.uniform(-2.5, 0.6, (len(said), 1, 1)).astype(np.float32))
    power = power * levels
    changed = _circumstances(power, draw)
    if plain:
        changed = torch.where(torch.from_numpy(draw.uniform(size=(len(said), 1, 1)) < plain), power, changed)
    return (changed + network.FLOOR).log(), torch.from_numpy(targets)


def _circumstances(power: Any, draw: np.random.Generator) -> Any:
    """The rows in rooms, through microphones, among other people and in noise."""
    import torch

    count = len(power)

    def uniform(low: float, high: float) -> Any:
        return torch.from_numpy(draw.uniform(low, high, (count, 1, 1)).astype(np.float32))

    # A room: power that decays over 250 ms, in one half of the rows.
    decay = torch.exp(-torch.arange(1, 26) / uniform(2, 9)) * uniform(0, 0.25) * (uniform(0, 1) < 0.5)
    kernels = torch.cat([decay.flip(2), torch.ones(count, 1, 1)], dim=2).repeat_interleave(network.BANDS, dim=0)
    padded = torch.nn.functional.pad(power.transpose(1, 2).reshape(1, -1, FRAMES), (25, 0))
    power = torch.nn.functional.conv1d(padded, kernels, groups=len(kernels)).reshape(count, -1, FRAMES).transpose(1, 2)
    # A microphone: up to 8 dB more or less, smooth over the bands.
    curve = torch.nn.functional.interpolate(torch.randn(count, 1, 5) * 0.8, size=network.BANDS, mode="linear")
    power = power * torch.exp(curve)
    crowd = power[torch.from_numpy(draw.permutation(count))] * 10 ** (uniform(-35, -14) / 10)
    crowd = crowd * (uniform(0, 1) < 0.25)
    # Noise from brown to white. The more bins of the transform a band has, the steadier is its power.
    weights = torch.from_numpy(network.mel_weights())
    bins = torch.arange(1, len(weights) + 1) / 32
    shape = (bins ** uniform(-2.4, 0.4)) @ weights
    steadiness = (weights > 0).sum(dim=0).float().expand(power.shape)
    noise = torch._standard_gamma(steadiness) / steadiness * shape / shape.mean(dim=2, keepdim=True)
    level = power.mean(dim=(1, 2), keepdim=True)
    return power + crowd + noise * level * 10 ** (uniform(-65, -6) / 10)


def train(utterances: Sequence[Utterance], seed: int = SEED) -> Any:
    """The trained network."""
    import torch

    torch.manual_seed(seed)
    listener = network.network()
    said = [(utterance.label, heard(utterance)) for utterance in utterances]
    for number in range(len(CYCLES)):
        cycle(listener, said, number, seed)
    return listener.eval()


def cycle(listener: Any, said: Sequence[tuple[str, Any]], number: int, seed: int) -> None:
    """Train for one cycle, on rows and with noise drawn by the seed and the cycle's number."""
    import torch

    epochs, peak, plain = CYCLES[number]
    if number:
        torch.manual_seed(seed + number)
    draw = np.random.default_rng(seed + number)
    optimizer = torch.optim.AdamW(listener.parameters(), lr=peak, weight_decay=0.01)
    steps, began_s = len(said) // BATCH, time.monotonic()
    weights = torch.ones(len(network.classes()))
    weights[0], weights[-1] = 0.3, 0.4  # which most steps are
    for epoch in range(epochs):
        order = draw.permutation(len(said))
        losses = []
        for step in range(steps):
            chosen = [said[at] for at in order[step * BATCH : (step + 1) * BATCH]]
            frames, targets = training_rows(chosen, draw, plain=plain)
            if number == epoch == step == 0:
                listener.mean.copy_(frames.mean(dim=(0, 1)))
                listener.deviation.copy_(frames.std(dim=(0, 1)))
            done = epoch * steps + step
            for group in optimizer.param_groups:
                falling = 0.5 + 0.5 * math.cos(math.pi * done / (epochs * steps))
                group["lr"] = peak * min(1, (done + 1) / 60) * falling
            logits, _ = listener(frames)
            loss = torch.nn.functional.cross_entropy(
                logits.flatten(0, 1), targets.flatten(), weight=weights, ignore_index=IGNORED, label_smoothing=0.02
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
        print(f"epoch {epoch + 1}  loss {np.mean(losses):.3f}  {time.monotonic() - began_s:.0f} s", flush=True)


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
