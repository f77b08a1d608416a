"""Resizing and cropping by a preprocessor_config.json."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from export.errors import RecipeError
from export.models.pictures.images import Preprocessor

CROP = {"do_center_crop": True}
SHAPES = [
    ({"size": {"height": 20, "width": 30}}, (20, 30, 3), "straight to a size"),
    (
        {"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 24}, "do_center_crop": True},
        (32, 24, 3),
        "crop",
    ),
    ({"size": 40, "crop_size": 32, "do_center_crop": True}, (32, 32, 3), "one number each, as older files have"),
    (
        {"size": {"height": 20, "width": 30}, "crop_size": 8, "do_center_crop": False},
        (20, 30, 3),
        "a crop not asked for",
    ),
]


@pytest.mark.parametrize(("record", "shape", "why"), SHAPES, ids=[row[-1] for row in SHAPES])
def test_shapes(tmp_path: Path, record: dict, shape: tuple[int, ...], why: str) -> None:
    path = tmp_path / "preprocessor_config.json"
    path.write_text(json.dumps(record))
    preprocessor = Preprocessor.from_file(path)

    for size in ((100, 60), (60, 100), (7, 9)):
        assert preprocessor(Image.new("L", size, 200)).shape == shape
    path.write_bytes(preprocessor.to_json())
    assert Preprocessor.from_file(path) == preprocessor


def test_the_crop_is_taken_from_the_centre() -> None:
    image = Image.new("RGB", (40, 20), "black")
    image.paste((255, 0, 0), (10, 0, 30, 20))

    pixels = Preprocessor({"shortest_edge": 20}, crop=(20, 20))(image)

    assert (pixels[..., 0] == 255).all()


def test_numbers_for_the_network(tmp_path: Path) -> None:
    path = tmp_path / "preprocessor_config.json"
    path.write_text(
        json.dumps({"size": 8, "crop_size": 8, "do_center_crop": True, "do_rescale": False, "do_normalize": False})
    )

    plain = Preprocessor.from_file(path)

    assert (plain.scale, plain.mean, plain.std) == (1.0, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def test_a_size_without_a_crop_to_fix_it_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "preprocessor_config.json"
    path.write_text('{"size": {"shortest_edge": 256}}')

    with pytest.raises(RecipeError) as caught:
        Preprocessor.from_file(path)
    assert (caught.value.file, caught.value.field) == (str(path), "size")
