"""The python models of the pipelines, without a server: whether they say that they are ready by doing their work."""

from __future__ import annotations

import importlib.util
import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

ROOT = Path(__file__).parents[3] / "model_repository"
PARAMETERS = {
    "text_tokenizer": {"tokenizer": "tokenizer.json", "pad_to_multiple_of": "8"},
    "image_preprocess": {"preprocessor_config": "preprocessor_config.json", "max_pixels": "1000000"},
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
    words.save(str(tmp_path / "1" / "tokenizer.json"))
    (tmp_path / "1" / "preprocessor_config.json").write_text(json.dumps({"size": {"width": 4, "height": 4}}))
    parameters = {key: {"string_value": value} for key, value in PARAMETERS[name].items()}
    model = module.TritonPythonModel()
    config = json.dumps({"parameters": parameters})
    model.initialize({"model_config": config, "model_repository": str(tmp_path), "model_version": "1"})
    return model


@pytest.mark.parametrize("initialized", PARAMETERS, indirect=True)
def test_a_model_is_ready_while_it_can_do_its_work(initialized: Any) -> None:
    assert initialized.is_ready() is True
    for part in ("tokenizer", "prepare"):
        if hasattr(initialized, part):
            setattr(initialized, part, None)
    with pytest.raises((AttributeError, TypeError)):  # which Triton takes for not ready
        initialized.is_ready()
