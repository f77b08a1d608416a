"""Image files as the pixel tensors that some models take instead of a file's bytes."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np

from clients import TensorSpec
from fathom.console.arguments import UsageError
from fathom.console.output import err

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"})
MODES = {1: "L", 3: "RGB", 4: "RGBA"}


def as_pixels(tensor: TensorSpec, data: bytes, path: Path) -> np.ndarray[Any, Any]:
    """One image as UINT8 [height, width, channels], or [channels, height, width] where the model has it so.

    Scaled to the model's size, which is said on stderr. Raises UsageError where the tensor takes no such thing.
    """
    from PIL import Image, UnidentifiedImageError

    dims = tensor.dims
    channels_first = len(dims) == 3 and dims[0] in MODES and dims[2] not in MODES
    if tensor.datatype != "UINT8" or len(dims) != 3 or dims[0 if channels_first else 2] not in MODES:
        raise UsageError(
            f"input '{tensor.name}' takes {tensor.datatype} {list(dims)}, and Fathom does not know the scale, mean and "
            f"layout that the model expects: prepare '{path}' as a .npy file"
        )
    channels, height, width = dims if channels_first else (dims[2], dims[0], dims[1])
    try:
        image = Image.open(io.BytesIO(data)).convert(MODES[channels])
    except (UnidentifiedImageError, OSError) as error:
        raise UsageError(f"input '{tensor.name}': '{path}' is not an image file that Pillow reads") from error
    size = (image.width if width < 0 else width, image.height if height < 0 else height)
    if image.size != size:
        err.print(f"{path} was scaled from {image.width}x{image.height} to {size[0]}x{size[1]}")
        image = image.resize(size, Image.Resampling.BILINEAR)
    pixels = np.asarray(image, np.uint8).reshape(size[1], size[0], channels)
    return pixels.transpose(2, 0, 1) if channels_first else pixels
