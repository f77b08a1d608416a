"""Add every ONNX file of a folder, serve all in one Triton, and print how each answers: `python -m benchmarks.added`.

The default folder holds the light models of the `onnx` package: architectures of its model zoo, whose weights were
replaced by constants. Parity is with ONNX Runtime on the original file, asked one row at a time.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from clients import Client
from export.add.add import AddOptions, add
from export.added.recipe import Added
from export.recipe.gate import gate
from export.recipe.measure import Measurement
from fathom.console.output import err, out
from fathom.recipes import measure_served
from server import TritonServer


@dataclass(frozen=True)
class Row:
    """One model: its file's versions, whether it batches, and what it earned before and behind the server."""

    name: str
    versions: dict[str, int]
    max_batch_size: int
    notes: tuple[str, ...]
    seconds: float
    onnx: Measurement
    served: Measurement


def light_models() -> Path:
    """The folder of the `onnx` package that holds the light models."""
    import onnx

    return Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"


def measure(files: Sequence[Path], model_repository: Path, *, max_batch_size: int = 4) -> list[Row]:
    """Add each file to the repository, serve them together, and hold every answer to the recipe's tolerance."""
    added = []
    for file in files:
        began = time.monotonic()
        name = file.stem.removeprefix("light_")
        made = add(name, AddOptions("onnx", str(file), max_batch_size=max_batch_size), model_repository)
        added.append((made, time.monotonic() - began))
    rows = []
    with (
        TritonServer(model_repository, ready_timeout_s=600, stop_timeout_s=0) as server,
        Client(server.grpc_url, timeout_s=60) as client,
    ):
        for made, seconds in added:
            recipe: Added = made.recipe
            earned = made.exported.manifest.stations or {}
            served = measure_served(recipe, client, model_repository)["served"]
            gate(recipe, "served", earned["source"], served)
            versions = dict(made.exported.manifest.versions or {})
            rows.append(Row(recipe.name, versions, made.max_batch_size, made.notes, seconds, earned["onnx"], served))
    return rows


def table(rows: Sequence[Row]) -> Table:
    """The rows for a person."""
    heads = ("model", "opset", "batch", "rows", "onnx max abs", "served max abs", "served min cosine", "added in")
    made = Table(*heads, box=None, pad_edge=False)
    for row in rows:
        assert row.onnx.parity is not None
        assert row.served.parity is not None
        made.add_row(
            row.name,
            str(row.versions["opset"]),
            f"1 to {row.max_batch_size}" if row.max_batch_size else "none",
            f"{row.served.accuracy['matching_rows']:.0%} match",
            f"{row.onnx.parity.max_abs:.1e}",
            f"{row.served.parity.max_abs:.1e}",
            f"{row.served.parity.min_cosine:.6f}",
            f"{row.seconds:.1f} s",
        )
    return made


def main() -> None:
    """Measure the folder that was named, or the light models."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else light_models()
    files = sorted(folder.glob("*.onnx"))
    with tempfile.TemporaryDirectory(prefix="fathom-added-") as room:
        repository = Path(room) / "model_repository"
        repository.mkdir()
        rows = measure(files, repository)
    out.print(table(rows))
    for note in dict.fromkeys(note for row in rows for note in row.notes):
        err.print(f"note {note}", markup=False, soft_wrap=True)


if __name__ == "__main__":
    main()
