"""What docker-compose.yml beside a model repository starts: the Triton release, and the configuration by name."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from export import files


@dataclass(frozen=True)
class Deployment:
    """`triton_tag` is such as `26.08-py3`, `config_name` what `--model-config-name` gets; None where none is named."""

    triton_tag: str | None = None
    config_name: str | None = None


def deployment(folder: Path) -> Deployment:
    """The deployment of docker-compose.yml in `folder`, with variables from .env; empty without that file."""
    try:
        compose = files.read_text(folder / "docker-compose.yml")
    except FileNotFoundError:
        return Deployment()
    values: dict[str, str] = {}
    if (folder / ".env").exists():
        for line in files.read_text(folder / ".env").splitlines():
            if match := re.match(r"\s*(?:export\s+)?(\w+)\s*=\s*[\"']?([^\"'#\s]*)", line):
                values[match[1]] = match[2]

    def substitute(match: re.Match[str]) -> str:
        return values.get(match["name"] or match["bare"], "") or match["default"] or ""

    text = re.sub(r"\$(?:\{(?P<name>\w+)(?::?-(?P<default>[^}]*))?\}|(?P<bare>\w+))", substitute, compose)

    def named(pattern: str) -> str | None:
        found = re.search(rf"^[^#\n]*{pattern}", text, re.MULTILINE)
        return found[1] if found else None

    return Deployment(named(r"tritonserver:(\d\d\.\d\d[\w.-]*)"), named(r"--model-config-name=([\w.-]+)"))
