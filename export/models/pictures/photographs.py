"""Parts of real photographs, as JPEG files: what ImageNet classifiers are measured and loaded with.

The photographs are those of scikit-learn, which is there at every export: a temple and a flower. Nobody has labelled
the parts, so that stations are compared by them, and not with a truth.
"""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

EVALUATED, CALIBRATION = 64, 100
SMALLEST = 160
"""Pixels of a part's side at least; the photographs have 640 x 427."""

QUALITY = 90


def parts(count: int, *, seed: int) -> list[bytes]:
    """JPEG files of so many squares of the photographs, of any size from SMALLEST on, every second one mirrored."""
    from PIL import Image, ImageOps
    from sklearn.datasets import load_sample_images

    photographs = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    random = np.random.default_rng(seed)
    made = []
    for number in range(count):
        image = photographs[number % len(photographs)]
        side = int(random.integers(SMALLEST, min(image.size) + 1))
        left, top = (int(random.integers(0, length - side + 1)) for length in image.size)
        part = image.crop((left, top, left + side, top + side))
        made.append(_jpeg(ImageOps.mirror(part) if number // len(photographs) % 2 else part))
    return made


def opened(files: Sequence[bytes]) -> list[Image.Image]:
    """The pictures of encoded files."""
    from PIL import Image

    return [Image.open(BytesIO(file)) for file in files]


def _jpeg(image: Image.Image) -> bytes:
    file = BytesIO()
    image.save(file, "JPEG", quality=QUALITY)
    return file.getvalue()
