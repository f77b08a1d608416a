"""Rendered frames of a road camera, and the truth about them: boxes of six classes of objects.

A frame is 640x360 pixels and follows from its seed alone: weather, day or night, horizon, clutter along the road, and
up to some fifteen objects from far to near, so that near ones hide parts of others. `road_shapes` draws them. Seeds
below FIRST_HELD_OUT are for training and calibration, those from there on are never trained on.

`python -m export.models.road.road_frames 26 frame.jpg` writes the held-out frame of that number.
"""

from __future__ import annotations

import functools
import sys
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from export.models.road.road_canvas import Canvas, Colour
from export.models.road.road_shapes import SHAPES, clutter
from export.recipe.recipe import Array

if TYPE_CHECKING:
    from PIL import Image

WIDTH, HEIGHT = 640, 360
LABELS = tuple(SHAPES)
FIRST_HELD_OUT = 1_000_000_000
MOST_TRIED = 16
"""Objects that are tried at places by chance; those that hide others are left out."""
_SMALLEST_PX = 9, 22
"""Of the shorter and of the longer side of an object's box."""
_MOST_HIDDEN = 0.45
"""The share of an object's box that those in front of it may cover."""
_LEAST_INSIDE = 0.6
"""The share of an object's box that lies inside the frame."""


@dataclass(frozen=True)
class Frame:
    """A picture, the boxes of its objects FP32 [n, 4] and the place of each one's class in LABELS, INT64 [n].

    A box is left, top, right, bottom, as shares of the picture's width and height.
    """

    image: Image.Image
    boxes: Array
    classes: Array


def frame(seed: int) -> Frame:
    """The frame of this seed."""
    from PIL import Image

    rng = np.random.default_rng([seed, 23])
    night = bool(rng.random() < 0.35)
    horizon = rng.uniform(0.3, 0.5) * HEIGHT
    canvas = Canvas(WIDTH, HEIGHT, glowing=night)
    _background(canvas, rng, horizon, night=night)
    boxes, classes = _objects(canvas, rng, horizon)
    pixels = _camera(canvas, rng, night=night)
    scale = np.array([WIDTH, HEIGHT, WIDTH, HEIGHT])
    truth = np.array(boxes, np.float64).reshape(-1, 4) / scale
    return Frame(Image.fromarray(pixels), truth.clip(0, 1).astype(np.float32), np.array(classes, np.int64))


def jpeg(image: Image.Image, quality: int = 90) -> bytes:
    """The picture as a camera sends it."""
    buffer = BytesIO()
    image.save(buffer, format="JPEG", quality=quality)
    return buffer.getvalue()


def opened(file: bytes) -> Image.Image:
    """The picture of a file's bytes."""
    from PIL import Image

    return Image.open(BytesIO(file))


def _background(canvas: Canvas, rng: np.random.Generator, horizon: float, *, night: bool) -> None:
    """Sky, ground and the road to its vanishing point, with what stands along it and is no object."""
    sky = np.array([[130, 175, 230], [185, 190, 195], [235, 180, 150]])[rng.integers(3)] + rng.uniform(-30, 20, 3)
    ground = np.array([[95, 120, 70], [130, 125, 115], [150, 130, 95]])[rng.integers(3)] + rng.uniform(-25, 25, 3)
    tar = np.full(3, rng.uniform(55, 130)) + rng.uniform(-8, 8, 3)
    canvas.rectangle(0, 0, WIDTH, horizon, _colour(sky))
    for band in range(4):
        canvas.rectangle(0, horizon * band / 4, WIDTH, horizon * (band + 1) / 4, _colour(sky * (0.85 + 0.05 * band)))
    canvas.rectangle(0, horizon, WIDTH, HEIGHT, _colour(ground))
    for _ in range(rng.integers(4, 14)):
        clutter(canvas, rng, rng.uniform(-40, WIDTH), horizon + rng.uniform(-2, 14), night=night)
    vanishing = WIDTH * rng.uniform(0.35, 0.65)
    left, right = rng.uniform(-700, -40), WIDTH + rng.uniform(40, 700)
    kerb = rng.uniform(20, 160)
    pavement = _colour(ground * 0.5 + rng.uniform(60, 110))
    canvas.polygon([(vanishing, horizon), (left - kerb, HEIGHT), (right + kerb, HEIGHT)], pavement)
    canvas.polygon([(vanishing, horizon), (left, HEIGHT), (right, HEIGHT)], _colour(tar))
    paint = _colour(np.full(3, rng.uniform(170, 245)))
    lanes = int(rng.integers(2, 5))
    for lane in range(1, lanes):
        foot = left + (right - left) * lane / lanes
        for begin in np.linspace(0.06, 0.95, int(rng.integers(5, 9))) ** 2:
            _dash(canvas, vanishing, horizon, foot, begin, begin * 1.35, paint)
    if rng.random() < 0.4:  # a zebra crossing
        near, far = (share := rng.uniform(0.2, 0.7)) * 1.25, share
        for stripe in np.linspace(0, 1, 14)[:-1]:
            edges = (left + (right - left) * stripe, left + (right - left) * (stripe + 0.035))
            corners = [(edges[0], far), (edges[1], far), (edges[1], near), (edges[0], near)]
            canvas.polygon(
                [(vanishing + (x - vanishing) * y, horizon + (HEIGHT - horizon) * y) for x, y in corners], paint
            )


def _dash(
    canvas: Canvas, vanishing: float, horizon: float, foot: float, begin: float, end: float, paint: Colour
) -> None:
    """One stroke of a lane marking, between two shares of the way from the horizon to the camera."""
    points = []
    for share, side in ((begin, -4), (begin, 4), (end, 4), (end, -4)):
        points.append((vanishing + (foot + side - vanishing) * share, horizon + (HEIGHT - horizon) * share))
    canvas.polygon(points, paint)


def _objects(
    canvas: Canvas, rng: np.random.Generator, horizon: float
) -> tuple[list[tuple[float, float, float, float]], list[int]]:
    """Draw objects from far to near; returns the boxes, in pixels, and the classes of those that can be seen."""
    plan = []
    for _ in range(int(rng.integers(2, MOST_TRIED + 1))):
        near = rng.uniform(0.1, 0.62) if rng.random() < 0.75 else rng.uniform(0.1, 1.0)
        plan.append((near, int(rng.integers(len(LABELS))), rng.uniform(-20, WIDTH + 20)))
    placed: list[tuple[Array, int, Array]] = []  # a box, its class, and what is not hidden of it
    for near, kind, x in sorted(plan):
        foot = horizon + (HEIGHT - horizon) * near
        shape = SHAPES[LABELS[kind]](rng, x, foot, near * 105)
        left, top, right, bottom = shape.box
        box = np.array([max(left, 0), max(top, 0), min(right, WIDTH), min(bottom, HEIGHT)])
        inside = _area(box) / max((right - left) * (bottom - top), 1e-9)
        sides = sorted((box[2] - box[0], box[3] - box[1]))
        if inside < _LEAST_INSIDE or sides[0] < _SMALLEST_PX[0] or sides[1] < _SMALLEST_PX[1]:
            continue
        covered = [_hide(seen, other, box) for other, _, seen in placed]
        if any(1 - seen.mean() > _MOST_HIDDEN for seen in covered):
            continue
        shape.draw(canvas)
        placed = [(other, was, seen) for (other, was, _), seen in zip(placed, covered, strict=True)]
        placed.append((box, kind, np.ones((8, 8), bool)))
    return [tuple(box) for box, _, _ in placed], [kind for _, kind, _ in placed]


def _hide(seen: Array, box: Array, front: Array) -> Array:
    """What is left to see of a box, on a grid of its parts, when something is drawn over it."""
    xs = box[0] + (box[2] - box[0]) * (np.arange(8) + 0.5) / 8
    ys = box[1] + (box[3] - box[1]) * (np.arange(8) + 0.5) / 8
    over = ((xs > front[0]) & (xs < front[2]))[None, :] & ((ys > front[1]) & (ys < front[3]))[:, None]
    return np.asarray(seen & ~over)


def _area(box: Array) -> float:
    return float(max(box[2] - box[0], 0) * max(box[3] - box[1], 0))


def _camera(canvas: Canvas, rng: np.random.Generator, *, night: bool) -> Array:
    """What the camera makes of it: darkness with lights, fog, blur, exposure and noise; UINT8 [HEIGHT, WIDTH, 3]."""
    from PIL.Image import Resampling

    image = canvas.image
    if rng.random() < 0.4:  # out of focus
        share = rng.uniform(0.45, 0.8)
        image = image.resize((round(WIDTH * share), round(HEIGHT * share)), Resampling.BILINEAR)
        image = image.resize((WIDTH, HEIGHT), Resampling.BILINEAR)
    pixels = np.array(image, np.float32)
    if night:
        pixels *= rng.uniform(0.22, 0.5) * np.array([0.85, 0.9, 1.1])
        halo = canvas.glow.reduce(int(rng.integers(6, 13))).resize((WIDTH, HEIGHT), Resampling.BICUBIC)
        np.maximum(pixels, np.asarray(canvas.glow), out=pixels)
        pixels += np.float32(rng.uniform(0.5, 1.0)) * np.asarray(halo)
    else:
        pixels *= rng.uniform(0.65, 1.15)
    if rng.random() < 0.3:  # fog
        share = rng.uniform(0.1, 0.4)
        pixels *= 1 - share
        pixels += share * (60 if night else 200)
    sigma = rng.uniform(1, 10 if night else 7)
    bank = _noise()
    row, column = rng.integers(bank.shape[0] - HEIGHT), rng.integers(bank.shape[1] - WIDTH)
    pixels += np.float32(sigma) * bank[row : row + HEIGHT, column : column + WIDTH]
    np.clip(pixels, 0, 255, out=pixels)
    return pixels.astype(np.uint8)


@functools.cache
def _noise() -> Array:
    """Of a sensor, standard normal; frames take different parts of it."""
    return np.random.default_rng(7).standard_normal((2 * HEIGHT, 2 * WIDTH, 3), np.float32)


def _colour(values: Array) -> Colour:
    red, green, blue = np.clip(values, 0, 255).astype(int).tolist()
    return red, green, blue


if __name__ == "__main__":
    Path(sys.argv[2]).write_bytes(jpeg(frame(FIRST_HELD_OUT + int(sys.argv[1])).image))
