"""Pictures as a model's own processor sees them: resized and cropped by the rule of its preprocessor_config.json.

`model_repository/image_preprocess` reads the same file and follows the same rule with the same library, so that
evaluation pixels made here are what the pipeline makes of the picture's PNG bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from export.errors import RecipeError
from export.recipe.recipe import Array

if TYPE_CHECKING:
    from PIL import Image

BILINEAR, BICUBIC = 2, 3  # Pillow's and Hugging Face's numbers for them


@dataclass(frozen=True)
class Preprocessor:
    """The rule that turns a picture into pixels, and pixels into the numbers a network takes.

    `size` is {"height", "width"} or {"shortest_edge"}; `crop` is (height, width) cut from the centre, or None. A
    network takes (pixel * scale - mean) / std per channel; export puts that part inside the graph.
    """

    size: Mapping[str, int]
    crop: tuple[int, int] | None = None
    resample: int = BILINEAR
    scale: float = 1 / 255
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)

    @property
    def height_width(self) -> tuple[int, int]:
        """The size of the pixels it makes."""
        return self.crop or (self.size["height"], self.size["width"])

    def __call__(self, image: Image.Image) -> Array:
        """RGB pixels UINT8 [height, width, 3]."""
        from PIL.Image import Resampling

        image = image.convert("RGB")
        image = image.resize(self._target(image.width, image.height), Resampling(self.resample))
        if self.crop is not None:
            height, width = self.crop
            left, top = (image.width - width) // 2, (image.height - height) // 2
            image = image.crop((left, top, left + width, top + height))
        return np.asarray(image)

    def _target(self, width: int, height: int) -> tuple[int, int]:
        if "shortest_edge" not in self.size:
            return self.size["width"], self.size["height"]
        scale = self.size["shortest_edge"] / min(width, height)
        return max(1, round(width * scale)), max(1, round(height * scale))

    def to_json(self) -> bytes:
        """The file in Hugging Face's format."""
        height, width = self.height_width
        record = {
            "do_resize": True,
            "size": dict(self.size),
            "resample": self.resample,
            "do_center_crop": self.crop is not None,
            "crop_size": {"height": height, "width": width},
            "do_rescale": self.scale != 1.0,
            "rescale_factor": self.scale,
            "do_normalize": True,
            "image_mean": list(self.mean),
            "image_std": list(self.std),
        }
        return (json.dumps(record, indent=2) + "\n").encode()

    @staticmethod
    def from_file(path: Path, *, fixed: Mapping[str, int] | None = None) -> Preprocessor:
        """Read a preprocessor_config.json, whose size gives way to one that is `fixed`.

        Raises RecipeError when its fields are not understood.
        """
        try:
            record: dict[str, Any] = json.loads(path.read_text())
            size = fixed or _size(record["size"], one_number_is="shortest_edge")
            crop = _size(record["crop_size"], one_number_is="square") if record.get("do_center_crop") else None
            normalized = record.get("do_normalize", True)
            made = Preprocessor(
                size=size,
                crop=(crop["height"], crop["width"]) if crop else None,
                resample=int(record.get("resample", BILINEAR)),
                scale=float(record.get("rescale_factor", 1 / 255)) if record.get("do_rescale", True) else 1.0,
                mean=tuple(record.get("image_mean", (0.5,) * 3)) if normalized else (0.0,) * 3,
                std=tuple(record.get("image_std", (0.5,) * 3)) if normalized else (1.0,) * 3,
            )
            _ = made.height_width
        except (KeyError, TypeError, ValueError) as error:
            raise RecipeError(
                f"{path} is not understood ({type(error).__name__}: {error}): it needs `size` with height and width, "
                "or `size` with shortest_edge and a `crop_size` with do_center_crop",
                file=path,
                field="size",
            ) from error
        return made


def _size(value: Any, *, one_number_is: str) -> dict[str, int]:
    """A size as a dictionary; older files give one number, which means the shortest edge, or for a crop a square."""
    if isinstance(value, int):
        return {"shortest_edge": value} if one_number_is == "shortest_edge" else {"height": value, "width": value}
    return {str(key): int(number) for key, number in value.items()}
