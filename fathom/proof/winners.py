"""configs/<gpu>.pbtxt of the configurations that won the sweep: written when a GPU measured them, else not at all."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from export import config as configs
from fathom.errors import UsageError
from fathom.proof.deploy import Variant, configuration


def write(document: Mapping[str, Any], repository: Path) -> list[Path]:
    """Write a file for each bundled model with a winner; returns their paths. Raises UsageError for a dry run."""
    card = (document["machine"].get("gpu") or {}).get("name")
    if document["dry_run"] or not card:
        raise UsageError("these results are of no GPU: configurations are written from measurements alone")
    written = []
    for row in _rows(document):
        folder = repository / row["model"]
        source = folder / "config.pbtxt"
        if not source.is_file():
            continue  # ResNet-50 is measured, but not part of the repository
        target = folder / "configs" / f"{slug(card)}.pbtxt"
        target.parent.mkdir(exist_ok=True)
        text = configuration(source.read_text(encoding="utf-8"), Variant(**row["winner"]), "cuda")
        configs.parse(text)
        target.write_text(_comment(document, row) + text, encoding="utf-8")
        written.append(target)
    if not written:
        raise UsageError("these results have no winner of a bundled model: run the step sweep")
    return written


def slug(card: str) -> str:
    """`NVIDIA H200` is `h200`, as the file is named."""
    return re.sub(r"[^a-z0-9]+", "-", card.lower().removeprefix("nvidia ")).strip("-")


def _rows(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [row for step in document["steps"] if step["step"] == "sweep" for row in step["rows"] if "winner" in row]


def _comment(document: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    card, versions = document["machine"]["gpu"], document["machine"]["versions"]
    low, high = row["over_default_range"]
    settings = document["settings"]
    software = ", ".join(f"{name} {versions.get(name, '?')}" for name in ("onnxruntime-gpu", "nvidia-pytriton"))
    lines = (
        f"Measured by tests/gpu/proof.py on {document['date'][:10]}: {card['name']}, driver {card.get('driver', '?')},",
        f"{software}.",
        f"{row['winner_rows_per_s']:.0f} rows/s in single-row requests, {settings['in_flight']} in flight;",
        f"{row['default_rows_per_s']:.0f} with config.pbtxt.",
        f"{row['over_default']:.2f} times config.pbtxt ({low:.2f} to {high:.2f} over {settings['rounds']} rounds).",
    )
    return "".join(f"# {line}\n" for line in lines)
