"""Draw what the exported detector finds on held-out frames: `python -m export.models.road.draw`.

It writes docs/images/road-scene.jpg: three frames side by side, with a box and a label for each detection.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from export.graph import onnx_file
from export.models.road.detections import BOXES, CLASSES, SCORES
from export.models.road.road_frames import HEIGHT, LABELS, WIDTH, opened
from export.models.road.road_scene import PREPROCESSOR, SHOWN_SCORE, held_out
from export.recipe.recipe import Arrays

SHOWN = (12, 18, 75)
COLOURS = ("#4cc9f0", "#f9c74f", "#f94144", "#90be6d", "#f3722c", "#b388eb")


def with_boxes(image: Image.Image, answer: Arrays) -> Image.Image:
    """The picture with the detections of one frame (without the batch axis)."""
    picture = image.convert("RGB")
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(15)
    scale = np.array([picture.width, picture.height] * 2)
    for box, score, kind in zip(answer[BOXES], answer[SCORES], answer[CLASSES], strict=True):
        if score < SHOWN_SCORE:
            continue
        left, top, right, bottom = (box * scale).tolist()
        text = f"{LABELS[kind]} {score:.0%}"
        draw.rectangle((left, top, right, bottom), outline=COLOURS[kind], width=2)
        at = min(left, picture.width - draw.textlength(text, font=font)), max(top - 18, 0)
        draw.rectangle(draw.textbbox(at, text, font=font), fill=COLOURS[kind])
        draw.text(at, text, fill="black", font=font)
    return picture


def main() -> None:
    """Draw and write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", type=Path, default=Path("model_repository/road_scene_detector/1/model.onnx"))
    parser.add_argument("--frames", type=int, nargs="+", default=SHOWN, help="numbers of held-out frames")
    parser.add_argument("--out", type=Path, default=Path("docs/images/road-scene.jpg"))
    arguments = parser.parse_args()
    station, files = onnx_file.session(arguments.model), held_out()[0]
    sheet = Image.new("RGB", (WIDTH * len(arguments.frames), HEIGHT))
    for column, number in enumerate(arguments.frames):
        image = opened(files[number])
        answer = {name: values[0] for name, values in station({"pixels": PREPROCESSOR(image)[None]}).items()}
        sheet.paste(with_boxes(image, answer), (column * WIDTH, 0))
    sheet.save(arguments.out, quality=85, optimize=True)


if __name__ == "__main__":
    main()
