"""Encoded image files in, resized RGB pixels out: the `image_preprocess` step of `image_classifier`.

The target size and the resampling come from `preprocessor_config.json` (Hugging Face's format), which export publishes
beside this file. A file that is no image fails its own request; the other requests of the batch are answered.
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
        model = json.loads(args["model_config"])
        given = {key: value["string_value"] for key, value in model["parameters"].items()}
        if unknown := sorted(set(given) - PARAMETERS):
            raise pb_utils.TritonModelException(f"unknown parameters key '{unknown[0]}': choose {sorted(PARAMETERS)}")
        path = Path(args["model_repository"]) / args["model_version"] / given["preprocessor_config"]
        if not path.is_file():
            raise pb_utils.TritonModelException(f"'{path.name}' is missing: run `fathom export mobilenet_v2`")
        self.prepare = Preprocessor(json.loads(path.read_text()), max_pixels=int(given["max_pixels"]))
        self.example = io.BytesIO()
        Image.new("RGB", (8, 8)).save(self.example, "PNG")

    def is_ready(self):
        """Releases of 2026 ask for this when they are asked whether the model is ready; older ones never call it."""
        return self.prepare(0, self.example.getvalue()).ndim == 3

    def execute(self, requests):
        return [self._answer(request) for request in requests]

    def _answer(self, request):
        files = pb_utils.get_input_tensor_by_name(request, "image").as_numpy().ravel()
        try:
            pixels = np.stack([self.prepare(index, file) for index, file in enumerate(files)])
        except ValueError as error:
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error), pb_utils.TritonError.INVALID_ARG))
        return pb_utils.InferenceResponse([pb_utils.Tensor("pixels", pixels)])


class Preprocessor:
    """Decode, turn upright, flatten transparency onto white, resize and crop as the model's own processor would."""

    def __init__(self, config, max_pixels):
        self.max_pixels = max_pixels
        self.resample = Image.Resampling(config.get("resample", Image.Resampling.BILINEAR))
        self.size = config["size"]
        crop = config.get("crop_size") if config.get("do_center_crop") else None
        self.crop = (crop["width"], crop["height"]) if crop else None

    def __call__(self, index, file):
        """Encoded bytes -> uint8 [height, width, 3]. Raises ValueError with a sentence for a file it cannot read."""
        try:
            image = Image.open(io.BytesIO(file))
            if fits := image.width * image.height <= self.max_pixels:
                image = self._opaque(ImageOps.exif_transpose(image))
        except UnidentifiedImageError:
            start = bytes(file[:16])
            raise ValueError(
                f"image {index} is not an image file ({len(file)} bytes, beginning with {start!r}): "
                "send the bytes of a PNG, JPEG, WebP, GIF, BMP or TIFF file"
            ) from None
        except Exception as error:  # damage makes Pillow raise errors of any class
            raise ValueError(f"image {index} cannot be read ({len(file)} bytes): {error}") from error
        if not fits:
            raise ValueError(
                f"image {index} is {image.width} x {image.height} pixels, more than the {self.max_pixels} allowed: "
                "scale it down before sending"
            )
        return np.asarray(self._fit(image))

    def _opaque(self, image):
        """RGB, on white where it is transparent. Raises ValueError where the range of the values is not known."""
        if image.mode == "F":
            raise ValueError("its pixels are floating-point numbers: save it with 8 bits a channel")
        if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        elif image.mode.startswith("I"):
            image = Image.fromarray((np.asarray(image, dtype=np.float64) / 257).clip(0, 255).astype(np.uint8))
        return image.convert("RGB")

    def _fit(self, image):
        image = image.resize(self._target(image), self.resample)
        if self.crop is None:
            return image
        width, height = self.crop
        left, top = (image.width - width) // 2, (image.height - height) // 2
        return image.crop((left, top, left + width, top + height))

    def _target(self, image):
        if "shortest_edge" not in self.size:
            return self.size["width"], self.size["height"]
        scale = self.size["shortest_edge"] / min(image.width, image.height)
        return max(1, round(image.width * scale)), max(1, round(image.height * scale))
