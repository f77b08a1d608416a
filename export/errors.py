"""What can go wrong in an export, as one tree; each message is one line that a person can act on.

ExportError
├── RecipeError     no such recipe, or weights that it cannot load
├── ConfigError     a config.pbtxt that does not parse
├── ContractError   the ONNX graph and config.pbtxt disagree
├── NotLoadedError  ONNX Runtime does not load a graph
├── AccuracyError   a station's figures fell below the recipe's tolerance
├── EngineError     TensorRT did not build an engine, or built one that answers otherwise
│   └── EngineUnavailableError   there is no TensorRT builder or no GPU here
└── PublishError    the model repository cannot be written, or another export holds it
"""

from __future__ import annotations


class ExportError(Exception):
    """An export did not happen; the model repository is as it was."""


class RecipeError(ExportError):
    """No recipe of that name, or weights that the recipe cannot load."""


class ConfigError(ExportError):
    """A config.pbtxt that Triton would not parse; `line` and `column` count from 1 where they are known."""

    def __init__(self, message: str, line: int | None = None, column: int | None = None) -> None:
        super().__init__(message)
        self.line = line
        self.column = column


class ContractError(ExportError):
    """The graph's names, types or shapes are not those of config.pbtxt."""


class NotLoadedError(ExportError):
    """ONNX Runtime does not load a graph."""


class AccuracyError(ExportError):
    """A figure fell by more than the recipe tolerates."""


class PublishError(ExportError):
    """The model repository could not be changed."""


class EngineError(ExportError):
    """An engine could not be built, or its answers are not those of the ONNX model; the ONNX model stands."""


class EngineUnavailableError(EngineError):
    """This machine has no TensorRT builder or no GPU."""
