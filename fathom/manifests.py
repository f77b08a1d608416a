"""The manifest of the artefact behind a model or pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from export import recipes
from export.errors import ExportError
from export.repository.manifest import Manifest


def manifest_of(model: str, repository: Path) -> dict[str, Any] | None:
    """What a report names as measured, where this machine has it; None for a model without a recipe here."""
    try:
        manifest = Manifest.read(repository / recipes.find(model, repository).name)
    except ExportError:
        return None
    return manifest.to_json() if manifest else None
