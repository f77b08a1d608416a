"""Encoded camera frames in, RGB pixels of one size out: the `road_scene_pixels` step of `road_scene`.

The size comes from `preprocessor_config.json`, which export publishes beside this file; a frame is stretched to it. A
large JPEG is scaled down while it is decoded. A file that is no image fails its own request alone.
"""

import io
import json
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils
from PIL import Image, ImageOps, UnidentifiedImageError

PARAMETERS = {"preprocessor_config", "max_pixels"}

Image.MAX_IMAGE_PIXELS = None  # `max_pixels` is the limit


class TritonPythonModel:
    def initialize(self, args):
        given = {key: value["string_value"] for key, value in json.loads(args["model_config"])["parameters"].items()}
        if unknown := sorted(set(given) - PARAMETERS):
            raise pb_utils.TritonModelException(f"unknown parameters key '{unknown[0]}': choose {sorted(PARAMETERS)}")
        path = Path(args["model_repository"]) / args["model_version"] / given["preprocessor_config"]
        if not path.is_file():
            raise pb_utils.TritonModelException(f"'{path.name}' is missing: run `fathom export road_scene`")
        config = json.loads(path.read_text())
        self.size, self.resample = (config["size"]["width"], config["size"]["height"]), config["resample"]
        self.max_pixels = int(given["max_pixels"])

    def execute(self, requests):
        return [self._answer(request) for request in requests]

    def _answer(self, request):
        files = pb_utils.get_input_tensor_by_name(request, "image").as_numpy().ravel()
        try:
            pixels = np.stack([self._pixels(index, file) for index, file in enumerate(files)])
        except ValueError as error:
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error), pb_utils.TritonError.INVALID_ARG))
        return pb_utils.InferenceResponse([pb_utils.Tensor("pixels", pixels)])

    def _pixels(self, index, file):
        """Encoded bytes -> uint8 [height, width, 3]. Raises ValueError with a sentence for a file it cannot read."""
        try:
            image = Image.open(io.BytesIO(file))
            if fits := image.width * image.height <= self.max_pixels:
                image.draft("RGB", self.size)
                image = _rgb(ImageOps.exif_transpose(image))
        except UnidentifiedImageError:
            raise ValueError(
                f"frame {index} is no image ({len(file)} bytes, beginning with {bytes(file[:16])!r}): send the bytes "
                "of a JPEG, PNG or WebP file"
            ) from None
        except Exception as error:  # damage makes Pillow raise errors of any class
            raise ValueError(f"frame {index} cannot be read ({len(file)} bytes): {error}") from error
        if not fits:
            raise ValueError(
                f"frame {index} is {image.width} x {image.height} pixels, more than the {self.max_pixels} allowed: "
                "scale it down before sending"
            )
        return np.asarray(image.resize(self.size, self.resample))


def _rgb(image):
    """RGB, of 16-bit grey the upper 8 bits. Raises ValueError where the range of the values is not known."""
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers: save it with 8 bits a channel")
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image, dtype=np.float64) / 257).clip(0, 255).astype(np.uint8))
    return image.convert("RGB")
