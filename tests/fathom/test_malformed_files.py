"""Malformed files of every kind that Fathom reads: one of its own errors or an answer, soon and in bounded memory."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from imported_models import F, matrix, node, write
from malformed import at_most, malformed, peak_bytes
from simulated import run_search

from clients import ModelSpec, TensorSpec
from export import recipes
from export.add.add import AddOptions, add
from export.added.recipe import read_example
from export.errors import ExportError
from export.lint.lint import lint
from export.recipe.measure import Reference
from export.repository.manifest import Manifest
from export.sources import ONNX, validation
from loadtests.errors import LoadTestError
from loadtests.records.record import Record
from loadtests.results.store import Run, Store, read_runs
from loadtests.slo import Slo
from loadtests.workload.inputs import encode_line
from loadtests.workload.lines import read_lines
from loadtests.workload.trace import read_trace

SEED = 20_261_130
SECONDS, MOST_BYTES = 5.0, 1 << 30
"""Of one file, and of all that a kind's files may add to the process's memory."""

SPEC = ModelSpec(
    "m", "1", 8, {"x": TensorSpec("x", "FP32", (3,)), "t": TensorSpec("t", "BYTES", (-1,), optional=True)}, {}
)
INPUTS = '{"x": [[1.0, 2.5, -3e4]]}\n{"x": [[1, 2, 3]], "t": [["play some jazz", "@@home"]]}\n'
TRACE = "offset_ms,model,payload\n0.0,m,3\n12,m,0\n1e3,other,17\n"
FILES = {
    "configuration": "r/m/config.pbtxt",
    "graph": "r/m/1/model.onnx",
    "manifest": "r/m/1/manifest.json",
    "recipe": "r/m/recipe.toml",
    "example": "r/m/1/reference.npz",
    "run": "results/m/latest/run.json",
    "points": "results/m/latest/points.jsonl",
    "capacity": "results/m/latest/capacity.json",
    "raw": "results/m/latest/raw/probe-001.npz",
    "trace": "trace.csv",
    "inputs": "inputs.jsonl",
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a valid file of each kind."""
    made = tmp_path_factory.mktemp("malformed")
    (made / "r").mkdir()
    shapes = [("x", F, ["rows", 3])], [("y", F, ["rows", 2])]
    path = write(made / "m.onnx", [node("MatMul", ["x", "w"], ["y"])], *shapes, {"w": matrix(3, 2)})
    add("m", AddOptions(ONNX, str(path)), made / "r")
    slo = Slo.parse("p99=20ms")
    run = Run("m", "simulated:1", (slo,), 0, {"budget_s": 60.0}, {}, {"cpu": "none"}, "2026-11-22T00:00")
    store = Store(made / "results", run)
    points = [*run_search(slo, 0.001, budget_s=60, seed=1)[:3]]
    for point in points:
        store.add(point)
    store.finish(run.result(points, partial="", folder=store.folder))
    times = np.arange(4.0)
    store.save_record(1, Record(times, times, times, np.zeros(4, np.uint8)))
    (made / "trace.csv").write_text(TRACE)
    (made / "inputs.jsonl").write_text(INPUTS)
    return made


def read_recipe(path: Path) -> None:
    recipe = recipes.find("m", path.parents[1])
    recipe.resolve(None)
    recipe.load(recipe.resolve(None))


def read_graph(path: Path) -> None:
    lint(path.parents[2])
    validation.check_graph(validation.read_onnx(path), path, None)


def read_manifest(path: Path) -> None:
    lint(path.parents[2])
    manifest = Manifest.read(path.parents[1])
    assert manifest is not None
    manifest.to_json()


def read_arrays(path: Path) -> None:
    Reference.read(path)
    read_example(path)


def read_requests(path: Path) -> None:
    for number, line in read_lines(path):
        encode_line(SPEC, path, number, line)


READERS: dict[str, Callable[[Path], object]] = {
    "configuration": lambda path: lint(path.parents[1]),
    "graph": read_graph,
    "manifest": read_manifest,
    "recipe": read_recipe,
    "example": read_arrays,
    "run": lambda path: read_runs(path.parent),
    "points": lambda path: read_runs(path.parent),
    "capacity": lambda path: read_runs(path.parent),
    "raw": Record.load,
    "trace": read_trace,
    "inputs": read_requests,
}
CALM = {
    "graph": 40,
    "recipe": 40,
    "manifest": 60,
    "configuration": 60,
}
"""How many files of a kind that takes longer the quick run reads."""


def read_malformed(home: Path, kind: str, seed: int, count: int) -> None:
    """Read so many malformed files. Whatever is raised but our own errors names the number of the file."""
    path = home / FILES[kind]
    valid = path.read_bytes()
    before = peak_bytes()
    try:
        for number, content in enumerate(malformed([valid], seed, count)):
            path.write_bytes(content)
            try:
                with at_most(SECONDS):
                    READERS[kind](path)
            except (ExportError, LoadTestError):
                pass
            except BaseException as error:
                error.add_note(f"file {number} of {kind}, seed {seed}: {content[:200]!r}")
                raise
    finally:
        path.write_bytes(valid)
    assert peak_bytes() - before < MOST_BYTES


@pytest.mark.parametrize("kind", READERS)
def test_a_malformed_file_is_an_error_of_ours_or_read(home: Path, kind: str) -> None:
    read_malformed(home, kind, SEED, CALM.get(kind, 150))


@pytest.mark.slow
@pytest.mark.parametrize("kind", READERS)
def test_a_hundred_thousand_malformed_files(home: Path, kind: str) -> None:
    total = int(os.environ.get("FATHOM_TEST_MALFORMED", "100000"))
    read_malformed(home, kind, SEED + 1, -(-total // len(READERS)))
