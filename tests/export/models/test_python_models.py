"""The python models of the pipelines, without a server: whether they are ready, and what they refuse."""

from __future__ import annotations

import importlib.util
import io
import json
import struct
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers

ROOT = Path(__file__).parents[3] / "model_repository"
PARAMETERS = {
    "text_tokenizer": {"tokenizer": "tokenizer.json", "pad_to_multiple_of": "8"},
    "image_preprocess": {"preprocessor_config": "preprocessor_config.json", "max_pixels": "1000000"},
    "road_scene_pixels": {"preprocessor_config": "preprocessor_config.json", "max_pixels": "1000000"},
}


@pytest.fixture
def initialized(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Any:
    """A model as the python backend initializes it."""
    name = request.param
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", types.ModuleType("triton_python_backend_utils"))
    spec = importlib.util.spec_from_file_location(f"{name}_under_test", ROOT / name / "1" / "model.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (tmp_path / "1").mkdir()
    words = Tokenizer(models.WordLevel({"ready": 0, "?": 1}, unk_token="?"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.enable_truncation(8)
    words.save(str(tmp_path / "1" / "tokenizer.json"))
    (tmp_path / "1" / "preprocessor_config.json").write_text(
        json.dumps({"size": {"width": 4, "height": 4}, "resample": 2})
    )
    parameters = {key: {"string_value": value} for key, value in PARAMETERS[name].items()}
    model = module.TritonPythonModel()
    config = json.dumps({"parameters": parameters})
    model.initialize({"model_config": config, "model_repository": str(tmp_path), "model_version": "1"})
    return model


@pytest.mark.parametrize("initialized", ["text_tokenizer", "image_preprocess"], indirect=True)
def test_a_model_is_ready_while_it_can_do_its_work(initialized: Any) -> None:
    assert initialized.is_ready() is True
    for part in ("tokenizer", "prepare"):
        if hasattr(initialized, part):
            setattr(initialized, part, None)
    with pytest.raises((AttributeError, TypeError)):  # which Triton takes for not ready
        initialized.is_ready()


@pytest.mark.parametrize("initialized", ["text_tokenizer"], indirect=True)
def test_what_is_far_behind_the_last_token_is_not_tokenized(initialized: Any) -> None:
    assert initialized.read(0, b"ready " * 3) == "ready " * 3
    assert initialized.read(0, b" " * 100_000 + b"ready " * 100_000) == ("ready " * 100)[: 8 * 32]


def written(image: Image.Image, kind: str) -> bytes:
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


def picture(kind: str, size: tuple[int, int] = (64, 48)) -> bytes:
    return written(Image.new("RGB", size, "grey"), kind)


def turned_jpeg(tag: int, type_of_value: int, value: bytes) -> bytes:
    """A JPEG whose EXIF block says that it lies on its side, and something else."""
    entries = struct.pack("<2HI4s2HI4s", 0x112, 3, 1, b"\6\0\0\0", tag, type_of_value, len(value), value)
    block = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + entries + bytes(4)
    plain = picture("JPEG")
    return plain[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + plain[2:]


GREY = Image.linear_gradient("L")
DEEP_GREY = {
    "16 bits": written(Image.fromarray(np.asarray(GREY, np.uint16) * 257), "PNG"),
    "32 bits": written(Image.fromarray(np.asarray(GREY, np.int32) * 257), "TIFF"),
}
REFUSED = {
    "nothing": b"",
    "no picture": b"a road, honest",
    "cut off": picture("JPEG")[:300],
    "more pixels than allowed": picture("PNG", (1001, 1000)),
    "an EXIF block that Pillow cannot write back": turned_jpeg(0x111, 2, b"abc\0"),
    "a pixel format that Pillow does not know": picture("DDS").replace(struct.pack("<II", 32, 0x40), bytes(8)),
    "a PPM header with a number that is none": b"P6 4G 4 255 " + bytes(48),
    "floating-point numbers, whose range nobody knows": written(GREY.convert("F"), "TIFF"),
    "more pixels than Pillow takes by itself": written(Image.new("1", (20_000, 20_000)), "PNG"),
}


def decode(model: Any, number: int, file: bytes) -> Any:
    return (getattr(model, "prepare", None) or model._pixels)(number, file)


@pytest.mark.parametrize("file", REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("initialized", ["image_preprocess", "road_scene_pixels"], indirect=True)
def test_what_is_no_picture_is_refused(initialized: Any, file: bytes) -> None:
    """Any other error would fail the requests of the same batch too."""
    with pytest.raises(ValueError, match=r"^(image|frame) 3 "):
        decode(initialized, 3, file)
    assert decode(initialized, 0, turned_jpeg(0x10E, 2, b"abc\0")).shape == (4, 4, 3)


@pytest.mark.parametrize("file", DEEP_GREY.values(), ids=DEEP_GREY)
@pytest.mark.parametrize("initialized", ["image_preprocess", "road_scene_pixels"], indirect=True)
def test_grey_of_more_than_8_bits_looks_like_that_of_8(initialized: Any, file: bytes) -> None:
    assert (decode(initialized, 0, file) == decode(initialized, 0, written(GREY, "PNG"))).all()
