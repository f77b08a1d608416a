"""TensorRT, imported only when an engine is wanted: 10.13 or newer, and what it logs."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from export.engine import gpu, plan_header
from export.errors import EngineUnavailableError

if TYPE_CHECKING:
    import tensorrt as trt

OLDEST = (10, 13)
KEPT_MESSAGES = 20


def load() -> Any:
    """The module `tensorrt`.

    Raises EngineUnavailableError, in one line, where there is no GPU, no TensorRT, or one older than 10.13.
    """
    gpu.required()
    try:
        trt = importlib.import_module("tensorrt")
    except (ImportError, OSError) as error:  # OSError: the bindings are there, libnvinfer is not
        raise EngineUnavailableError(
            f"TensorRT cannot be imported ({' '.join(str(error).split())})",
            remedy="export inside nvcr.io/nvidia/tensorrt:<the server's tag>",
        ) from None
    check_version(trt.__version__)
    return trt


def check_version(version: str) -> None:
    """Raise EngineUnavailableError for a TensorRT older than 10.13."""
    if plan_header.parse(version)[:2] < OLDEST:
        raise EngineUnavailableError(
            f"TensorRT {version} is installed, {plan_header.dotted(OLDEST)} or newer is needed: strongly typed "
            "networks from ONNX are all that 11 has left",
            found=version,
            expected=plan_header.dotted(OLDEST),
        )


@dataclass
class Messages:
    """What TensorRT logged as errors and as warnings, the first 20 of each, oldest first."""

    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def reasons(self) -> str:
        """The errors for the end of a sentence: ": first; second", or nothing."""
        return f": {'; '.join(self.errors[:3])}" if self.errors else ""


def logger(trt: Any, messages: Messages) -> trt.ILogger:
    """A logger that writes into `messages` and prints nothing; TensorRT calls it from several threads."""
    kept = {
        trt.ILogger.Severity.INTERNAL_ERROR: messages.errors,
        trt.ILogger.Severity.ERROR: messages.errors,
        trt.ILogger.Severity.WARNING: messages.warnings,
    }

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, msg: str) -> None:
            lines = kept.get(severity)
            if lines is not None and len(lines) < KEPT_MESSAGES:
                lines.append(" ".join(msg.split()))

    return Log()


def new_builder(trt: Any, log: trt.ILogger, messages: Messages) -> trt.Builder:
    """A builder. Raises EngineUnavailableError where the library gives none (no GPU, or only stubs)."""
    try:
        return trt.Builder(log)
    except TypeError:  # pybind11: the factory returned a null pointer
        raise EngineUnavailableError(
            f"TensorRT {trt.__version__} gave no builder{messages.reasons}: its library needs a GPU and a driver"
        ) from None
