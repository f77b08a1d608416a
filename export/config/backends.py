"""The backends that Triton has: their platforms, their model files, and which one Triton completes a model with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Backend:
    """`files` are the names of the model's file, any of which will do; none where the model's parameters decide.

    `platforms` maps each platform to its file. Triton refuses another platform beside a backend that has some.
    `completed` is whether Triton finds the backend by its files, where neither backend nor platform is written.
    """

    files: tuple[str, ...] = ()
    platforms: Mapping[str, str] = field(default_factory=dict)
    completed: bool = False


BACKENDS = {
    "tensorflow": Backend(
        ("model.savedmodel", "model.graphdef"),
        {"tensorflow_savedmodel": "model.savedmodel", "tensorflow_graphdef": "model.graphdef"},
        completed=True,
    ),
    "tensorrt": Backend(("model.plan",), {"tensorrt_plan": "model.plan"}, completed=True),
    "onnxruntime": Backend(("model.onnx",), {"onnxruntime_onnx": "model.onnx"}, completed=True),
    "openvino": Backend(("model.xml",), completed=True),
    "pytorch": Backend(
        ("model.pt", "model.pt2"),
        {"pytorch_libtorch": "model.pt", "libtorch": "model.pt", "torch_aoti": "model.pt2"},
        completed=True,
    ),
    "python": Backend(("model.py",), completed=True),
    "dali": Backend(("model.dali", "dali.py")),
    "vllm": Backend(("model.json",)),
    "armnn_tflite": Backend(("model.tflite",)),
    **dict.fromkeys(
        ("fil", "hugectr", "hps", "tensorrtllm", "paddle", "identity", "repeat", "square", "dyna_sequence", "sequence"),
        Backend(),
    ),
}
"""In the order in which Triton looks for their files."""


def completed(message: Any, folder: Path) -> str:
    """The backend as Triton completes it; empty where Triton finds none and refuses the model."""
    if message.backend:
        return str(message.backend)
    platform, name = message.platform, message.default_model_filename
    for backend, known in BACKENDS.items():
        if platform in known.platforms or (known.completed and name in known.files):
            return backend
    if platform or name:
        return ""
    folders = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    held = {path.name for path in folders[0].iterdir()} if folders else set()
    for backend, known in BACKENDS.items():
        if known.completed and held & {*known.files}:
            return backend
    return folder.name.partition(".")[2]


def default_files(backend: str, platform: str) -> list[str]:
    """The names of the model's file where the configuration gives none."""
    known = BACKENDS.get(backend, Backend())
    return [known.platforms[platform]] if platform in known.platforms else [*known.files]
