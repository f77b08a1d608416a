"""Where an imported model comes from: `import_model` loads it, `files` finds the files that it is made from."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from export.errors import RecipeError
from export.sources.base import HF, KINDS, ONNX, SKLEARN, TORCH, ImportedModel

__all__ = ["HF", "KINDS", "ONNX", "SKLEARN", "TORCH", "ImportedModel", "files", "import_model"]


def import_model(kind: str, source: str, home: Path) -> ImportedModel:
    """Load a source of that kind, one of KINDS.

    `source` is a path, a hub id, or `package.module:function`; `home` is a folder to import from beside the current
    one. Raises RecipeError or ContractError for what is refused.
    """
    made: ImportedModel = import_module(f"export.sources.from_{kind}").load(source, home)
    return made


def files(kind: str, source: str, home: Path) -> dict[str, Path]:
    """The files that a source is made from, found but not loaded. Raises RecipeError where they are missing."""
    if kind == ONNX:
        from export.graph import external_data, onnx_stream

        path = Path(source)
        if not path.is_file():
            raise RecipeError(
                f"the model's source {path} is missing", remedy="put it back, or name another with --weights FILE"
            )
        try:
            external_data.check(onnx_stream.read_without_weights(path), path)
        except (OSError, ValueError) as error:
            raise RecipeError(
                f"the model's source {path} is not an ONNX file ({type(error).__name__})", remedy="put it back"
            ) from error
        return {path.name: path, **external_data.beside(path)}
    if kind == HF:
        from export.sources.from_hf import find

        return dict(find(source).files)
    from export.sources.user_code import module_file

    path = module_file(source, home)
    return {path.name: path}
