"""Which configuration Triton serves each model with, and which TensorRT plans nothing serves.

Triton takes configs/NAME.pbtxt under --model-config-name=NAME where a model has it, and config.pbtxt where it has not,
without a word: a plan that only a configuration of another name loads is then not served.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from export.config import backends
from export.config import config as configs
from export.errors import ConfigError

MAIN, PLAN = "config.pbtxt", "model.plan"
COMPLETED = "completed by Triton"  # instead of a configuration file
_OWN_FILES = frozenset(("tensorrt", "python"))
"""Backends whose models load plans: TensorRT's the one that the configuration names, a model.py any."""


@dataclass(frozen=True)
class Served:
    """One model: the file of its folder that configures it, the backend, and its plans.

    `plans` are those that this configuration loads; `others` the remaining ones, each with the names of the
    configurations that load it (`config.pbtxt` itself has the empty name).
    """

    model: str
    file: str
    backend: str
    plans: tuple[str, ...]
    others: Mapping[str, tuple[str, ...]]

    @property
    def unserved(self) -> Mapping[str, tuple[str, ...]]:
        """The plans that nothing serves: of no configuration at all, or all of them where this one loads none."""
        return {plan: names for plan, names in self.others.items() if not (names and self.plans)}

    @property
    def how(self) -> str:
        """The backend, and the plans that it loads."""
        return ", ".join((self.backend, *self.plans))

    def __str__(self) -> str:
        return f"{self.file} ({self.how})"

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary for `--json`."""
        return {"configuration": self.file, "backend": self.backend, "plans": list(self.plans)}


def served(model_repository: Path, config_name: str | None) -> list[Served]:
    """Every model under `--model-config-name=config_name`, by name. One whose configuration does not parse is left out:
    Triton does not serve it."""
    folders = sorted(path for path in model_repository.iterdir() if path.is_dir() and not path.name.startswith("."))
    return [found for folder in folders if (found := of_folder(folder, config_name)) is not None]


def names(model_repository: Path) -> list[str]:
    """The names that some model has a configuration for."""
    return sorted({path.stem for path in model_repository.glob("*/configs/*.pbtxt")})


def of_folder(folder: Path, config_name: str | None) -> Served | None:
    """The model of one folder; None where there is none, or its configuration does not parse."""
    chosen = folder / "configs" / f"{config_name}.pbtxt"
    if config_name is None or not chosen.is_file():
        chosen = folder / MAIN
    plans = sorted({path.name for path in folder.glob("[0-9]*/*.plan")})
    loaded: dict[str, set[str]] = {}
    backend = ""
    for path in (folder / MAIN, *sorted((folder / "configs").glob("*.pbtxt"))):
        try:
            message = configs.load(path).message if path.is_file() else configs.parse("")
        except ConfigError:
            if path == chosen:
                return None
            continue
        if path == chosen:
            backend = _backend(message, folder)
        loaded[path.stem if path.parent.name == "configs" else ""] = _loads(message, folder, plans)
    if not backend:
        return None
    here = loaded[chosen.stem if chosen != folder / MAIN else ""]
    others = {
        plan: tuple(name for name, which in loaded.items() if plan in which) for plan in plans if plan not in here
    }
    file = chosen.relative_to(folder).as_posix() if chosen.is_file() else COMPLETED
    return Served(folder.name, file, backend, tuple(plan for plan in plans if plan in here), others)


def _backend(message: Any, folder: Path) -> str:
    """As Triton completes it; empty where it finds none and refuses the model."""
    if message.platform == "ensemble" or message.HasField("ensemble_scheduling"):
        return "ensemble"
    return backends.completed(message, folder)


def _loads(message: Any, folder: Path, plans: list[str]) -> set[str]:
    backend = _backend(message, folder)
    if backend not in _OWN_FILES:
        return set()
    if backend == "python":
        return set(plans)
    return {message.default_model_filename or PLAN, *message.cc_model_filenames.values()}
