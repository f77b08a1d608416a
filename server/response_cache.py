"""Whether a model repository asks for Triton's response cache, which the server must be started with."""

from __future__ import annotations

import re
from pathlib import Path

from server import loading

BYTES = 64 << 20
"""The size of the cache that all models of a server share. An answer of a few numbers takes about 1 kB."""

_ENABLED = re.compile(r"\bresponse_cache\s*:?\s*[{<]\s*enable\s*:\s*(?:true|True|t|1)\b")


def size(model_repository: Path, config_name: str | None = None) -> int:
    """In bytes: BYTES where a configuration that Triton would serve enables the cache, else 0."""
    folders = [path.parent for path in model_repository.glob("*/config.pbtxt")]
    return BYTES if any(_enabled(folder, config_name) for folder in folders) else 0


def _enabled(folder: Path, config_name: str | None) -> bool:
    return _ENABLED.search(loading.config_text(folder, config_name)) is not None
