"""A model's config.pbtxt and its named configurations, parsed by the protocol that Triton itself uses."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from export import files
from export.config.positions import Places
from export.errors import ConfigError, FileError

LARGEST = 4_000_000
"""Characters of a configuration that are read: a second of work for each half million."""

TENSORRT = {"execution_context_allocation_strategy", "enable_multi_device", "multi_device_gpus"}
CONFIGS = "configs"


@dataclass(frozen=True)
class Config:
    """One parsed file. `message` is an `inference.ModelConfig`; `places` has the position of each field."""

    path: Path
    text: str
    message: Any

    @cached_property
    def places(self) -> Places:
        return Places(self.text)

    @property
    def label(self) -> str:
        """The file as messages name it."""
        return label(self.path)


def label(path: Path) -> str:
    """A configuration file as messages name it: `mobilenet_v2/config.pbtxt`, `mobilenet_v2/configs/cpu.pbtxt`."""
    depth = 3 if path.parent.name == CONFIGS else 2
    return "/".join(path.parts[-depth:])


def parse(text: str) -> Any:
    """The text as an `inference.ModelConfig`.

    Raises ConfigError, with line and column, for what Triton would not parse, and for more than LARGEST characters.
    """
    from tritonclient.grpc import model_config_pb2

    return model_config_pb2.ModelConfig.FromString(_parsed(text))


@lru_cache(maxsize=16)
def _parsed(text: str) -> bytes:
    """The message's bytes: one check reads the same file several times, and text takes protobuf long."""
    from google.protobuf import text_format  # type: ignore[import-untyped]
    from tritonclient.grpc import model_config_pb2

    if len(text) > LARGEST:
        raise ConfigError(f"it has {len(text) / 1e6:.1f} million characters, and at most {LARGEST / 1e6:.0f} are read")
    try:
        message: bytes = text_format.Parse(text, model_config_pb2.ModelConfig()).SerializeToString()
        return message
    except text_format.ParseError as error:
        line, column = error.GetLine(), error.GetColumn()
        # The text is "LINE:COLUMN : 'the line': reason", with the quoted line left out for some.
        reason, field = _in_words(re.sub(r"^(\d+:\d+ : )?('.*': )?", "", str(error).strip(), flags=re.DOTALL))
        where = f"line {line}, column {column}: " if line is not None else ""
        raise ConfigError(f"{where}{reason}", line=line, column=column, field=field) from None
    except (ValueError, OverflowError, RecursionError) as error:  # a number that no field holds, too deep a nesting
        raise ConfigError(f"it does not parse ({error})") from None


def load(path: Path) -> Config:
    """Read one file. Raises ConfigError when it is missing, is not UTF-8, or does not parse."""
    try:
        folder = path.parents[1] if path.parent.name == CONFIGS else path.parent
        text = files.read_text(files.find(folder, path))
    except FileNotFoundError:
        raise ConfigError(f"{path} is missing: every model folder needs one", file=path) from None
    except FileError as error:
        raise ConfigError(error.what, remedy=error.remedy, file=path) from None
    try:
        return Config(path, text, parse(text))
    except ConfigError as error:
        raise ConfigError(f"{label(path)}: {error}", **{**error.about, "file": label(path)}) from None


def config_paths(model_folder: Path) -> list[Path]:
    """config.pbtxt and every configs/*.pbtxt of a model folder, in that order."""
    return [model_folder / "config.pbtxt", *sorted((model_folder / CONFIGS).glob("*.pbtxt"))]


def _in_words(reason: str) -> tuple[str, str | None]:
    """Protobuf's reason, its commonest ones in plainer words, and the field that it calls unknown."""
    if match := re.match(r'Message type "inference\.([\w.]+)" has no field named "([^"]+)"', reason):
        return f"unknown field '{match[2]}' (Triton's {match[1]} has no such field)", match[2]
    if match := re.match(r'Enum type "inference\.([\w.]+)" has no value named (\w+)', reason):
        return f"unknown value {match[2]} (Triton's {match[1]} has no such value)", None
    return reason.rstrip("."), None
