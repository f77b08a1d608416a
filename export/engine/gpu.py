"""The GPU of this machine, as nvidia-smi reports it."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from functools import cache

from export.errors import EngineUnavailableError

QUERY = ("nvidia-smi", "--query-gpu=name,compute_cap,driver_version", "--format=csv,noheader")
TIMEOUT_S = 20.0


@dataclass(frozen=True)
class Gpu:
    """The first GPU: its name, compute capability (`9.0`) and driver version."""

    name: str
    compute_capability: str
    driver: str

    @property
    def slug(self) -> str:
        """The name as a file's: `NVIDIA A100-SXM4-80GB` is `a100-sxm4-80gb`."""
        return re.sub(r"[^a-z0-9]+", "-", self.name.lower().removeprefix("nvidia ")).strip("-")


@cache
def find() -> Gpu | None:
    """The first GPU, or None where there is no driver, no GPU, or no answer within 20 s. Looked up once a process."""
    try:
        done = subprocess.run(QUERY, capture_output=True, text=True, timeout=TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return parse(done.stdout)


def required() -> Gpu:
    """The first GPU. Raises EngineUnavailableError where there is none."""
    card = find()
    if card is None:
        raise EngineUnavailableError("no NVIDIA GPU was found (nvidia-smi): TensorRT builds on the GPU it builds for")
    return card


def parse(answer: str) -> Gpu | None:
    """The first line of nvidia-smi's answer."""
    lines = answer.strip().splitlines()
    parts = [part.strip() for part in lines[0].split(",")] if lines else []
    return Gpu(*parts) if len(parts) == 3 and re.fullmatch(r"\d+\.\d+", parts[1]) else None
