"""docs/gpu.md from results.json: tables and pictures of what was measured, the word "not measured" for the rest."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fathom.proof import pictures
from fathom.proof.runner import TITLES
from fathom.proof.tables import TABLES, Row, table

NOT_MEASURED = "not measured"
_NO_GPU = "- GPU: none used"


def write(document: Mapping[str, Any], target: Path) -> None:
    """Write the page, and beside it a folder of the same name with the pictures."""
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = target.with_suffix("")
    drawn = {} if document["dry_run"] else pictures.draw(document)
    if drawn:
        folder.mkdir(exist_ok=True)
    for name, svg in drawn.items():
        (folder / f"{name}.svg").write_text(svg, encoding="utf-8")
    links = {name: f"{folder.name}/{name}.svg" for name in drawn}
    target.write_text(render(document, links), encoding="utf-8")


def holds_measurements(page: Path) -> bool:
    """Whether a page was rendered from results of a GPU."""
    return page.is_file() and _NO_GPU not in page.read_text(encoding="utf-8")


def render(document: Mapping[str, Any], links: Mapping[str, str] | None = None) -> str:
    """The page's text; `links` are the pictures there are."""
    parts = ["# Measured on a GPU\n", _HEAD, _machine(document)]
    parts += [_claims(document)]
    for step in document["steps"]:
        parts.append(f"## {TITLES[step['step']]}\n")
        if document["dry_run"]:
            parts.append(f"GPU figures: **{NOT_MEASURED}**. Dry run on the CPU: {_exercised(step)}\n")
        elif step["rows"]:
            parts.append(TABLES[step["step"]](step["rows"]))
            if step["step"] in (links or {}):
                parts.append(f"![{TITLES[step['step']]}]({(links or {})[step['step']]})\n")
        else:
            parts.append(f"**{NOT_MEASURED}**\n")
        parts.append(_gaps(step))
    return "\n".join(part for part in parts if part).rstrip() + "\n"


_HEAD = """Written by `tests/gpu/proof.py` from its results; nothing here is typed by hand. How to run it on a machine
without network is in [gpu-machine.md](gpu-machine.md).
"""


def _machine(document: Mapping[str, Any]) -> str:
    machine = document["machine"]
    card, hardware = machine["gpu"], machine["hardware"]
    lines = [f"- date: {document['date']}, {document['minutes']:g} minutes"]
    if document["dry_run"] or not card:
        lines.append(f"{_NO_GPU}; every GPU figure is **{NOT_MEASURED}**")
    else:
        lines.append("- GPU: " + ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in card.items()))
        if document.get("gpu_afterwards"):
            after = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in document["gpu_afterwards"].items())
            lines.append(f"- GPU afterwards: {after}")
    lines.append(f"- host: {hardware.get('cpu', '?')}, {hardware.get('cores', '?')} cores, {hardware.get('os', '?')}")
    lines.append("- versions: " + ", ".join(f"{name} {version}" for name, version in machine["versions"].items()))
    return "\n".join(lines) + "\n"


def _claims(document: Mapping[str, Any]) -> str:
    """The ratios that the project wants to reach, first."""
    wanted = [("served / bare from host memory, 32 rows a request", 32, 0.8), ("..., one row a request", 1, 0.5)]
    rows = []
    served = [] if document["dry_run"] else _rows(document, "served")
    for title, batch, bound in wanted:
        found = [
            row["of_bare_from_host"] for row in served if row.get("batch") == batch and row.get("of_bare_from_host")
        ]
        value = f"{max(found):.2f}" if found else NOT_MEASURED
        rows.append([title, value, f">= {bound}", "" if not found else "reached" if max(found) >= bound else "missed"])
    sweep = [] if document["dry_run"] else [row for row in _rows(document, "sweep") if "winner" in row]
    best = f"{max(row['over_default'] for row in sweep):.2f}" if sweep else NOT_MEASURED
    rows.append(["best configuration / committed one", best, "", ""])
    return table(["ratio", "best model", "wanted", ""], rows)


def _exercised(step: Row) -> str:
    if not step["rows"]:
        return f"{step['status']}."
    words = sorted({" ".join(str(row[key]) for key in ("model", "precision") if key in row) for row in step["rows"]})
    return f"{len(step['rows'])} rows in {step['seconds']:g} s ({', '.join(word for word in words if word)})."


def _gaps(step: Row) -> str:
    lines = [] if step["status"] == "measured" else [f"- {step['status']}: {step['why']}"]
    lines += [f"- skipped: {each['what']}: {each['why']}" for each in step["skipped"]]
    lines += [f"- failed: {each['what']}: {each['why']}" for each in step["failed"]]
    return "\n".join(lines) + "\n" if lines else ""


def _rows(document: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    return [row for step in document["steps"] if step["step"] == name for row in step["rows"]]
