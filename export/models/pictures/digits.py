"""Scikit-learn's handwritten digits as pictures: the split, the rendering and the augmented training batches.

The data set holds 1,797 real digits of 8x8 grey levels (0 is paper, 16 is ink). A fixed permutation keeps 450 of them
out of training. A held-out digit becomes an 80x80 picture: one pixel of paper around the 8x8 grey levels, enlarged
eight times; light ink on dark, every second one inverted to dark ink on light. It is then handled like any picture
that a client sends: PNG bytes, decoded and resized by `export.models.pictures.images.Preprocessor`.
"""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np

from export.recipe.recipe import Array

if TYPE_CHECKING:
    from PIL import Image

HELD_OUT = 450
CALIBRATION = 200
PICTURE_SIZE = 80
LABELS = tuple(str(digit) for digit in range(10))


@dataclass(frozen=True)
class Digits:
    """Grey levels UINT8 [n, 8, 8] (0 paper, 255 ink) and the digit each shows, INT64 [n]."""

    pixels: Array
    digit: Array


def split() -> tuple[Digits, Digits]:
    """The training digits (1,347) and the held-out ones (450), the same on every machine."""
    from sklearn.datasets import load_digits

    data: Any = load_digits()
    pixels = np.round(data.images * (255 / 16)).astype(np.uint8)
    order = np.random.RandomState(0).permutation(len(pixels))
    train, held_out = order[HELD_OUT:], order[:HELD_OUT]
    return (
        Digits(pixels[train], data.target[train].astype(np.int64)),
        Digits(pixels[held_out], data.target[held_out].astype(np.int64)),
    )


def picture(pixels: Array, *, inverted: bool) -> Image.Image:
    """One digit's grey levels [8, 8] as an 80x80 grey picture; inverted means dark ink on light paper."""
    from PIL import Image

    framed = np.pad(pixels, 1)
    image = Image.fromarray(255 - framed if inverted else framed)
    return image.resize((PICTURE_SIZE, PICTURE_SIZE), Image.Resampling.BICUBIC)


def held_out_pictures() -> tuple[list[Image.Image], Array]:
    """The held-out digits as pictures, every second one inverted, and the digits they show (INT64 [450])."""
    _, held_out = split()
    pictures = [picture(pixels, inverted=index % 2 == 1) for index, pixels in enumerate(held_out.pixels)]
    return pictures, held_out.digit


def calibration_pictures() -> list[Image.Image]:
    """CALIBRATION digits that were trained on as pictures, every second one inverted."""
    training, _ = split()
    return [picture(pixels, inverted=index % 2 == 1) for index, pixels in enumerate(training.pixels[:CALIBRATION])]


def png(image: Image.Image) -> bytes:
    """The picture as PNG bytes, as a client would send it."""
    buffer = BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def held_out_png(index: int = 0) -> tuple[bytes, int]:
    """PNG bytes of one held-out digit (0 <= index < 450) and the digit it shows."""
    _, held_out = split()
    image = picture(held_out.pixels[index], inverted=index % 2 == 1)
    return png(image), int(held_out.digit[index])
