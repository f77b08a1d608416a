"""A model as somebody brought it: an ONNX file, a transformers folder, or a function that makes a torch module or a
scikit-learn estimator."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from export.errors import RecipeError
from export.labels import Labels
from export.recipe import Arrays, Predict

ONNX, TORCH, HF, SKLEARN = KINDS = ("onnx", "torch", "hf", "sklearn")


@dataclass(frozen=True)
class Brought:
    """A loaded source.

    `predict` takes whole tensors, as the source itself does. `raw(room)` gives the ONNX file of it, written into
    `room` where it does not exist yet; its open axes and outputs are the source's. `example` are real requests, named
    arrays of equal first axis. `sizes` and `longest` are, by symbol, the size that an open axis is asked at and the
    largest it may have. `labels` are, by output, the names of its classes.
    """

    description: str
    predict: Predict
    raw: Callable[[Path], Path]
    example: Arrays | None = None
    sizes: Mapping[str, int] = field(default_factory=dict)
    longest: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    labels: Labels = field(default_factory=dict)


def bring(kind: str, source: str, home: Path) -> Brought:
    """Load a source of that kind.

    `source` is a path, a hub id, or `package.module:function`; `home` is a folder to import from beside the current
    one. Raises RecipeError or ContractError for what is refused.
    """
    if kind == ONNX:
        from export.source_onnx import load
    elif kind == TORCH:
        from export.source_torch import load
    elif kind == HF:
        from export.source_hf import load
    elif kind == SKLEARN:
        from export.source_sklearn import load
    else:
        raise RecipeError(f"'{kind}' is no kind of source: write one of {', '.join(KINDS)}")
    return load(source, home)


def files(kind: str, source: str, home: Path) -> dict[str, Path]:
    """The files that a source is made from, found but not loaded. Raises RecipeError where they are missing."""
    if kind == ONNX:
        from export import onnx_data, onnx_stream

        path = Path(source)
        if not path.is_file():
            raise RecipeError(f"the model's source {path} is missing: put it back, or name another with --weights FILE")
        try:
            onnx_data.check(onnx_stream.read_without_weights(path), path)
        except (OSError, ValueError) as error:
            raise RecipeError(
                f"the model's source {path} is not an ONNX file ({type(error).__name__}): put it back"
            ) from error
        return {path.name: path, **onnx_data.files(path)}
    if kind == HF:
        from export.source_hf import find

        return dict(find(source).files)
    from export.user_code import module_file

    path = module_file(source, home)
    return {path.name: path}
