"""What a model repository holds of one model before an export: read once, and decided on once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from export.config import config as configs
from export.config import contract
from export.config.config import Config
from export.errors import ConfigError, ContractError, ExportError
from export.repository import manifest
from export.repository.manifest import Manifest


@dataclass(frozen=True)
class Published:
    """A model's folder and those of its companions, the python models whose files come from the same export.

    A manifest is None where there is none that can be read. `configs` has config.pbtxt first.
    """

    folder: Path
    manifest: Manifest | None
    configs: tuple[Config, ...]
    companions: Mapping[str, Manifest | None]

    @staticmethod
    def read(folder: Path, companions: Sequence[str] = ()) -> Published:
        """Read all of it. Raises ConfigError for a config.pbtxt that is missing or does not parse."""
        found = tuple(map(configs.load, configs.config_paths(folder)))
        for name in companions:
            path = folder.parent / name / "config.pbtxt"
            if not path.is_file():
                raise ConfigError(
                    f"{path} is missing, and {folder.name} is served through {name}", remedy="put it back", file=path
                )
        return Published(
            folder, _manifest(folder), found, {name: _manifest(folder.parent / name) for name in companions}
        )

    @property
    def custom_weights(self) -> bool:
        """Whether the last export was of weights that a person named."""
        return self.manifest is not None and bool(self.manifest.source.get("custom_weights"))

    @property
    def label_files(self) -> set[str]:
        """The files that config.pbtxt gives outputs their labels from."""
        return {output.label_filename for output in self.configs[0].message.output if output.label_filename}

    def difference(self, build: Mapping[str, Any], *, rewriting: bool) -> str | None:
        """Why what is published must be built again, in words; None where it is what `build` would make, whole, and
        fits every configuration.

        Raises ContractError where only a configuration has changed and no longer fits, unless it is to be rewritten.
        """
        if self.manifest is None:
            return "nothing is published"
        if why := manifest.difference(self.manifest.build, build):
            return why
        if changed := self.manifest.changed_files(self.folder):
            return str(changed[0])
        for name, companion in self.companions.items():
            if companion is None or companion.source_sha256 != self.manifest.source_sha256:
                return f"the files of {name} are not of this export"
            if changed := companion.changed_files(self.folder.parent / name):
                return f"{name}: {changed[0]}"
        assert self.manifest.signature is not None
        for config in self.configs:
            try:
                contract.check(config, self.manifest.signature)
            except ContractError:
                if rewriting:
                    return f"{config.path.name} no longer fits the graph"
                raise
        return None


def _manifest(folder: Path) -> Manifest | None:
    try:
        return Manifest.read(folder)
    except ExportError:
        return None
