"""The version folders of a model: which ones Triton sees, and which ones its version policy serves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any


def present(folder: Path) -> list[Path]:
    """The version folders that Triton sees, lowest first: those named by a number without leading zeros."""
    numbered = [path for path in folder.iterdir() if path.is_dir() and path.name.isdecimal()] if folder.is_dir() else []
    return sorted((path for path in numbered if path.name == str(int(path.name))), key=lambda path: int(path.name))


def served(policy: Any, versions: Sequence[Path]) -> list[Path]:
    """The versions that a policy (`inference.ModelVersionPolicy`) serves; the latest one where it says nothing."""
    if policy.HasField("specific"):
        return [path for path in versions if int(path.name) in policy.specific.versions]
    if policy.HasField("all"):
        return [*versions]
    count = policy.latest.num_versions if policy.HasField("latest") else 1
    return [*versions[len(versions) - min(count, len(versions)) :]]
