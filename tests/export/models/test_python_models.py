"""The python models of the pipelines, without a server: what they refuse, and that they are ready while they work."""

from __future__ import annotations

import importlib.util
import io
import json
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


def file(image: Image.Image, kind: str) -> bytes:
    data = io.BytesIO()
    image.save(data, kind)
    return data.getvalue()


GREY = Image.linear_gradient("L")
READ = {
    "16 bits": file(Image.fromarray(np.asarray(GREY, np.uint16) * 257), "PNG"),
    "32 bits": file(Image.fromarray(np.asarray(GREY, np.int32) * 257), "TIFF"),
}
REFUSED = {
    "a number of a PPM header that is none": b"P6 4G 4 255 " + bytes(48),
    "a DDS header of an unknown kind": b"DDS " + (124).to_bytes(4, "little") + bytes(120),
    "no pixels behind a QOI header": b"qoif" + bytes([0, 0, 0, 4, 0, 0, 0, 4, 3, 0]),
    "floating-point numbers, whose range nobody knows": file(GREY.convert("F"), "TIFF"),
    "more pixels than Pillow takes by itself": file(Image.new("1", (20_000, 20_000)), "PNG"),
}


def pixels(model: Any, data: bytes) -> Any:
    return (model.prepare if hasattr(model, "prepare") else model._pixels)(3, data)


@pytest.mark.parametrize("initialized", ["image_preprocess", "road_scene_pixels"], indirect=True)
def test_grey_images_of_more_than_8_bits_look_as_those_of_8(initialized: Any) -> None:
    expected = pixels(initialized, file(GREY, "PNG"))
    assert {what for what, data in READ.items() if np.array_equal(pixels(initialized, data), expected)} == set(READ)


@pytest.mark.parametrize("what", REFUSED)
@pytest.mark.parametrize("initialized", ["image_preprocess", "road_scene_pixels"], indirect=True)
def test_a_file_that_cannot_be_read_is_refused_by_its_number(initialized: Any, what: str) -> None:
    with pytest.raises(ValueError, match=r"^(image|frame) 3 "):
        pixels(initialized, REFUSED[what])
