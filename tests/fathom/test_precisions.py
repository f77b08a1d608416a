"""`fathom demo --precision`: each precision from a repository of its own, in one table."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from export import recipes
from export.precision.precision import PRECISIONS
from export.recipe.measure import Measurement, Parity
from fathom.commands.demo import precision_table
from fathom.precisions import FOLDER, ServedPrecision, _copy_configs
from loadtests.results.result import CapacityResult
from loadtests.slo import Slo

ROOT = Path(__file__).parents[2]


def capacity(proven: float, estimate: float) -> CapacityResult:
    return CapacityResult(
        model="minilm",
        server="localhost:8001",
        slos=(Slo.parse("p99=100ms"),),
        capacity_per_s=proven,
        capacity_estimate_per_s=estimate,
        capacity_estimate_interval_per_s=(0.9 * estimate, 1.1 * estimate),
        verdict="pass",
        reason="",
        seeds=(0,),
        points=(),
        partial=False,
        manifest=None,
        hardware={},
        settings={},
        folder=None,
    )


def test_the_table_compares_estimates_with_fp32_and_leaves_out_what_was_not_served() -> None:
    measured = Measurement({"retrieval_top1": 0.952}, Parity(0.04, 0.1, 0.9688))
    rows = [
        ServedPrecision("minilm", "fp32", None, 90_310_000, measured, capacity(100.0, 110.0)),
        ServedPrecision("minilm", "fp16", "trees compare and add"),
        ServedPrecision("minilm", "int8", None, 29_880_000, measured, capacity(180.0, 220.0)),
    ]
    console = Console(width=160, record=True, file=io.StringIO())

    console.print(precision_table(rows))

    lines = console.export_text().splitlines()
    assert lines[1].split() == [
        *(
            "minilm",
            "fp32",
            "90.31",
            "MB",
            "retrieval_top1",
            "0.952",
            "0.96880",
            "110/s",
            "(99",
            "to",
            "121)",
            "1.00",
            "100/s",
        )
    ]
    assert lines[2].split() == ["fp16", *("-" for _ in range(6))]
    assert lines[3].split()[-2:] == ["2.00", "180/s"]


def test_the_configurations_of_a_pipeline_come_along_and_nothing_built(tmp_path: Path) -> None:
    _copy_configs(recipes.find("minilm"), ROOT / "model_repository", tmp_path)

    assert {path.name for path in tmp_path.iterdir()} == {"minilm", "text_tokenizer", "text_embedding"}
    assert (tmp_path / "text_tokenizer" / "1" / "model.py").is_file()
    assert not list(tmp_path.rglob("*.onnx")) + list(tmp_path.rglob("manifest.json"))


@pytest.mark.slow
def test_every_precision_is_served_and_measured(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "fathom.cli", "demo", "--precision", "all", "--json", "--report", str(tmp_path)]
    done = subprocess.run(
        [*command, "--budget", "8"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=900
    )

    rows = json.loads(done.stdout)["precisions"]
    assert [(row["model"], row["precision"]) for row in rows] == [
        (name, precision) for name in recipes.NAMES for precision in PRECISIONS
    ]
    for row in rows:
        if row["precision"] == "fp32" or row["model"] != "rain_forecast":
            assert row["capacity"]["capacity_estimate_per_s"] > 0, row["model"]
            assert row["served"]["parity"]["min_cosine"] > 0.9
        else:
            assert "trees" in row["reason"]
    assert {path.name for path in (tmp_path / FOLDER).iterdir()} == set(PRECISIONS)
