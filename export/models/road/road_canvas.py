"""What rendered road frames are drawn on, and what an object is drawn of: filled parts that may glow in the dark."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Colour = tuple[int, int, int]
Points = Sequence[tuple[float, float]]
Box = tuple[float, float, float, float]

_UNLIT = (0, 0, 0)


class Canvas:
    """A picture, and beside it what glows in the dark: every part hides the glow behind it."""

    def __init__(self, width: int, height: int, *, glowing: bool) -> None:
        from PIL import Image, ImageDraw

        self.image = Image.new("RGB", (width, height))
        self.glow = Image.new("RGB", (width, height) if glowing else (1, 1))
        self._draws: list[tuple[Any, bool]] = [(ImageDraw.Draw(self.image), True)]
        if glowing:
            self._draws.append((ImageDraw.Draw(self.glow), False))

    def polygon(self, points: Points, colour: Colour, *, glows: bool = False) -> None:
        """Filled; coordinates in pixels."""
        for draw, lit in self._draws:
            draw.polygon(points, fill=colour if lit or glows else _UNLIT)

    def rectangle(self, left: float, top: float, right: float, bottom: float, colour: Colour) -> None:
        """Filled; nothing of it glows."""
        self.polygon([(left, top), (right, top), (right, bottom), (left, bottom)], colour)

    def ellipse(self, box: Box, colour: Colour, *, glows: bool = False) -> None:
        """Filled, inside this box."""
        for draw, lit in self._draws:
            draw.ellipse(box, fill=colour if lit or glows else _UNLIT)

    def line(self, points: Points, colour: Colour, width: float) -> None:
        """At least a pixel wide."""
        for draw, lit in self._draws:
            draw.line(points, fill=colour if lit else _UNLIT, width=max(1, round(width)))


class Shape:
    """One object at its place: `scale` pixels are a metre there, and x grows to the side that it faces (1: right).

    Parts are added far to near.
    """

    def __init__(self, x: float, foot: float, scale: float, *, facing: int = 1) -> None:
        self._x, self._foot, self._scale, self._facing = x, foot, scale, facing
        self._parts: list[Callable[[Canvas], None]] = []
        self._own: list[Points] = []

    @property
    def box(self) -> Box:
        """What the object's own parts take, in pixels: left, top, right, bottom."""
        return _bounds(self._own)

    def draw(self, canvas: Canvas) -> None:
        """Onto a canvas."""
        for part in self._parts:
            part(canvas)

    def polygon(self, points: Points, colour: Colour, *, glows: bool = False, own: bool = True) -> None:
        """A filled part; `own` ones belong to the object's box."""
        at = self._placed(points, own)
        self._parts.append(lambda canvas: canvas.polygon(at, colour, glows=glows))

    def rectangle(
        self,
        left: float,
        bottom: float,
        right: float,
        top: float,
        colour: Colour,
        *,
        glows: bool = False,
        own: bool = True,
    ) -> None:
        """The same for a rectangle."""
        self.polygon([(left, bottom), (right, bottom), (right, top), (left, top)], colour, glows=glows, own=own)

    def ellipse(self, x: float, y: float, across: float, up: float, colour: Colour, *, glows: bool = False) -> None:
        """The same for an ellipse around a point, with these half axes."""
        left, top, right, bottom = _bounds([self._placed([(x - across, y - up), (x + across, y + up)], True)])
        self._parts.append(lambda canvas: canvas.ellipse((left, top, right, bottom), colour, glows=glows))

    def line(self, points: Points, width: float, colour: Colour, *, own: bool = True) -> None:
        """A stroke of this width in metres."""
        at, pixels = self._placed(points, own), width * self._scale
        self._parts.append(lambda canvas: canvas.line(at, colour, pixels))

    def _placed(self, points: Points, own: bool) -> list[tuple[float, float]]:
        placed = [(self._x + self._facing * x * self._scale, self._foot - y * self._scale) for x, y in points]
        if own:
            self._own.append(placed)
        return placed


def _bounds(parts: Sequence[Points]) -> Box:
    points = np.array([point for part in parts for point in part])
    left, top = points.min(axis=0).tolist()
    right, bottom = points.max(axis=0).tolist()
    return left, top, right, bottom
