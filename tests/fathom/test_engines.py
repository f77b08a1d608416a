"""`fathom export` and engines: built where they can be, one line where they cannot, exit 2 where asked for."""

from __future__ import annotations

import argparse
import json
import re
from functools import partial
from pathlib import Path
from typing import Any

import engine_machine
import onnx
import pytest
import tensorrt_bindings
from scale_model import Scale, tree, write_repository

from export import recipes
from export.config.deployment import deployment
from export.config.served import of_folder
from export.engine import cuda, gpu, library, plan_header
from export.engine import export as engine_export
from export.engine.options import EngineOptions
from fathom import cli, engines
from fathom.console.output import Steps

H200 = gpu.Gpu("NVIDIA H200", "9.0", "580.65.06")


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The small repository, whose recipe `fathom export scale` finds, on a machine without a GPU."""
    weights = tmp_path / "gain.txt"
    weights.write_text("2")
    monkeypatch.setattr(recipes, "find", lambda name, repository=None: Scale(weights))
    monkeypatch.setattr(gpu, "find", lambda: None)
    return write_repository(tmp_path / "model_repository")


@pytest.fixture
def with_gpu(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that gives this machine an H200 and a TensorRT whose methods answer as told."""
    monkeypatch.setattr(engine_export, "Device", partial(cuda.Device, str(engine_machine.compile_driver(tmp_path))))
    monkeypatch.setattr(gpu, "find", lambda: H200)

    def have(**more: Any) -> None:
        trt, _ = engine_machine.tensorrt(tensorrt_bindings.surface("11.4.0.106"), **more)
        monkeypatch.setattr(library, "load", lambda: trt)

    return have


def export(repository: Path, *arguments: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, Any, str]:
    """`fathom export scale --json ...`: (status, the document or None, stderr)."""
    status = cli.main(["export", "scale", "--json", "--model-repository", str(repository), *arguments])
    captured = capsys.readouterr()
    return status, json.loads(captured.out)["models"][0] if captured.out else None, captured.err


def test_the_name_that_compose_starts_triton_with_serves_the_engine_that_export_builds(
    repository: Path, with_gpu: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    with_gpu()
    name = deployment(Path(__file__).parents[2]).config_name
    assert of_folder(repository / "scale", name).plans == ()
    status, _, said = export(repository, "--engine", capsys=capsys)
    assert status == 0
    assert f"--model-config-name={name}" in said
    assert of_folder(repository / "scale", name).plans == ("model.plan",)


def test_without_a_gpu_onnx_is_published_and_one_line_says_so(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, document, said = export(repository, capsys=capsys)
    assert status == 0
    assert document["engine"] is None
    assert not document["unchanged"]
    (line,) = [line for line in said.splitlines() if "nvidia-smi" in line]
    assert line.startswith("note: ")


def test_an_engine_that_was_asked_for_is_an_error_before_anything_is_done(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = tree(repository)
    status, document, said = export(repository, "--engine", capsys=capsys)
    assert (status, document) == (2, None)
    assert said.count("\n") == 1
    assert said.startswith("fathom export: ")
    assert "nvidia-smi" in said
    assert tree(repository) == before


def test_no_engine_does_not_even_look(
    repository: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library, "load", pytest.fail)
    status, document, said = export(repository, "--no-engine", capsys=capsys)
    assert (status, document["engine"]) == (0, None)
    assert "nvidia-smi" not in said


def test_an_engine_is_built_by_default_and_left_alone_the_next_time(
    repository: Path, with_gpu: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    with_gpu()
    status, document, said = export(repository, "--workspace-gb", "2", "--no-tf32", capsys=capsys)
    engine = document["engine"]
    assert status == 0
    assert (engine["tensorrt"], engine["gpu"]["name"], engine["unchanged"]) == ("11.4.0.106", "NVIDIA H200", False)
    assert (engine["options"]["workspace_gb"], engine["options"]["tf32"]) == (2, False)
    assert "NVIDIA H200" in said
    assert (repository / "scale" / "1" / "model.plan").is_file()
    status, document, _ = export(repository, "--workspace-gb", "2", "--no-tf32", capsys=capsys)
    assert (status, document["unchanged"], document["engine"]["unchanged"]) == (0, True, True)


REFUSED = {"answers": {"OnnxParser.parse_from_file": lambda parser, path: False}}


def test_what_tensorrt_cannot_take_is_a_note(
    repository: Path, with_gpu: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    with_gpu(**REFUSED)
    status, document, said = export(repository, capsys=capsys)
    assert (status, document["engine"]) == (0, None)
    (line,) = [line for line in said.splitlines() if "11.4.0.106" in line]
    assert line.startswith("note: ")
    assert "model.onnx" in line


def test_what_tensorrt_cannot_take_is_an_error_where_it_was_asked_for(
    repository: Path, with_gpu: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    with_gpu(**REFUSED)
    status, document, said = export(repository, "--engine", capsys=capsys)
    assert status == 2
    assert document["engine"] is None
    assert (repository / "scale" / "1" / "model.onnx").is_file()
    last = said.splitlines()[-1]
    assert last.startswith("fathom export: ")
    assert all(value in last for value in ("11.4.0.106", "model.onnx"))


@pytest.mark.parametrize(("named", "failures"), [(False, 0), (True, 1)], ids=["all models", "this model"])
def test_operators_that_tensorrt_lacks_fail_an_engine_only_where_the_model_was_named(
    named: bool, failures: int, repository: Path, with_gpu: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    with_gpu(**REFUSED)
    assert cli.main(["export", "scale", "--no-engine", "--model-repository", str(repository)]) == 0
    path = repository / "scale" / "1" / "model.onnx"
    model = onnx.load(path)
    model.graph.node.append(onnx.helper.make_node("Binarizer", ["y"], ["above"], domain="ai.onnx.ml"))
    path.unlink()
    onnx.save(model, path)
    builder = engines.Engines(library.load(), True, EngineOptions(), named=named)
    with Steps() as steps:
        builder.export(recipes.find("scale", repository), repository, steps, force=False)
    assert len(builder.failures) == failures
    assert ("Binarizer" in capsys.readouterr().err) is not named


def test_an_engine_that_answers_otherwise_fails_the_export_even_unasked(
    repository: Path, with_gpu: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    with_gpu(gain=3.0)
    status, _, said = export(repository, capsys=capsys)
    assert status == 1
    assert "hit_rate" in said
    assert not (repository / "scale" / "1" / "model.plan").exists()


def test_options_out_of_range(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, document, said = export(repository, "--workspace-gb", "0", capsys=capsys)
    assert (status, document, said.count("\n")) == (2, None, 1)
    assert "workspace" in said


def test_the_documentation_names_every_option_and_every_known_release() -> None:
    text = (Path(__file__).parents[2] / "docs" / "guides" / "tensorrt.md").read_text()
    command = argparse.ArgumentParser()
    engines.add_arguments(command)
    options = {option for action in command._actions for option in action.option_strings} - {"-h", "--help"}
    assert {option for option in options if f"`{option}" not in text} == set()
    releases = dict(re.findall(r"^\| (\d\d\.\d\d) \| (\S+) \|$", text, re.MULTILINE))
    assert releases == {tag: version for tag, version in plan_header.TENSORRT_OF_TAG.items() if version}
