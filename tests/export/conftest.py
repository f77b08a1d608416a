"""A small repository that rules can be broken in, its recipe, and the bundled models as exported."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from scale_model import Scale, write_repository


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A fresh small repository."""
    return write_repository(tmp_path / "model_repository")


@pytest.fixture
def exported(exported_repository: Path, tmp_path: Path) -> Path:
    """The bundled models as exported, in a copy whose large files are links: replace a file, never write into it."""
    return Path(shutil.copytree(exported_repository, tmp_path / "model_repository", copy_function=os.link))


@pytest.fixture
def scale(tmp_path: Path) -> Scale:
    """The recipe of the small model."""
    weights = tmp_path / "gain.txt"
    weights.write_text("2")
    return Scale(weights)
