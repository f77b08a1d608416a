"""The `road_scene_pixels` step of `road_scene`: the code of `image_preprocess`, with a size of its own."""

import importlib.util
from pathlib import Path

PARAMETERS = {"preprocessor_config", "max_pixels"}  # what that code reads
SHARED = Path(__file__).resolve().parents[2] / "image_preprocess" / "1" / "model.py"

_spec = importlib.util.spec_from_file_location("image_preprocess_model", SHARED)
_shared = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_shared)
TritonPythonModel = _shared.TritonPythonModel
