"""What takes torch long to export, made once for all workers, by a process beside the tests that do not need it.

torch and what its exporter leaves behind are then not in the tests' process either, where every later export would
collect garbage through them. Run as `python prepared.py FOLDER NAME ...`; each NAME is there when `NAME.made` is.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from imported_models import F, node, save_encoder, save_vision, write, write_functions
from mortal import mortal

from benchmarks.added import light_models
from export import recipes
from export.add.add import AddOptions, add
from export.exporter import export_model
from export.models.language.smollm2 import SmolLM2

ROOT = Path(__file__).parents[2]
ARTEFACTS = ("*.onnx", "*.json", "*.npz", "__pycache__")
LIGHT = ("squeezenet",)
"""The light model whose constants are folded in a second or so; the rest of the folder is for the slow run."""


class Preparation:
    """The running process, as whoever waits for what it makes sees it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def begin(self, names: list[str]) -> None:
        """Start it; one worker does."""
        self._folder.mkdir()
        command = mortal([sys.executable, __file__, str(self._folder), *names])
        path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        with (self._folder / "errors.txt").open("w") as errors:
            self._process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": path}, stderr=errors)

    def result(self, name: str) -> Path:
        """The folder of what has this name."""
        while True:
            ended = (self._folder / "ended").exists() or (self._process and self._process.poll() is not None)
            if (self._folder / f"{name}.made").exists():
                return self._folder / name
            assert not ended, f"{name} was not made: {(self._folder / 'errors.txt').read_text()}"
            time.sleep(0.05)

    def end(self) -> None:
        """Wait for it: another worker may want what it makes."""
        if self._process:
            self._process.wait()


def bundled(folder: Path) -> None:
    """The committed model repository, copied and exported into by the real export."""
    repository = folder / "model_repository"
    shutil.copytree(ROOT / "model_repository", repository, ignore=shutil.ignore_patterns(*ARTEFACTS))
    for name in recipes.NAMES:
        export_model(recipes.find(name), repository)


def imported(folder: Path) -> None:
    """Somebody's own module, two transformers folders and ONNX files, all added to one repository without a server."""
    made = folder / "model_repository"
    made.mkdir(parents=True)
    write_functions(folder, "their_models")
    save_encoder(folder / "encoder")
    save_vision(folder / "vision")
    scores = [node("Softmax", ["x/0"], ["y:0"], axis=0)]
    write(folder / "scores.onnx", scores, [("x/0", F, [4, 2])], [("y:0", F, [4, 2])])
    scaled = [node("Mul", ["x", "rate"], ["y"])]
    write(folder / "rate.onnx", scaled, [("x", F, [2, 3]), ("rate", F, [])], [("y", F, [2, 3])])
    estimators = ("churn", "strict", "line", "clusters", "margin", "comments")
    models = {
        **{name: AddOptions("sklearn", f"their_models:{name}") for name in estimators},
        "words": AddOptions("torch", "their_models:words"),
        "fixed": AddOptions("torch", "their_models:fixed_rows"),
        "encoder": AddOptions("hf", str(folder / "encoder")),
        "vision": AddOptions("hf", str(folder / "vision")),
        **{name: AddOptions("onnx", str(light_models() / f"light_{name}.onnx"), max_batch_size=4) for name in LIGHT},
        **{name: AddOptions("onnx", str(folder / f"{name}.onnx")) for name in ("scores", "rate")},
    }
    os.chdir(folder)
    for name, options in models.items():
        add(name, options, made)


def language(folder: Path) -> None:
    """The committed model repository with the language model's real weights in 8 bits, judged on a few texts."""
    repository = folder / "model_repository"
    shutil.copytree(ROOT / "model_repository", repository, ignore=shutil.ignore_patterns(*ARTEFACTS))
    export_model(SmolLM2(prompts=2, text_rows=1), repository, precision="int8")


MAKERS = {"bundled": bundled, "imported": imported, "language": language}

if __name__ == "__main__":
    place = Path(sys.argv[1])
    try:
        for wanted in sys.argv[2:]:
            MAKERS[wanted](place / wanted)
            (place / f"{wanted}.made").touch()
    finally:
        (place / "ended").touch()
