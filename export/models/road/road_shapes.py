"""The drawings that rendered road frames are made of: six kinds of objects, and clutter that is none of them.

An object is drawn in metres from the point where it stands, x to the right and y up. Its box encloses the parts that
belong to it: of a sign or a traffic light the plate or the housing, not the pole.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from export.models.road.road_canvas import Canvas, Colour, Points, Shape
from export.recipe.recipe import Array

Rng = np.random.Generator

_BLACK, _WHITE, _RED, _TYRE = (10, 10, 10), (240, 240, 240), (200, 25, 25), (25, 25, 28)
_HEADLAMP, _TAILLAMP, _GLASS, _HUB = (255, 250, 215), (220, 20, 20), (60, 75, 90), (150, 150, 155)
_SKIN = ((235, 200, 175), (200, 150, 115), (140, 95, 65), (90, 60, 45))


def car(rng: Rng, x: float, foot: float, scale: float) -> Shape:
    """From behind, from the front or from the side."""
    shape, paint = Shape(x, foot, scale), _paint(rng)
    glass = _shade((70, 85, 100), rng.uniform(0.5, 1.3))
    if rng.random() < 0.6:
        half, height = rng.uniform(0.82, 0.98), rng.uniform(1.35, 1.75)
        belt = height * rng.uniform(0.52, 0.6)
        for side in (-1, 1):
            shape.rectangle(side * half * 0.95, 0, side * half * 0.62, 0.35, _TYRE)
        shape.polygon([(-half, belt), (half, belt), (half * 0.78, height), (-half * 0.78, height)], paint)
        shape.polygon(
            [(-half * 0.84, belt), (half * 0.84, belt), (half * 0.7, height * 0.94), (-half * 0.7, height * 0.94)],
            glass,
        )
        shape.rectangle(-half, 0.22, half, belt, paint)
        shape.rectangle(-half, 0.22, half, 0.38, _shade(paint, 0.55))
        lamp = (_HEADLAMP, _TAILLAMP)[rng.integers(2)]
        for side in (-1, 1):
            shape.rectangle(side * half * 0.96, belt * 0.62, side * half * 0.66, belt * 0.88, lamp, glows=True)
        shape.rectangle(-0.26, 0.42, 0.26, 0.53, _WHITE)
        return shape
    shape, half, height = Shape(x, foot, scale, facing=_facing(rng)), rng.uniform(1.9, 2.3), rng.uniform(1.35, 1.6)
    belt = height * 0.58
    shape.polygon([(-half * 0.85, belt), (-half * 0.6, height), (half * 0.15, height), (half * 0.5, belt)], paint)
    shape.polygon(
        [(-half * 0.75, belt), (-half * 0.56, height * 0.94), (half * 0.12, height * 0.94), (half * 0.4, belt)], glass
    )
    shape.line([(-half * 0.2, belt), (-half * 0.2, height)], 0.08, paint)
    shape.polygon([(-half, 0.25), (half, 0.25), (half, belt * 0.8), (half * 0.5, belt), (-half, belt)], paint)
    for wheel in (-0.62, 0.62):
        shape.ellipse(half * wheel, 0.32, 0.33, 0.32, _TYRE)
        shape.ellipse(half * wheel, 0.32, 0.17, 0.17, _HUB)
    shape.rectangle(half * 0.93, belt * 0.62, half, belt * 0.8, _HEADLAMP, glows=True)
    shape.rectangle(-half, belt * 0.7, -half * 0.95, belt * 0.92, _TAILLAMP, glows=True)
    return shape


def truck(rng: Rng, x: float, foot: float, scale: float) -> Shape:
    """A lorry or van with a box, from behind, from the front or from the side."""
    shape, paint, load = Shape(x, foot, scale), _paint(rng), _paint(rng)
    height = rng.uniform(2.7, 3.5)
    if rng.random() < 0.65:
        half, front = rng.uniform(1.15, 1.3), bool(rng.random() < 0.4)
        for side in (-1, 1):
            shape.rectangle(side * half * 0.95, 0, side * half * 0.6, 0.5, _TYRE)
        shape.rectangle(-half, 0.45, half, height, load)
        shape.rectangle(-half * 0.92, height * 0.25, half * 0.92, height * 0.96, _shade(load, 0.85))
        if front:
            shape.rectangle(-half * 0.95, 0.4, half * 0.95, height * 0.78, paint)
            shape.rectangle(-half * 0.85, height * 0.45, half * 0.85, height * 0.72, _GLASS)
        else:
            shape.line([(0, height * 0.22), (0, height * 0.97)], 0.06, _shade(load, 0.5))
            shape.rectangle(-half, 0.4, half, 0.6, (60, 60, 62))
        lamp = _HEADLAMP if front else _TAILLAMP
        for side in (-1, 1):
            shape.rectangle(side * half * 0.95, 0.55, side * half * 0.7, 0.78, lamp, glows=True)
        return shape
    shape, half = Shape(x, foot, scale, facing=_facing(rng)), rng.uniform(3.0, 3.8)
    cab, roof, window = half * 0.5, height * 0.8, height * 0.74
    shape.rectangle(-half, 0.7, cab * 0.95, height, load)
    shape.rectangle(-half, 0.7, cab * 0.95, 0.95, _shade(load, 0.6))
    shape.polygon([(cab, 0.45), (half, 0.45), (half, 1.5), (half * 0.94, roof), (cab, roof)], paint)
    shape.polygon([(cab * 1.25, 1.5), (half * 0.97, 1.5), (half * 0.92, window), (cab * 1.25, window)], _GLASS)
    shape.rectangle(-half, 0.4, half, 0.65, (55, 55, 58))
    for wheel in (-0.72, -0.45, 0.72):
        shape.ellipse(half * wheel, 0.45, 0.45, 0.45, _TYRE)
        shape.ellipse(half * wheel, 0.45, 0.2, 0.2, _HUB)
    shape.rectangle(half * 0.95, 0.7, half, 0.95, _HEADLAMP, glows=True)
    return shape


def pedestrian(rng: Rng, x: float, foot: float, scale: float) -> Shape:
    """Standing or walking."""
    shape, tall = Shape(x, foot, scale), rng.uniform(1.5, 1.9)
    skin, coat, trousers = _SKIN[rng.integers(4)], _paint(rng), _shade(_paint(rng), 0.6)
    stride = rng.uniform(0.03, 0.28)
    for side in (-1, 1):
        shape.line([(0, tall * 0.5), (side * stride, tall * 0.25), (side * stride * 1.15, 0.02)], 0.16, trousers)
        shape.rectangle(side * stride - 0.08, 0, side * stride + 0.1, 0.07, _BLACK)
    _body(shape, rng, 0.0, tall, coat, skin, swing=stride * 1.1)
    if rng.random() < 0.25:
        shape.rectangle(0.16, tall * 0.3, 0.36, tall * 0.45, _paint(rng))
    return shape


def cyclist(rng: Rng, x: float, foot: float, scale: float) -> Shape:
    """A bicycle with its rider, from the side or along the road."""
    coat, trousers, metal = _paint(rng), _shade(_paint(rng), 0.6), _paint(rng)
    skin = _SKIN[rng.integers(4)]
    if rng.random() < 0.6:
        shape, lean = Shape(x, foot, scale, facing=_facing(rng)), rng.uniform(0.12, 0.3)
        for wheel in (-0.52, 0.52):
            shape.line([(wheel + 0.33 * np.cos(turn), 0.34 + 0.33 * np.sin(turn)) for turn in _TURNS], 0.05, _TYRE)
        shape.line([(-0.52, 0.34), (-0.1, 0.34), (0.4, 0.8), (-0.22, 0.8), (-0.52, 0.34)], 0.05, metal)
        shape.line([(-0.1, 0.34), (-0.22, 0.92)], 0.05, metal)
        shape.line([(0.52, 0.34), (0.38, 1.0), (0.5, 1.05)], 0.05, metal)
        knee = rng.uniform(-0.1, 0.15)
        shape.line([(-0.2, 0.95), (0.15 + knee, 0.7), (-0.05 + knee, 0.25)], 0.15, trousers)
        shape.line([(-0.2, 0.95), (lean, 1.45)], 0.28, coat)
        shape.line([(lean, 1.4), (0.48, 1.05)], 0.1, coat)
        _head(shape, rng, lean + 0.08, 1.62, skin)
        return shape
    shape = Shape(x, foot, scale)
    tall = rng.uniform(1.6, 1.8)
    shape.ellipse(0, 0.33, 0.05, 0.33, _TYRE)
    for side in (-1, 1):
        shape.line([(side * 0.1, 0.95), (side * 0.17, 0.6), (side * 0.13, rng.uniform(0.15, 0.4))], 0.14, trousers)
    shape.line([(-0.3, 1.05), (0.3, 1.05)], 0.05, metal)
    _body(shape, rng, 0.0, tall, coat, skin, swing=0.28)
    if rng.random() < 0.7:
        lamp = (_HEADLAMP, _TAILLAMP)[rng.integers(2)]
        shape.ellipse(0, 0.75, 0.07, 0.07, lamp, glows=True)
    return shape


def sign(rng: Rng, x: float, foot: float, scale: float) -> Shape:
    """A plate on a pole: octagon, triangle, circle, diamond or square."""
    shape, half = Shape(x, foot, scale), rng.uniform(0.38, 0.5)
    high = rng.uniform(1.8, 2.8)
    shape.line([(0, 0), (0, high)], 0.08, (140, 140, 140), own=False)
    kind = rng.integers(5)

    def ring(corners: int, turned: float, size: float) -> Points:
        angles = [2 * np.pi * (corner / corners) + turned for corner in range(corners)]
        return [(size * half * float(np.cos(a)), high + size * half * float(np.sin(a))) for a in angles]

    if kind == 0:
        shape.polygon(ring(8, np.pi / 8, 1.08), _WHITE)
        shape.polygon(ring(8, np.pi / 8, 1.0), _RED)
        shape.rectangle(-half * 0.6, high - half * 0.15, half * 0.6, high + half * 0.15, _WHITE)
    elif kind == 1:
        up = np.pi / 2 if rng.random() < 0.7 else -np.pi / 2
        shape.polygon(ring(3, up, 1.3), _RED)
        shape.polygon(ring(3, up, 0.85), _WHITE)
        shape.rectangle(-half * 0.08, high - half * 0.25, half * 0.08, high + half * 0.3, _BLACK)
    elif kind == 2:
        shape.ellipse(0, high, half, half, _RED)
        shape.ellipse(0, high, half * 0.74, half * 0.74, _WHITE)
        for digit in (-0.28, 0.28)[: rng.integers(3)]:
            shape.rectangle(
                half * (digit - 0.15), high - half * 0.35, half * (digit + 0.15), high + half * 0.35, _BLACK
            )
    elif kind == 3:
        shape.polygon(ring(4, 0, 1.2), _WHITE)
        shape.polygon(ring(4, 0, 0.95), (245, 190, 20))
    else:
        shape.polygon(ring(4, np.pi / 4, 1.2), (20, 80, 190))
        shape.polygon(ring(3, rng.uniform(0, 6), 0.6), _WHITE)
    return shape


def traffic_light(rng: Rng, x: float, foot: float, scale: float) -> Shape:
    """A dark housing with three lamps on a pole, one of them lit."""
    shape, half, tall = Shape(x, foot, scale), rng.uniform(0.2, 0.26), rng.uniform(1.1, 1.35)
    high = rng.uniform(1.9, 2.8)
    shape.line([(0, 0), (0, high)], 0.12, (70, 70, 72), own=False)
    shape.rectangle(-half, high, half, high + tall, (35, 38, 36))
    lit = rng.integers(3)
    for lamp, bright in enumerate([(60, 235, 90), (255, 190, 30), (255, 45, 35)]):
        colour = bright if lamp == lit else _shade(bright, 0.22)
        shape.ellipse(0, high + tall * (lamp + 0.5) / 3, half * 0.62, half * 0.62, colour, glows=bool(lamp == lit))
    return shape


SHAPES: Mapping[str, Callable[[Rng, float, float, float], Shape]] = {
    "car": car,
    "truck": truck,
    "pedestrian": pedestrian,
    "cyclist": cyclist,
    "sign": sign,
    "traffic light": traffic_light,
}
"""What draws each class of object, at a foot point in pixels with so many pixels to a metre."""


def clutter(canvas: Canvas, rng: Rng, x: float, foot: float, *, night: bool) -> None:
    """A house, a tree, a lamp post or a fence at this place: nothing that counts."""
    colour = _shade((150, 140, 130), rng.uniform(0.5, 1.4))
    kind = rng.integers(4)
    if kind == 0:
        wide, tall = rng.uniform(40, 140), rng.uniform(30, 130)
        canvas.rectangle(x, foot - tall, x + wide, foot, colour)
        pane = (255, 225, 150) if night else _shade((90, 110, 130), rng.uniform(0.6, 1.3))
        for row in np.arange(foot - tall + 8, foot - 14, 20):
            for column in np.arange(x + 8, x + wide - 12, 18):
                lit = bool(rng.random() < 0.4)
                corners = [(column, row), (column + 8, row), (column + 8, row + 10), (column, row + 10)]
                canvas.polygon(corners, pane, glows=lit)
    elif kind == 1:
        tall, leaves = rng.uniform(25, 90), _shade((60, 110, 50), rng.uniform(0.5, 1.4))
        canvas.line([(x, foot), (x, foot - tall)], (85, 65, 50), 4)
        for _ in range(5):
            dx, dy = rng.uniform(-14, 14), rng.uniform(-8, 24)
            canvas.ellipse((x + dx - 16, foot - tall - dy - 14, x + dx + 16, foot - tall - dy + 14), leaves)
    elif kind == 2:
        tall = rng.uniform(50, 150)
        canvas.line([(x, foot), (x, foot - tall), (x + 18, foot - tall - 4)], (110, 110, 115), 2)
        canvas.ellipse((x + 15, foot - tall - 6, x + 24, foot - tall - 1), (255, 240, 200), glows=True)
    else:
        for post in range(int(rng.integers(3, 9))):
            canvas.rectangle(x + post * 9, foot - 16, x + post * 9 + 4, foot, colour)
        canvas.rectangle(x, foot - 12, x + 70, foot - 9, colour)


def _body(shape: Shape, rng: Rng, x: float, tall: float, coat: Colour, skin: Colour, *, swing: float) -> None:
    """Torso, arms and head of somebody of this height."""
    shoulder = tall * 0.82
    for side in (-1, 1):
        shape.line([(x + side * 0.2, shoulder - 0.03), (x + side * (0.2 + swing * 0.4), tall * 0.52)], 0.1, coat)
    shape.polygon([(x - 0.18, tall * 0.47), (x + 0.18, tall * 0.47), (x + 0.24, shoulder), (x - 0.24, shoulder)], coat)
    _head(shape, rng, x, tall - 0.13, skin)


def _head(shape: Shape, rng: Rng, x: float, y: float, skin: Colour) -> None:
    shape.ellipse(x, y, 0.1, 0.13, skin)
    hair = _paint(rng) if rng.random() < 0.3 else _shade((70, 50, 35), rng.uniform(0.3, 1.5))
    shape.polygon([(x - 0.1, y + 0.02), (x + 0.1, y + 0.02), (x + 0.07, y + 0.13), (x - 0.07, y + 0.13)], hair)


_TURNS: Array = np.linspace(0, 2 * np.pi, 13)


def _facing(rng: Rng) -> int:
    """Right or left."""
    return 1 if rng.random() < 0.5 else -1


def _paint(rng: Rng) -> Colour:
    """A colour of things: grey as often as bright."""
    if rng.random() < 0.4:
        grey = int(rng.integers(25, 235))
        return grey, grey, min(255, grey + int(rng.integers(12)))
    red, green, blue = rng.integers(20, 240, 3).tolist()
    return red, green, blue


def _shade(colour: Colour, share: float) -> Colour:
    red, green, blue = (min(255, int(value * share)) for value in colour)
    return red, green, blue
