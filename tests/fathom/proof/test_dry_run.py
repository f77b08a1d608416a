"""The whole proof on the CPU: every step in its own process, its skips by name, a page that claims nothing."""

import json
import os

import pytest

from fathom.proof import cli, runner
from fathom.proof.settings import MODELS


def run(tmp_path, repository, *more):
    results, page = tmp_path / "results.json", tmp_path / "gpu.md"
    status = cli.main(
        ["--dry-run", "--model-repository", str(repository), "--results", str(results), "--document", str(page),
         "--keep", str(tmp_path / "room"), *more]
    )  # fmt: skip
    document = json.loads(results.read_text())
    gaps = {
        step["step"]: {each["what"]: each["why"] for each in (*step["skipped"], *step["failed"])}
        for step in document["steps"]
    }
    return status, {step["step"]: step for step in document["steps"]}, gaps, page.read_text()


def test_a_short_dry_run_serves_and_names_what_it_skips(tmp_path, exported_repository, capfd):
    words = ["--models", "mobilenet_v2", "--precisions", "fp32", "--steps", "accuracy", "served", "tensorrt"]
    status, steps, gaps, page = run(tmp_path, exported_repository, *words)
    said = capfd.readouterr().err
    assert status == 0, said
    assert {name: step["status"] for name, step in steps.items()} == {
        "prepare": "measured", "accuracy": "measured", "served": "measured", "tensorrt": "skipped",
    }  # fmt: skip
    assert "no NVIDIA GPU was found" in steps["tensorrt"]["why"]
    assert "cuda" in gaps["served"]["mobilenet_v2 fp32 over cuda"]
    assert steps["accuracy"]["rows"][0]["parity"]["max_abs"] < 1e-4
    check_served(steps)
    assert "skipped: tensorrt: no NVIDIA GPU was found" in said
    assert "no figure of it is a GPU's" in said
    assert "every GPU figure is **not measured**" in page


def check_served(steps):
    rows = steps["served"]["rows"]
    assert {row["transport"] for row in rows if "batch" in row} == {"grpc", "system"}
    assert any(row.get("slo") for row in rows)


@pytest.mark.slow
def test_a_dry_run_of_all_models_takes_every_step_and_every_precision_that_is_there(tmp_path, exported_repository):
    status, steps, gaps, page = run(tmp_path, exported_repository, "--minutes", os.environ.get("PROOF_MINUTES", "5"))
    assert status == 0, gaps
    assert list(steps) == list(runner.STEPS)
    assert {step["status"] for name, step in steps.items() if name != "tensorrt"} == {"measured"}
    prepared = {(row["model"], row["precision"]) for row in steps["prepare"]["rows"]}
    assert prepared >= {("resnet50", "fp32"), ("resnet50", "fp16"), ("resnet50", "int8"), ("minilm", "fp32")}
    assert "fathom.proof.artefacts" in gaps["prepare"]["minilm fp16"]

    check_served(steps)
    assert {row["model"] for row in steps["served"]["rows"]} == set(MODELS)
    assert all(row["of_bare"] > 0 for row in steps["served"]["rows"] if "batch" in row)

    handed = steps["hand_over"]["rows"]
    assert [row["hand_over"] for row in handed] == ["host", "device"]
    assert all(row["parity"]["max_abs"] < 1e-4 for row in handed)
    assert gaps["hand_over"]["minilm fp32"] == "a dry run hands over one model"

    assert any("winner" in row for row in steps["sweep"]["rows"])
    assert gaps["sweep"]["resnet50 fp32"] == "a dry run sweeps one model"

    assert {(row["model"], row["mode"]) for row in steps["eager"]["rows"]} == {(model, "eager") for model in MODELS}
    assert all(row["max_relative"] < 1e-4 for row in steps["eager"]["rows"] if row["model"] == "mobilenet_v2")
    assert "compiles nothing" in gaps["eager"]["mobilenet_v2 fp32, torch compiled"]
    assert "not measured" in page


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--models", "alexnet"], "no model 'alexnet': choose resnet50"),
        (["--steps", "boast"], "no step 'boast': choose prepare"),
        (["--render", "nowhere.json"], "nowhere.json"),
    ],
)
def test_wrong_arguments_are_one_line_and_status_2(words, why, capfd):
    assert cli.main(["--dry-run", *words]) == 2
    said = capfd.readouterr().err
    assert why in said
    assert "Traceback" not in said
