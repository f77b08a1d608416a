"""The bundled models at every precision, exported where export's packages are, for a machine that lacks them.

`python -m fathom.proof.artefacts DIR` writes DIR/fp32, DIR/fp16 and DIR/int8, a model repository each.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path

from export import recipes
from export.exporter import export_model
from fathom.options import default_repository
from fathom.output import Steps
from fathom.proof.settings import PRECISIONS

BUILT = ("*.onnx", "*.json", "*.npz", "*.plan*", "__pycache__")
MODELS = ("mobilenet_v2", "minilm")


def write(repository: Path, target: Path, models: Sequence[str] = MODELS) -> None:
    """Export each model at each precision into a copy of the repository's configurations. Raises ExportError.

    What is there already and unchanged is not made again.
    """
    with Steps() as steps:
        for precision in PRECISIONS:
            own = target / precision
            if not own.is_dir():
                shutil.copytree(repository, own, ignore=shutil.ignore_patterns(*BUILT))
            for name in models:
                with steps.step(f"{name} {precision}") as step:
                    export_model(recipes.find(name), own, precision=precision, on_progress=step.update)


if __name__ == "__main__":
    command = argparse.ArgumentParser(prog="python -m fathom.proof.artefacts", description=__doc__)
    command.add_argument("target", type=Path, metavar="DIR")
    command.add_argument("--model-repository", type=Path, default=default_repository(), metavar="DIR")
    command.add_argument("--models", nargs="+", choices=MODELS, default=MODELS, metavar="NAME")
    given = command.parse_args()
    write(given.model_repository, given.target, given.models)
