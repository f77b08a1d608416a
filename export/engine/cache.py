"""The timing cache: what TensorRT measured of its kernels, kept per GPU and TensorRT version.

A cache of another version is useless, one of another GPU wrong, so both are in the file's name. Losing it costs build
time only.
"""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export.engine.gpu import Gpu

if TYPE_CHECKING:
    import tensorrt as trt

FOLDER = ".fathom-cache"


def path_for(model_repository: Path, gpu: Gpu, tensorrt_version: str) -> Path:
    """The cache file, in an ignored folder beside the model repository."""
    name = f"timing-{gpu.slug}-sm{gpu.compute_capability.replace('.', '')}-tensorrt-{tensorrt_version}.cache"
    return model_repository.resolve().parent / FOLDER / name


def attach(config: trt.IBuilderConfig, path: Path) -> trt.ITimingCache:
    """Give the configuration the kept cache, or an empty one where there is none that fits.

    The cache must outlive the build: hold on to it until then.
    """
    kept = path.read_bytes() if path.is_file() else b""
    cache = config.create_timing_cache(kept)
    if cache is not None and config.set_timing_cache(cache, False):
        return cache
    empty = config.create_timing_cache(b"")
    config.set_timing_cache(empty, False)
    return empty


def store(cache: trt.ITimingCache, path: Path) -> None:
    """Keep the cache for the next build, by rename; a folder that cannot be written is passed over."""
    content: Any = cache.serialize()
    if content is None:
        return
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=path.name, dir=path.parent) as room:
            made = Path(room) / path.name
            made.write_bytes(content)
            made.replace(path)
