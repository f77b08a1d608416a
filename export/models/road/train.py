"""Train the road scene detector on rendered frames: `python -m export.models.road.train`.

Every frame is rendered for the training. It prints the loss and, at the end, the mean
average precision on held-out frames, and writes `road_scene.safetensors` beside this file in half precision. The
weights kept are the running mean over the last steps; nothing is chosen by the held-out figure.
"""

from __future__ import annotations

import argparse
import math
import time
from collections import deque
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np

from export.models.pictures.images import Preprocessor
from export.models.road import detections, road_frames, road_network
from export.models.road.road_frames import LABELS
from export.models.road.road_network import HEIGHT, STRIDE, WIDTH
from export.recipe.recipe import Array, Arrays

SEED = 0
BATCH, STEPS = 8, 1800
PEAK_LEARNING_RATE = 3e-3
KEPT_SHARE = 0.995
"""Of the running mean of the weights, that stays at each step."""
_JPEG_SHARE = 0.3
_NEW_SHARE, _KEPT = 0.35, 640
"""Of the frames of a batch are rendered for it; the others are among the last so many."""


class Frames:
    """Batches of frames without end: each rendered once, and used about three times, mirrored or not."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng([seed, 1])
        self._next = seed * 10_000_000
        self._rule = Preprocessor(size={"height": HEIGHT, "width": WIDTH})
        self._recent: deque[tuple[Array, Array, Array]] = deque(maxlen=_KEPT)

    def batch(self) -> tuple[Array, list[Array], list[Array]]:
        """Pixels UINT8 [BATCH, HEIGHT, WIDTH, 3], and of each frame the boxes in pixels and the classes."""
        chosen = []
        for _ in range(BATCH):
            if len(self._recent) < BATCH or self._rng.random() < _NEW_SHARE:
                self._recent.append(self._rendered())
            pixels, boxes, classes = self._recent[int(self._rng.integers(len(self._recent)))]
            if self._rng.random() < 0.5:
                pixels = pixels[:, ::-1]
                boxes = (boxes[:, [2, 1, 0, 3]] * [-1, 1, -1, 1] + [WIDTH, 0, WIDTH, 0]).astype(np.float32)
            chosen.append((pixels, boxes, classes))
        return np.stack([each[0] for each in chosen]), [each[1] for each in chosen], [each[2] for each in chosen]

    def _rendered(self) -> tuple[Array, Array, Array]:
        made = road_frames.frame(self._next)
        self._next += 1
        image = made.image
        if self._rng.random() < _JPEG_SHARE:
            image = road_frames.opened(road_frames.jpeg(image, int(self._rng.integers(60, 96))))
        return self._rule(image), made.boxes * np.array([WIDTH, HEIGHT, WIDTH, HEIGHT], np.float32), made.classes


def targets(boxes: list[Array], classes: list[Array]) -> tuple[Array, Array, Array]:
    """What the network should answer: scores [n, classes, rows, columns] that fall off from 1 at an object's middle
    like a bell, the sides of the box [n, 4, rows, columns] in pixels, and how much a cell's box counts."""
    rows, columns = HEIGHT // STRIDE, WIDTH // STRIDE
    scores = np.zeros((len(boxes), len(LABELS), rows, columns), np.float32)
    sides = np.zeros((len(boxes), 4, rows, columns), np.float32)
    weights = np.zeros((len(boxes), rows, columns), np.float32)
    for n, (of_frame, kinds) in enumerate(zip(boxes, classes, strict=True)):
        order = np.argsort([-(box[2] - box[0]) * (box[3] - box[1]) for box in of_frame])
        for box, kind in zip(of_frame[order], kinds[order], strict=True):
            x, y = (box[0] + box[2]) / 2 / STRIDE - 0.5, (box[1] + box[3]) / 2 / STRIDE - 0.5
            across, up = max((box[2] - box[0]) / STRIDE / 7, 0.5), max((box[3] - box[1]) / STRIDE / 7, 0.5)
            column, row = min(max(round(float(x)), 0), columns - 1), min(max(round(float(y)), 0), rows - 1)
            ys = np.arange(max(row - math.ceil(3 * up), 0), min(row + math.ceil(3 * up) + 1, rows))
            xs = np.arange(max(column - math.ceil(3 * across), 0), min(column + math.ceil(3 * across) + 1, columns))
            bell = np.exp(-(((xs - column) / across) ** 2)[None, :] / 2 - (((ys - row) / up) ** 2)[:, None] / 2)
            window = np.ix_(ys, xs)
            scores[n, kind][window] = np.maximum(scores[n, kind][window], bell)
            middle = bell > 0.3
            weights[n][window] = np.where(middle, bell, weights[n][window])
            for side in range(4):
                sides[n, side][window] = np.where(middle, box[side], sides[n, side][window])
    return scores, sides, weights


def loss_of(raw_scores: Any, distances: Any, wanted: Sequence[Any], centres: Any) -> Any:
    """Focal loss of the scores, with less weight near an object's middle, and generalised IoU of the boxes."""
    import torch

    scores, sides, weights = wanted
    probability = raw_scores.sigmoid().clamp(1e-5, 1 - 1e-5)
    hit = scores == 1
    found = torch.where(hit, (1 - probability) ** 2 * probability.log(), 0).sum()
    passed = torch.where(hit, 0, (1 - scores) ** 4 * probability**2 * (1 - probability).log()).sum()
    objects = hit.sum().clamp(min=1)
    rows, columns = scores.shape[2:]
    middle = centres.T.reshape(2, rows, columns)
    given = torch.stack(
        [
            middle[0] - distances[:, 0] * STRIDE,
            middle[1] - distances[:, 1] * STRIDE,
            middle[0] + distances[:, 2] * STRIDE,
            middle[1] + distances[:, 3] * STRIDE,
        ],
        dim=1,
    )
    chosen = weights > 0
    given, right, counted = given.permute(0, 2, 3, 1)[chosen], sides.permute(0, 2, 3, 1)[chosen], weights[chosen]
    overlap = (torch.minimum(given, right)[:, 2:] - torch.maximum(given, right)[:, :2]).clamp(min=0).prod(dim=1)
    around = (torch.maximum(given, right)[:, 2:] - torch.minimum(given, right)[:, :2]).prod(dim=1)
    union = (given[:, 2:] - given[:, :2]).prod(dim=1) + (right[:, 2:] - right[:, :2]).prod(dim=1) - overlap
    generalised = overlap / union - (around - union) / around
    boxes = ((1 - generalised) * counted).sum() / counted.sum().clamp(min=1)
    return -(found + passed) / objects + 2 * boxes


def train(seed: int, steps: int, report: Any = print) -> Any:
    """The trained network."""
    import torch

    torch.manual_seed(seed)
    network = road_network.build(len(LABELS)).to(memory_format=torch.channels_last)
    kept = deepcopy(network).eval()
    optimizer = torch.optim.AdamW(network.parameters(), lr=PEAK_LEARNING_RATE, weight_decay=0.02)
    centres = torch.from_numpy(road_network.centres())
    frames, began, mean = Frames(seed), time.monotonic(), 0.0
    for step in range(steps):
        pixels, boxes, classes = frames.batch()
        rate = PEAK_LEARNING_RATE * min(1.0, (step + 1) / 100) * (0.51 + 0.49 * math.cos(math.pi * step / steps))
        for group in optimizer.param_groups:
            group["lr"] = rate
        inputs = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255  # channels last already
        wanted = [torch.from_numpy(values) for values in targets(boxes, classes)]
        with torch.autocast("cpu", dtype=torch.bfloat16):  # half the time where the processor has it
            raw_scores, distances = network(inputs)
        loss = loss_of(raw_scores.float(), distances.float(), wanted, centres)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 10.0)
        optimizer.step()
        share = min(KEPT_SHARE, (step + 1) / (step + 10))
        with torch.no_grad():
            for mine, new in zip(kept.state_dict().values(), network.state_dict().values(), strict=True):
                if mine.dtype.is_floating_point:
                    mine.lerp_(new, 1 - share)
        mean = loss.item() if not step else 0.98 * mean + 0.02 * loss.item()
        if (step + 1) % 50 == 0:
            report(f"step {step + 1}  loss {mean:.3f}  {time.monotonic() - began:.0f} s", flush=True)
    return kept


def main() -> None:
    """Train, write the weights, print the held-out figure."""
    import torch
    from safetensors.torch import save_file

    from export.models.road.road_scene import WEIGHTS, RoadScene

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seed", type=int, default=SEED, help="seed of frames, order and weights")
    parser.add_argument("--steps", type=int, default=STEPS, help=f"batches of {BATCH} frames to train on")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads to train with")
    parser.add_argument("--out", type=Path, default=WEIGHTS, help="safetensors file to write")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    network = train(arguments.seed, arguments.steps)
    state = {
        name: (tensor.half() if tensor.is_floating_point() else tensor).contiguous()
        for name, tensor in network.state_dict().items()
        if "num_batches" not in name
    }
    save_file(state, arguments.out, metadata={"format": "pt"})
    module = road_network.detector(network)

    def predict(arrays: Arrays) -> dict[str, Array]:
        with torch.inference_mode():
            return detections.suppress(module(torch.from_numpy(arrays["pixels"])).numpy())

    figures = RoadScene().accuracy(predict)
    print(f"held-out map50 {figures['map50']:.4f}, {arguments.out.stat().st_size / 1e6:.2f} MB in {arguments.out}")


if __name__ == "__main__":
    main()
