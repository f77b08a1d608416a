"""The tables of docs/gpu.md, one function per step: rows as results.json has them in, Markdown out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)]) + "\n"


def _number(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _prepared(rows: Sequence[Row]) -> str:
    return table(
        ["model", "precision", "MB"], ([row["model"], row["precision"], f"{row['bytes'] / 1e6:.1f}"] for row in rows)
    )


def _accuracy(rows: Sequence[Row]) -> str:
    heads = ["model", "precision", "rows", "figures", "at the source", "max abs", "relative", "min cosine"]

    def figures(given: Mapping[str, float]) -> str:
        return ", ".join(f"{name} {value:.4g}" for name, value in given.items())

    return table(
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
    return words + table(
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
    throughput = table(
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
    capacity = table(
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
    return f"{throughput}\n{capacity}"


def _hand_over(rows: Sequence[Row]) -> str:
    return table(
        ["model behind another", "rows a request", "tensors handed over", "rows/s", "relative to the source"],
        ([row["model"], str(row["rows"]), row["hand_over"], _number(row["rows_per_s"]),
          f"{row['parity']['max_relative']:.1e}"] for row in rows),
    )  # fmt: skip


def _sweep(rows: Sequence[Row]) -> str:
    def variant(row: Row) -> list[str]:
        place = "device" if row["device_tensors"] else "host"
        return [str(row["instances"]), str(row["max_batch_size"]), str(row["queue_delay_us"]), place]

    heads = ["model", "instances", "max batch", "delay us", "tensors"]
    won = table(
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
    tried = table(
        [*heads, "rows/s"],
        ([row["model"], *variant(row), _number(row["rows_per_s"])] for row in rows if "winner" not in row),
    )
    return f"The winners against config.pbtxt, in turn:\n\n{won}\nAll that were tried:\n\n{tried}"


def _tensorrt(rows: Sequence[Row]) -> str:
    return table(
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
    return table(
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


TABLES: Mapping[str, Callable[[Sequence[Row]], str]] = {
    "prepare": _prepared,
    "accuracy": _accuracy,
    "roofline": _roofline,
    "served": _served,
    "hand_over": _hand_over,
    "sweep": _sweep,
    "tensorrt": _tensorrt,
    "eager": _eager,
}
"""By step."""
