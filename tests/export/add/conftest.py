"""An empty model repository to add to."""

from pathlib import Path

import pytest


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    made = tmp_path / "model_repository"
    made.mkdir()
    return made
