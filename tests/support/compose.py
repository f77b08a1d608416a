"""docker-compose.yml as Docker Compose reads it: YAML anchors, merge keys and ${VARIABLES}."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

FILE = Path(__file__).parents[2] / "docker-compose.yml"
VARIABLE = re.compile(r"\$\{(?P<name>\w+)(?:(?P<rule>:-|:\?)(?P<text>[^}]*))?\}")


def interpolate(text: str, values: dict[str, str]) -> str:
    """Fill in ${NAME}, ${NAME:-default} and ${NAME:?complaint}; KeyError(complaint) where a value has to be given."""

    def fill(match: re.Match[str]) -> str:
        value = values.get(match["name"], "")
        if value or not match["rule"]:
            return value
        if match["rule"] == ":?":
            raise KeyError(match["text"])
        return match["text"]

    return VARIABLE.sub(fill, text)


def read(values: dict[str, str]) -> dict[str, Any]:
    """The file with every string interpolated."""

    def walk(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: walk(value) for key, value in node.items()}
        if isinstance(node, list):
            return [walk(value) for value in node]
        return interpolate(node, values) if isinstance(node, str) else node

    document: dict[str, Any] = walk(yaml.safe_load(FILE.read_text()))
    return document


def variables() -> set[str]:
    """The names of all variables."""
    return {match["name"] for match in VARIABLE.finditer(FILE.read_text())}
