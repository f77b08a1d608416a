"""Train the small MobileNetV2 on scikit-learn's digits: `python -m export.models.pictures.train`.

It prints the held-out accuracy after every few epochs and writes `digits_mobilenet_v2.safetensors` beside this file
(about eight minutes on two idle cores). The held-out digits are only looked at, never trained on, and the last
weights are the ones kept: nothing is chosen by the held-out figure.

A person's picture of a digit is larger, sharper, off-centre, tilted, black on white or in colour. So each training
batch is a fresh rendering of the 8x8 originals: random scale, shift, tilt and aspect, edges from soft to pen-sharp,
sampled at any resolution, ink and paper of any levels in either polarity, and a little noise.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path
from typing import Any

import numpy as np

from export.models.pictures import digits
from export.models.pictures.mobilenet_v2 import DIGITS_WEIGHTS, MobileNetV2, digits_config
from export.recipe.recipe import Array

SEED = 0
BATCH = 64
EPOCHS = ((64, 16), (128, 44))  # (image size, epochs): most of the learning happens on small, cheap pictures
PEAK_LEARNING_RATE = 3e-3


def augment(pixels: Any, size: int) -> Any:
    """Grey levels FLOAT [n, 1, 8, 8] in 0..1 as varied colour pictures FLOAT [n, 3, size, size] in -1..1."""
    import torch
    from torch.nn import functional

    count = len(pixels)

    def uniform(low: float, high: float, *shape: int) -> Any:
        return torch.rand(count, *(shape or (1, 1, 1))) * (high - low) + low

    scale, aspect = uniform(0.6, 1.12), torch.exp(uniform(-0.18, 0.18))
    angle, shear = uniform(-0.26, 0.26), uniform(-0.2, 0.2)
    cos, sin = torch.cos(angle), torch.sin(angle)
    rows = [
        torch.cat([cos / (scale * aspect), (sin + shear) / scale, uniform(-0.22, 0.22)], dim=-1),
        torch.cat([-sin / scale, cos * aspect / scale, uniform(-0.22, 0.22)], dim=-1),
    ]
    theta = torch.cat([row.reshape(count, 1, 3) for row in rows], dim=1)
    plain = torch.rand(count) < 0.15  # some stay exactly as the data set has them
    theta[plain] = torch.eye(2, 3)
    # One resolution a batch: a picture of 16 pixels a side looks different from one of 128.
    resolution = int(np.random.choice([16, 24, 32, 64, size, size, size]))
    mode = "bicubic" if torch.rand(()) < 0.5 else "bilinear"
    grid = functional.affine_grid(theta, [count, 1, resolution, resolution], align_corners=False)
    ink = functional.grid_sample(pixels, grid, mode=mode, align_corners=False).clamp(0, 1)
    sharp = torch.sigmoid(uniform(5, 30) * (ink - uniform(0.25, 0.5)))
    ink = torch.where((torch.rand(count) < 0.5).reshape(count, 1, 1, 1) & ~plain.reshape(count, 1, 1, 1), sharp, ink)
    ink = functional.interpolate(ink, size=(size, size), mode="bilinear", align_corners=False)
    # Levels of dark and light, a tint on each channel, and which of the two is the paper.
    dark, light = uniform(0, 0.35) * uniform(0, 1, 3, 1, 1), 1 - uniform(0, 0.35) * uniform(0, 1, 3, 1, 1)
    exact = (torch.rand(count) < 0.4).reshape(count, 1, 1, 1)
    dark, light = torch.where(exact, 0.0, dark), torch.where(exact, 1.0, light)
    inverted = torch.rand(count, 1, 1, 1) < 0.5
    ink = torch.where(inverted, 1 - ink, ink)
    image = dark + (light - dark) * ink
    image = image + torch.randn_like(image) * uniform(0, 0.05) * (~exact)
    return image.clamp(0, 1) * 2 - 1


def accuracy(model: Any, pixels: Array, digit: Array) -> float:
    """Held-out accuracy, a fraction, of pictures UINT8 NHWC [n, size, size, 3]."""
    import torch

    model.eval()
    hits = 0
    with torch.inference_mode():
        for start in range(0, len(pixels), BATCH):
            x = torch.from_numpy(pixels[start : start + BATCH]).permute(0, 3, 1, 2).float() / 127.5 - 1
            hits += int((model(pixel_values=x).logits.argmax(1).numpy() == digit[start : start + BATCH]).sum())
    return hits / len(pixels)


def train(seed: int = SEED) -> tuple[Any, float]:
    """The trained model and its held-out accuracy."""
    import torch
    from torch.nn import functional
    from transformers import MobileNetV2ForImageClassification

    torch.manual_seed(seed)
    np.random.seed(seed)
    model: Any = MobileNetV2ForImageClassification(digits_config())
    for module in model.modules():
        # transformers sets 0.997, which in PyTorch makes the running statistics those of the last batch alone.
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 0.1
    model = model.to(memory_format=torch.channels_last)
    training, _ = digits.split()
    pixels = torch.from_numpy(training.pixels).float().unsqueeze(1) / 255
    digit = torch.from_numpy(training.digit)
    held_out = MobileNetV2().evaluation()
    pictures, shown = held_out.inputs["pixels"], held_out.truth["digit"]

    steps_per_epoch = len(pixels) // BATCH
    total = steps_per_epoch * sum(epochs for _, epochs in EPOCHS)
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK_LEARNING_RATE, weight_decay=0.02)
    sizes = [size for size, epochs in EPOCHS for _ in range(epochs)]
    step, began = 0, time.monotonic()
    for epoch, size in enumerate(sizes, start=1):
        model.train()
        order = torch.randperm(len(pixels))
        for start in range(0, steps_per_epoch * BATCH, BATCH):
            rows = order[start : start + BATCH]
            progress = step / total
            rate = PEAK_LEARNING_RATE * min(1.0, step / 60) * (0.5 + 0.5 * math.cos(math.pi * progress))
            for group in optimizer.param_groups:
                group["lr"] = rate
            images = augment(pixels[rows], size).contiguous(memory_format=torch.channels_last)
            loss = functional.cross_entropy(model(pixel_values=images).logits, digit[rows], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
        if epoch % 4 == 0:
            figure = accuracy(model, pictures, shown)
            elapsed_s = time.monotonic() - began
            print(
                f"epoch {epoch}  loss {loss.item():.3f}  held-out accuracy {figure:.4f}  {elapsed_s:.0f} s", flush=True
            )
    return model, accuracy(model, pictures, shown)


def main() -> None:
    """Train, print the held-out accuracy, write the weights."""
    import torch
    from safetensors.torch import save_file

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seed", type=int, default=SEED, help="seed of weights, order and augmentation")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads to train with")
    parser.add_argument("--out", type=Path, default=DIGITS_WEIGHTS, help="safetensors file to write")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    model, figure = train(arguments.seed)
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items() if "num_batches" not in name}
    save_file(state, arguments.out, metadata={"format": "pt"})
    print(f"held-out accuracy {figure:.4f}, {arguments.out.stat().st_size / 1e6:.2f} MB in {arguments.out}")


if __name__ == "__main__":
    main()
