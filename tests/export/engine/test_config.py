"""configs/<hardware>.pbtxt: what is config.pbtxt's stays, what TensorRT needs is added."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from export.config import config as configs
from export.config.config import Config
from export.engine.config import graph_shapes, tensorrt_config
from export.engine.profiles import profiles
from export.lint.finding import Subject
from export.lint.lint import RULES
from export.recipe.recipe import Axes, AxisRange

ROOT = Path(__file__).parents[3] / "model_repository"
TOKENS: Axes = {name: {1: (AxisRange(1, 64, 256),)} for name in ("input_ids", "attention_mask")}


def load(name: str) -> Config:
    return configs.load(ROOT / name / "config.pbtxt")


def made(config: Config, axes: Axes, **more: Any) -> Any:
    return configs.parse(tensorrt_config(config, profiles(config.message, axes), **more))


@pytest.mark.parametrize(("name", "axes"), [("mobilenet_v2", {}), ("minilm", TOKENS)])
def test_the_contract_is_kept_and_the_linter_content(name: str, axes: Axes, tmp_path: Path) -> None:
    config = load(name)
    path = tmp_path / name / "configs" / "h200.pbtxt"
    path.parent.mkdir(parents=True)
    shutil.copy(ROOT / "mobilenet_v2" / "labels.txt", tmp_path / name)
    path.write_text(tensorrt_config(config, profiles(config.message, axes), comment=("for a test",)))
    written = configs.load(path)
    for field in ("name", "input", "output", "max_batch_size", "dynamic_batching", "model_warmup"):
        assert getattr(written.message, field) == getattr(config.message, field)
    assert [str(found) for rule in RULES for found in rule(Subject(written, tmp_path / name))] == []
    assert dict(written.message.parameters) == {}
    assert written.text.startswith("# for a test\n")


def graph_shapes_of(config: Config) -> list[tuple[int, dict[str, tuple[int, ...]]]]:
    return graph_shapes(config.message, profiles(config.message, TOKENS))


def test_graphs_for_the_batches_and_lengths_in_use() -> None:
    config = load("minilm")
    shapes = graph_shapes(config.message, profiles(config.message, TOKENS, tuned_batch=16))
    sizes = [(batch, dims["input_ids"]) for batch, dims in shapes]
    assert sizes == [(1, (64,)), (16, (64,)), (32, (64,)), (1, (16,)), (8, (32,)), (1, (256,))]
    cuda = made(config, TOKENS).optimization.cuda
    assert cuda.graphs
    assert [spec.batch_size for spec in cuda.graph_spec] == [batch for batch, _ in graph_shapes_of(config)]
    assert list(cuda.graph_spec[0].input["attention_mask"].dim) == [64]
    assert all(set(spec.input) == {"input_ids", "attention_mask"} for spec in cuda.graph_spec)


def test_a_warm_up_outside_the_profile_is_no_graph() -> None:
    config = load("minilm")
    short: Axes = {name: {1: (AxisRange(1, 16, 32),)} for name in ("input_ids", "attention_mask")}
    lengths = {dims["input_ids"] for _, dims in graph_shapes(config.message, profiles(config.message, short))}
    assert lengths == {(16,), (32,)}


def test_without_batching_a_graph_has_batch_0_and_the_whole_shape() -> None:
    message = configs.parse('backend: "onnxruntime" input [ { name: "x" data_type: TYPE_FP32 dims: [ 2, 3 ] } ]')
    assert graph_shapes(message, profiles(message, {})) == [(0, {"x": (2, 3)})]


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        pytest.param("", [(1, [])], id="none: one on the GPU"),
        pytest.param("instance_group [ { count: 8 kind: KIND_AUTO } ]", [(2, [])], id="no more than two"),
        pytest.param("instance_group [ { count: 2 kind: KIND_GPU gpus: [ 1 ] } ]", [(2, [1])], id="the GPUs stay"),
        pytest.param(
            "instance_group [ { count: 4 kind: KIND_CPU }, { count: 1 kind: KIND_GPU } ]", [(1, [])], id="no CPU group"
        ),
        pytest.param("instance_group [ { count: 4 kind: KIND_CPU } ]", [(1, [])], id="only a CPU group"),
    ],
)
def test_instances(groups: str, expected: list[tuple[int, list[int]]]) -> None:
    text = f'max_batch_size: 4 input [ {{ name: "x" data_type: TYPE_FP32 dims: [ 2 ] }} ] {groups}'
    config = Config(Path("m/config.pbtxt"), text, configs.parse(text))
    assert [(group.count, list(group.gpus)) for group in made(config, {}).instance_group] == expected
    assert {group.kind for group in made(config, {}).instance_group} == {1}


def test_what_only_onnx_runtime_reads_is_left_out() -> None:
    text = """
    platform: "onnxruntime_onnx"
    input [ { name: "x" data_type: TYPE_FP32 dims: [ 2 ] } ]
    optimization {
      graph { level: 1 }
      execution_accelerators { gpu_execution_accelerator { name: "cuda" } }
      gather_kernel_buffer_threshold: 4
    }
    parameters { key: "execution_mode" value { string_value: "0" } }
    parameters { key: "execution_context_allocation_strategy" value { string_value: "STATIC" } }
    """
    message = made(Config(Path("m/config.pbtxt"), text, configs.parse(text)), {})
    assert (message.platform, message.backend) == ("", "tensorrt")
    assert set(message.parameters) == {"execution_context_allocation_strategy"}
    assert not message.optimization.HasField("graph")
    assert not message.optimization.HasField("execution_accelerators")
    assert message.optimization.gather_kernel_buffer_threshold == 4


def test_busy_waiting_and_shared_repositories_are_written_where_requested() -> None:
    config = load("mobilenet_v2")
    assert not made(config, {}).optimization.cuda.busy_wait_events
    assert made(config, {}, busy_wait_events=True).optimization.cuda.busy_wait_events
    assert dict(made(config, {}, cc_model_filenames={"9.0": "model.plan"}).cc_model_filenames) == {}
    both = {"9.0": "model.plan", "8.9": "model.sm89.plan"}
    assert dict(made(config, {}, cc_model_filenames=both).cc_model_filenames) == both
