"""The modules of a python model in model_repository, imported as Triton's stub does: its folder lies on sys.path."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[2] / "model_repository"


def load(model: str, *names: str) -> list[ModuleType]:
    """The named modules of the model's version 1, of one import; another model may have modules of the same names."""
    folder = ROOT / model / "1"
    own = {path.stem for path in folder.glob("*.py")}
    before = {name: sys.modules.pop(name) for name in own & sys.modules.keys()}
    sys.path.insert(0, str(folder))
    try:
        return [importlib.import_module(name) for name in names]
    finally:
        sys.path.remove(str(folder))
        for name in own:
            sys.modules.pop(name, None)
        sys.modules.update(before)
