"""What can go wrong in an export, as one tree; each message is one line that a person can act on.

ExportError
├── FileError       a file that is not what it should be, or that a name must not reach
├── RecipeError     no such recipe, or weights that it cannot load
│   └── NotOfferedError   a precision that the model is not exported at
├── ConfigError     a config.pbtxt that does not parse
├── ContractError   the ONNX graph and config.pbtxt disagree
├── NotLoadedError  ONNX Runtime does not load a graph
├── LimitError      a graph took more time or memory than it may
├── AccuracyError   a station's figures fell below the recipe's tolerance
├── EngineError     TensorRT did not build an engine, or built one that answers otherwise
│   └── EngineUnavailableError   there is no TensorRT builder or no GPU here
└── PublishError    the model repository cannot be written, or another export holds it
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any


class ExportError(Exception):
    """An export did not happen; the model repository is as it was.

    The message is for people: `what` happened and, where it is known, `remedy`, what to do about it. For programs, the
    same in attributes, each None where it does not apply: `file`, a path as the message writes it, with `line` and
    `column` from 1; `field`, the field of config.pbtxt, the option or the figure concerned; `tensor`, the input or
    output; `found` and `expected`, the two values that disagree.
    """

    def __init__(
        self,
        what: str,
        *,
        remedy: str | None = None,
        file: str | Path | None = None,
        line: int | None = None,
        column: int | None = None,
        field: str | None = None,
        tensor: str | None = None,
        found: Any = None,
        expected: Any = None,
    ) -> None:
        super().__init__(what if remedy is None else f"{what}: {remedy}")
        self.what = what
        self.remedy = remedy
        self.file = None if file is None else str(file)
        self.line = line
        self.column = column
        self.field = field
        self.tensor = tensor
        self.found = found
        self.expected = expected

    @property
    def about(self) -> dict[str, Any]:
        """The attributes but `what` and `remedy` as keyword arguments, for an error that adds to this one's message."""
        return {
            name: getattr(self, name) for name in ("file", "line", "column", "field", "tensor", "found", "expected")
        }


class FileError(ExportError):
    """A file is not what it should be, or lies where its name must not lead. `why` says so without its path."""

    def __init__(self, path: Path, why: str, *, remedy: str | None = None) -> None:
        super().__init__(f"{path} {why}", remedy=remedy, file=path)
        self.why = why


class RecipeError(ExportError):
    """No recipe of that name, or weights that the recipe cannot load."""


class NotOfferedError(RecipeError):
    """A precision that the model is not exported at; it is at the `offered` ones. `why` is the reason alone."""

    def __init__(self, model: str, precision: str, why: str, offered: Sequence[str]) -> None:
        super().__init__(
            f"{model} cannot be exported at {precision}: {why} (it is exported at {', '.join(offered)})",
            field="precision",
            found=precision,
            expected=tuple(offered),
        )
        self.why = why


class ConfigError(ExportError):
    """A config.pbtxt that is missing or that Triton would not parse."""


class ContractError(ExportError):
    """The graph's names, types or shapes are not those of config.pbtxt."""


class NotLoadedError(ExportError):
    """ONNX Runtime does not load a graph."""


class LimitError(ExportError):
    """A graph took more time or memory than it may; `field` names the setting that allows more."""


class AccuracyError(ExportError):
    """A figure fell by more than the recipe tolerates.

    `field` names the figure, or `max_abs`, `max_relative` or `min_cosine` of the outputs' distance from the source's;
    `found` is the loss or the distance, `expected` the most (of a cosine the least) that is tolerated.
    """


class PublishError(ExportError):
    """The model repository could not be changed."""


class EngineError(ExportError):
    """An engine could not be built, or its answers are not those of the ONNX model; the ONNX model stands."""


class EngineUnavailableError(EngineError):
    """This machine has no TensorRT builder or no GPU."""


def did_you_mean(given: str, known: Iterable[str], *, most: int = 1) -> str:
    """` (did you mean capacity?)` for `capcity`, with up to `most` names; empty where none is near."""
    near = difflib.get_close_matches(given, list(known), n=most)
    return f" (did you mean {' or '.join(near)}?)" if near else ""
