"""docs/gpu.md from results.json: tables and pictures of what was measured, the word "not measured" for the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fathom.proof import pictures
from fathom.proof.runner import TITLES

NOT_MEASURED = "not measured"
_NO_GPU = "- GPU: none used"
Row = Mapping[str, Any]


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
            parts.append(_TABLES[step["step"]](step["rows"]))
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
    return _table(["ratio", "best model", "wanted", ""], rows)


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


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)]) + "\n"


def _number(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _prepared(rows: Sequence[Row]) -> str:
    return _table(
        ["model", "precision", "MB"], ([row["model"], row["precision"], f"{row['bytes'] / 1e6:.1f}"] for row in rows)
    )


def _accuracy(rows: Sequence[Row]) -> str:
    heads = ["model", "precision", "rows", "figures", "at the source", "max abs", "relative", "min cosine"]

    def figures(given: Mapping[str, float]) -> str:
        return ", ".join(f"{name} {value:.4g}" for name, value in given.items())

    return _table(
        heads,
        (
            [
                row["model"],
                row["precision"],
                str(row["rows"]),
                figures(row["figures"]),
                figures(row["at_source"]),
                f"{row['parity']['max_abs']:.1e}",
                f"{row['parity']['max_relative']:.1e}",
                f"{row['parity']['min_cosine']:.5f}",
            ]
            for row in rows
        ),
    )


def _roofline(rows: Sequence[Row]) -> str:
    words = ""
    for row in rows:
        if "ceilings" in row:
            found = row["ceilings"]
            rates = ", ".join(f"{kind} {rate * 2 / 1e12:.0f}" for kind, rate in found["macs_per_s"].items())
            words = f"Ceilings measured on this GPU: copy {found['bytes_per_s'] / 1e9:.0f} GB/s; TFLOP/s {rates}.\n\n"
    heads = [
        "model",
        "precision",
        "batch",
        "rows/s on the device",
        "rows/s from host",
        "roofline",
        "share",
        "operators",
    ]
    return words + _table(
        heads,
        (
            [
                row["model"],
                row["precision"],
                str(row["batch"]),
                _number(row["rows_per_s"]),
                _number(row["from_host_rows_per_s"]),
                _number(row["roofline_rows_per_s"]),
                _share(row["roofline_share"]),
                ", ".join(f"{count} {name.removesuffix('ExecutionProvider')}" for name, count in
                          row["nodes_by_provider"].items()),
            ]
            for row in rows
            if "batch" in row
        ),
    )  # fmt: skip


def _served(rows: Sequence[Row]) -> str:
    throughput = _table(
        ["model", "transport", "rows a request", "in flight", "rows/s", "of bare", "of bare from host"],
        (
            [
                row["model"],
                row["transport"],
                str(row["batch"]),
                str(row["in_flight"]),
                _number(row["rows_per_s"]),
                _share(row["of_bare"]),
                _share(row["of_bare_from_host"]),
            ]
            for row in rows
            if "batch" in row
        ),
    )
    capacity = _table(
        ["model", "transport", "SLO", "certified/s", "estimate/s", "verdict", "of bare"],
        (
            [
                row["model"],
                row["transport"],
                row["slo"],
                _number(row["capacity_per_s"]),
                _number(row["estimate_per_s"]),
                row["verdict"],
                _share(row.get("of_bare")),
            ]
            for row in rows
            if "slo" in row
        ),
    )
    handed = _table(
        ["model behind another", "rows a request", "tensors handed over", "rows/s", "relative to the source"],
        ([row["model"], str(row["rows"]), row["hand_over"], _number(row["rows_per_s"]),
          f"{row['parity']['max_relative']:.1e}"] for row in rows if "hand_over" in row),
    )  # fmt: skip
    return f"{throughput}\n{capacity}\n{handed}"


def _sweep(rows: Sequence[Row]) -> str:
    def variant(row: Row) -> list[str]:
        place = "device" if row["device_tensors"] else "host"
        return [str(row["instances"]), str(row["max_batch_size"]), str(row["queue_delay_us"]), place]

    heads = ["model", "instances", "max batch", "delay us", "tensors"]
    won = _table(
        [*heads, "rows/s", "committed", "ratio", "range"],
        (
            [
                row["model"],
                *variant(row["winner"]),
                _number(row["winner_rows_per_s"]),
                _number(row["default_rows_per_s"]),
                _share(row["over_default"]),
                " to ".join(map(_share, row["over_default_range"])),
            ]
            for row in rows
            if "winner" in row
        ),
    )
    tried = _table(
        [*heads, "rows/s"],
        ([row["model"], *variant(row), _number(row["rows_per_s"])] for row in rows if "winner" not in row),
    )
    return f"The winners against config.pbtxt, in turn:\n\n{won}\nAll that were tried:\n\n{tried}"


def _tensorrt(rows: Sequence[Row]) -> str:
    return _table(
        ["model", "precision", "batch", "rows/s from host", "build s", "relative", "min cosine"],
        (
            [
                row["model"],
                row["precision"],
                str(row["batch"]),
                _number(row["from_host_rows_per_s"]),
                _number(row["build_seconds"]),
                f"{row['parity']['max_relative']:.1e}",
                f"{row['parity']['min_cosine']:.5f}",
            ]
            for row in rows
        ),
    )


def _eager(rows: Sequence[Row]) -> str:
    return _table(
        ["model", "precision", "torch", "batch", "rows/s on the device", "ONNX Runtime / torch"],
        (
            [
                row["model"],
                row["precision"],
                row["mode"],
                str(row["batch"]),
                _number(row["rows_per_s"]),
                _share(row["onnxruntime_over_torch"]),
            ]
            for row in rows
        ),
    )


_TABLES: Mapping[str, Callable[[Sequence[Row]], str]] = {
    "prepare": _prepared,
    "accuracy": _accuracy,
    "roofline": _roofline,
    "served": _served,
    "sweep": _sweep,
    "tensorrt": _tensorrt,
    "eager": _eager,
}
