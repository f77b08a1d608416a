"""The models behind one name with their committed configurations, and a repository of one variant."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from export.config import config as configs
from export.config.knobs import knobs_of, on_gpu, with_knobs, written
from export.errors import ExportError, did_you_mean
from export.repository.manifest import Manifest
from fathom.console.arguments import UsageError
from loadtests.target.hardware import describe_hardware
from loadtests.target.statistics import composing_models
from loadtests.tuning.space import Configuration, Machine, Step
from server import loading

_MIB = 1 << 20


def this_machine() -> Machine:
    """Where this process runs."""
    found = describe_hardware()
    return Machine(found["cores"], 1024 * found.get("memory_gib", 8.0), len(found.get("gpus", ())))


@dataclass(frozen=True)
class TunedModel:
    """A model or pipeline of a repository, served with `config_name`; `messages` are the ModelConfigs of the pipeline
    and of all models behind it."""

    model: str
    repository: Path
    config_name: str | None
    messages: Mapping[str, Any]
    steps: tuple[Step, ...]

    @classmethod
    def read(
        cls, model: str, repository: Path, config_name: str | None, machine: Machine, *, embedded: bool
    ) -> TunedModel:
        """Raises UsageError for a model that is not there, ConfigError for one that cannot be read."""
        messages: dict[str, Any] = {}

        def config_of(name: str) -> Any:
            if name not in messages:
                messages[name] = _committed(name, repository, config_name)
            return messages[name]

        steps = tuple(
            _step(name, repository, config_of(name), machine, embedded=embedded)
            for name in composing_models(model, config_of)
        )
        return cls(model, repository, config_name, messages, steps)

    def configured(self, configuration: Configuration) -> dict[str, Any]:
        """The ModelConfigs with a configuration's changes. A pipeline takes no larger batch than its steps."""
        changed = {
            name: with_knobs(message, configuration.models().get(name, {})) for name, message in self.messages.items()
        }
        for message in reversed(list(changed.values())):  # inner pipelines were read after the outer ones
            if message.ensemble_scheduling.step:
                parts = [changed[step.model_name].max_batch_size for step in message.ensemble_scheduling.step]
                message.max_batch_size = min([message.max_batch_size, *parts])
        return changed

    @property
    def others(self) -> list[str]:
        """The models that the pipeline's call or whose files they open, which stay as they are."""
        needed = loading.needed(self.repository, self.messages, self.config_name)
        return [name for name in needed if name not in self.messages]

    def lay_out(self, messages: Mapping[str, Any], folder: Path) -> Path:
        """A model repository of these models and of what they need in `folder`, whose files are links to the
        artefacts."""
        for name in loading.needed(self.repository, messages, self.config_name):
            message = messages.get(name) or _committed(name, self.repository, self.config_name)
            shutil.copytree(
                self.repository / name,
                folder / name,
                ignore=shutil.ignore_patterns("configs", "config.pbtxt", "__pycache__", "*.npz"),
                copy_function=_link_or_copy,
            )
            (folder / name / "config.pbtxt").write_text(written(message, "", {}))
        return folder


def _committed(model: str, repository: Path, config_name: str | None) -> Any:
    folder = repository / model
    if not (folder / "config.pbtxt").is_file():
        known = sorted(path.parent.name for path in repository.glob("*/config.pbtxt"))
        raise UsageError(
            f"{repository} has no model {model}{did_you_mean(model, known)}; it has {', '.join(known) or 'none'}"
        )
    named = folder / configs.CONFIGS / f"{config_name}.pbtxt"
    return configs.load(named if config_name and named.is_file() else folder / "config.pbtxt").message


def _step(model: str, repository: Path, message: Any, machine: Machine, *, embedded: bool) -> Step:
    artefacts = [path for path in (repository / model).glob("[0-9]*/*") if path.suffix in (".onnx", ".plan", ".data")]
    return Step(
        model,
        message.backend or message.platform,
        knobs_of(message, gpus=machine.gpus, embedded=embedded),
        on_gpu=on_gpu(message, machine.gpus),
        largest_batch=_largest_batch(repository / model, message),
        weights_mib=sum(path.stat().st_size for path in artefacts) / _MIB,
        fixed_sizes=all(-1 not in tensor.dims for tensor in message.input),
    )


def _largest_batch(folder: Path, message: Any) -> int | None:
    """The graph's, where its first axis is fixed: by the manifest, or the ONNX file itself."""
    from export.graph import signature as signatures

    try:
        manifest = Manifest.read(folder)
        signature = manifest.signature if manifest else None
        if signature is None and (folder / "1" / "model.onnx").is_file():
            signature, _ = signatures.from_onnx(folder / "1" / "model.onnx")
    except ExportError:
        return None
    if signature is None or not message.max_batch_size:
        return None
    fixed = [spec.dims[0] for spec in signature.inputs if spec.dims and spec.dims[0] > 0]
    return min(fixed, default=None)


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy2(source, target)
