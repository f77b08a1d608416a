"""An engine from published ONNX to published plan: judged, recorded, served by its own configuration, or not at all."""

from __future__ import annotations

import ctypes
import json
from functools import partial
from pathlib import Path
from typing import Any

import engine_machine
import numpy as np
import pytest
import tensorrt_bindings
from jsonschema import Draft202012Validator
from product_model import Product, rows, weights, write_product
from scale_model import Scale, replace, tree

from export import files
from export.command import fathom
from export.config import config as configs
from export.engine import cuda, export, gpu, runtime
from export.engine import record as engine_record
from export.engine.export import export_engine
from export.engine.options import EngineOptions
from export.errors import AccuracyError, EngineError, EngineUnavailableError
from export.exporter import export_model
from export.graph import onnx_file
from export.lint.lint import lint
from export.precision.int8 import Quantization

H200 = gpu.Gpu("NVIDIA H200", "9.0", "580.65.06")
L4 = gpu.Gpu("NVIDIA L4", "8.9", "580.65.06")
NEW = {"1/model.plan", "1/model.plan.json", "1/model.plan.layers.json", "configs/gpu.pbtxt"}


BOTH_VERSIONS = pytest.mark.parametrize("surface", tensorrt_bindings.VERSIONS, indirect=True)


@pytest.fixture
def surface(request: pytest.FixtureRequest) -> dict[str, Any]:
    """The newest TensorRT's; tests that reach all its names that a station needs run with both versions."""
    return tensorrt_bindings.surface(getattr(request, "param", tensorrt_bindings.VERSIONS[-1]))


def schema_problems(record: dict[str, Any]) -> list[str]:
    """What docs/manifest.schema.json has against an engine's record."""
    schema = json.loads((Path(__file__).parents[3] / "docs" / "manifest.schema.json").read_text())
    engine = {"$ref": "#/$defs/engine", "$defs": schema["$defs"]}
    return [f"{error.json_path}: {error.message}" for error in Draft202012Validator(engine).iter_errors(record)]


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return engine_machine.compile_driver(tmp_path_factory.mktemp("cuda"))


@pytest.fixture
def machine(driver: Path, repository: Path, scale: Scale, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The small repository as exported, on a machine with an H200."""
    monkeypatch.setattr(export, "Device", partial(cuda.Device, str(driver)))
    monkeypatch.setattr(gpu, "find", lambda: H200)
    engine_machine.write_reference(scale, repository / "scale")
    return repository


def test_the_schema_refuses_a_record_that_lacks_a_field_or_has_another(
    surface: dict[str, Any], machine: Path, scale: Scale
) -> None:
    record = export_engine(scale, machine, engine_machine.tensorrt(surface)[0], EngineOptions()).record.to_json()
    record = json.loads(json.dumps(record))
    assert schema_problems(record) == []
    for name in record:
        assert schema_problems({key: value for key, value in record.items() if key != name}), name
    assert schema_problems({**record, "notes": ""})
    assert schema_problems({**record, "gpu": {**record["gpu"], "compute_capability": "nine"}})


def test_int8_for_cpus_is_refused_before_a_builder_is_needed(
    surface: dict[str, Any], machine: Path, scale: Scale, tmp_path: Path
) -> None:
    write_product(tmp_path / "full.onnx", weights())
    quantization = Quantization(tmp_path / "full.onnx", rows(1, 64), Product.reduced["int8"], (), tmp_path)
    (machine / "scale" / "1" / "model.onnx").unlink()
    quantization.write(machine / "scale" / "1" / "model.onnx")
    trt, recorder = engine_machine.tensorrt(surface)

    with pytest.raises(EngineError) as caught:
        export_engine(scale, machine, trt, EngineOptions())

    assert caught.value.file == "scale/1/model.onnx"
    wanted = fathom("export", "scale", "--precision", "int8", "--engine", repository=machine)
    assert f"`{wanted}`" in str(caught.value.remedy)
    assert not (machine / "scale" / "1" / "model.plan").exists()
    assert recorder.events == []


@BOTH_VERSIONS
def test_an_engine_is_built_judged_and_published(surface: dict[str, Any], machine: Path, scale: Scale) -> None:
    folder, before = machine / "scale", tree(machine / "scale")
    trt, _ = engine_machine.tensorrt(surface)
    steps: list[str] = []

    result = export_engine(
        scale, machine, trt, EngineOptions(workspace_gb=4), on_progress=lambda step, done, total: steps.append(step)
    )

    after = tree(folder)
    assert set(after) - set(before) == NEW
    assert {name: after[name] for name in before} == before
    assert after["1/model.plan"] == engine_machine.plan_bytes(surface["version"])
    assert json.loads(after["1/model.plan.layers.json"]) == {"Layers": ["JSON"]}
    record = engine_record.read(folder / "1" / "model.plan")
    assert record == result.record
    assert record is not None
    assert (record.tensorrt, record.gpu, record.onnx_sha256) == (
        surface["version"],
        H200,
        files.sha256(folder / "1/model.onnx"),
    )
    assert record.options["workspace_gb"] == 4
    assert record.profiles == [{"x": {"minimum": [1, 3], "optimum": [8, 3], "maximum": [8, 3]}}]
    assert record.accuracy == {"hit_rate": 1.0}
    assert record.parity.max_abs == 0.0
    assert record.batch1_ms > 0
    assert set(record.files) == NEW - {"1/model.plan.json"}
    assert schema_problems(json.loads(after["1/model.plan.json"])) == []
    assert record.changed_files(folder) == []
    assert "measure engine, profile 0" in steps
    assert (machine.parent / ".fathom-cache").is_dir()
    text = after["configs/gpu.pbtxt"].decode()
    message = configs.parse(text)
    assert "NVIDIA H200" in text.splitlines()[0]
    assert (message.backend, message.default_model_filename) == ("tensorrt", "model.plan")
    assert message.optimization.cuda.busy_wait_events  # the double answers within microseconds
    assert [finding for finding in lint(machine) if finding.severity == "error"] == []


def test_nothing_changed_is_left_alone(surface: dict[str, Any], machine: Path, scale: Scale) -> None:
    trt, recording = engine_machine.tensorrt(surface)
    export_engine(scale, machine, trt, EngineOptions())
    first = len(recording.of("Builder.build_serialized_network"))
    assert export_engine(scale, machine, trt, EngineOptions()).skipped
    assert len(recording.of("Builder.build_serialized_network")) == first == 1
    assert not export_engine(scale, machine, trt, EngineOptions(), force=True).skipped
    assert not export_engine(scale, machine, trt, EngineOptions(builder_optimization_level=5)).skipped
    path = machine / "scale" / "1" / "model.plan"
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    assert not export_engine(scale, machine, trt, EngineOptions(builder_optimization_level=5)).skipped
    (machine / "scale" / "configs" / "gpu.pbtxt").unlink()  # without it the plan would not be served
    assert not export_engine(scale, machine, trt, EngineOptions(builder_optimization_level=5)).skipped


@pytest.mark.parametrize("gain", [2.001, 3.0])
def test_a_wrong_engine_is_not_published(surface: dict[str, Any], machine: Path, scale: Scale, gain: float) -> None:
    before = tree(machine)
    trt, _ = engine_machine.tensorrt(surface, gain=gain)
    with pytest.raises(AccuracyError) as caught:
        export_engine(scale, machine, trt, EngineOptions())
    assert (caught.value.field, caught.value.expected) == ("hit_rate", 0.1)
    assert caught.value.found > 0.1
    assert tree(machine) == before


def test_an_engine_that_answers_nan_is_not_published(surface: dict[str, Any], machine: Path, scale: Scale) -> None:
    trt, _ = engine_machine.tensorrt(surface, gain=float("nan"))
    with pytest.raises(EngineError) as caught:
        export_engine(scale, machine, trt, EngineOptions())
    assert caught.value.tensor == "y"
    assert np.isnan(caught.value.found)
    assert not (machine / "scale" / "1" / "model.plan").exists()


def test_parity_alone_can_refuse_an_engine(surface: dict[str, Any], machine: Path, scale: Scale) -> None:
    trt, _ = engine_machine.tensorrt(surface, gain=2.1)
    scale.score = lambda *args: {"hit_rate": 1.0}  # type: ignore[method-assign]
    with pytest.raises(AccuracyError) as caught:
        export_engine(scale, machine, trt, EngineOptions())
    assert (caught.value.field, caught.value.expected) == ("max_relative", export.LIMITS.tolerance.max_relative)
    assert caught.value.found == pytest.approx(0.05, rel=1e-3)


@BOTH_VERSIONS
def test_every_profile_is_judged(surface: dict[str, Any], machine: Path, scale: Scale) -> None:
    config = machine / "scale" / "config.pbtxt"
    replace(config, "count: 1 kind: KIND_CPU", 'count: 1 kind: KIND_CPU profile: [ "0", "1" ]')
    trt, recording = engine_machine.tensorrt(surface)
    record = export_engine(scale, machine, trt, EngineOptions()).record
    assert [profile["x"]["optimum"][0] for profile in record.profiles] == [4, 8]
    assert [index for index, _ in recording.of("IExecutionContext.set_optimization_profile_async")] == [1]
    message = configs.parse((machine / "scale/configs/gpu.pbtxt").read_text())
    assert list(message.instance_group[0].profile) == ["0", "1"]


def test_two_compute_capabilities_share_a_repository(
    surface: dict[str, Any], machine: Path, scale: Scale, monkeypatch: pytest.MonkeyPatch
) -> None:
    trt, _ = engine_machine.tensorrt(surface)
    export_engine(scale, machine, trt, EngineOptions())
    monkeypatch.setattr(gpu, "find", lambda: L4)
    record = export_engine(scale, machine, trt, EngineOptions()).record
    assert record.plan == "model.sm89.plan"
    message = configs.parse((machine / "scale/configs/gpu.pbtxt").read_text())
    assert dict(message.cc_model_filenames) == {"9.0": "model.plan", "8.9": "model.sm89.plan"}
    assert [each.plan for each in engine_record.records(machine / "scale")] == ["model.plan", "model.sm89.plan"]


def test_a_new_onnx_file_leaves_the_plan_that_a_configuration_names_and_check_reports_it(
    surface: dict[str, Any], machine: Path, scale: Scale
) -> None:
    trt, _ = engine_machine.tensorrt(surface)
    export_engine(scale, machine, trt, EngineOptions())
    folder = machine / "scale"
    plan = (folder / "1" / "model.plan").read_bytes()
    scale.shape = ("rows", 3)  # another file of the same model

    notes = export_model(scale, machine, force=True).notes

    assert (folder / "1" / "model.plan").read_bytes() == plan
    assert (folder / "configs" / "gpu.pbtxt").is_file()
    assert len([note for note in notes if "model.plan" in note]) == 1
    errors = {finding.file for finding in lint(machine, ["scale"]) if finding.severity == "error"}
    assert "scale/1/model.plan" in errors


def test_a_configuration_changed_by_hand_is_kept(surface: dict[str, Any], machine: Path, scale: Scale) -> None:
    trt, _ = engine_machine.tensorrt(surface)
    export_engine(scale, machine, trt, EngineOptions())
    path = machine / "scale" / "configs" / "gpu.pbtxt"
    path.write_text(path.read_text() + "# tuned\n")
    result = export_engine(scale, machine, trt, EngineOptions(), force=True)
    assert path.read_text().endswith("# tuned\n")
    (note,) = result.notes
    assert "scale/configs/gpu.pbtxt" in note


def test_all_gpu_memory_is_given_back(surface: dict[str, Any], machine: Path, scale: Scale, driver: Path) -> None:
    live = ctypes.CDLL(str(driver)).live_buffers
    before = live()
    trt, _ = engine_machine.tensorrt(surface, gain=3.0)
    with pytest.raises(AccuracyError):
        export_engine(scale, machine, trt, EngineOptions())
    assert live() == before


def test_without_the_onnx_model_or_a_gpu(
    surface: dict[str, Any], machine: Path, scale: Scale, monkeypatch: pytest.MonkeyPatch
) -> None:
    trt, _ = engine_machine.tensorrt(surface)
    (machine / "scale" / "1" / "model.onnx").unlink()
    with pytest.raises(EngineError) as caught:
        export_engine(scale, machine, trt, EngineOptions())
    assert caught.value.file == "scale/1/model.onnx"
    assert f"`{fathom('export', 'scale', repository=machine)}`" in str(caught.value.remedy)
    monkeypatch.setattr(gpu, "find", lambda: None)
    with pytest.raises(EngineUnavailableError, match="GPU"):
        export_engine(scale, machine, trt, EngineOptions())


@BOTH_VERSIONS
def test_a_station_answers_like_onnx_runtime(surface: dict[str, Any], machine: Path) -> None:
    trt, recording = engine_machine.tensorrt(surface)
    device = export.Device()
    path = machine / "scale" / "1" / "model.plan"
    path.write_bytes(b"plan")
    engine = runtime.open_plan(trt, path, version_compatible=True)
    station = runtime.EngineStation(trt, engine, device, profile=1)
    x = np.arange(12, dtype=np.float64).reshape(4, 3)[::-1]
    expected = onnx_file.session(machine / "scale" / "1" / "model.onnx")({"x": x.astype(np.float32)})
    assert np.array_equal(station({"x": x})["y"], expected["y"])
    assert recording.of("Runtime.engine_host_code_allowed =") == [True]
    assert recording.of("IExecutionContext.set_optimization_profile_async") == [(1, device.stream)]
    with pytest.raises(EngineError) as caught:
        station({"z": x})
    assert (caught.value.tensor, caught.value.found) == ("x", ["z"])
    device.close()


def no_numpy_type(kind: Any) -> None:
    raise TypeError("Could not resolve TensorRT datatype to an equivalent numpy datatype.")


@BOTH_VERSIONS
@pytest.mark.parametrize(
    ("answers", "about", "names"),
    [
        ({"nptype": no_numpy_type}, {"tensor": "x"}, "numpy"),
        ({"IExecutionContext.set_input_shape": lambda *args: False}, {"tensor": "x", "found": [4, 3]}, "[4, 3]"),
        ({"IExecutionContext.infer_shapes": lambda *args: ["y"]}, {"tensor": "y"}, "shapes"),
        ({"IExecutionContext.execute_async_v3": lambda *args: False}, {}, "run"),
        ({"ICudaEngine.create_execution_context": lambda *args: None}, {}, "memory"),
        ({"Runtime.deserialize_cuda_engine": lambda *args: None}, {"file": "model.plan"}, "load"),
    ],
)
def test_what_an_engine_cannot_do_is_a_sentence(
    surface: dict[str, Any], machine: Path, answers: dict[str, Any], about: dict[str, Any], names: str
) -> None:
    trt, _ = engine_machine.tensorrt(surface, answers=answers)
    path = machine / "scale" / "1" / "model.plan"
    path.write_bytes(b"plan")
    device = export.Device()

    def ask() -> None:
        station = runtime.EngineStation(trt, runtime.open_plan(trt, path), device)
        station({"x": np.zeros((4, 3), np.float32)})

    with pytest.raises(EngineError) as caught:
        ask()
    assert {name: getattr(caught.value, name) for name in about} == about
    assert names in str(caught.value)
    device.close()


def test_the_driver_s_errors_are_sentences(driver: Path) -> None:
    device = cuda.Device(str(driver))
    with pytest.raises(EngineError, match=r"cuMemAlloc_v2.* 2:"):
        device.buffer("x", 1 << 30)
    device.close()
    with pytest.raises(EngineUnavailableError, match="libcuda-absent"):
        cuda.Device("libcuda-absent.so.1")


def test_a_broken_record_is_named(machine: Path) -> None:
    path = machine / "scale" / "1" / "model.plan"
    path.write_bytes(b"plan")
    assert engine_record.read(path) is None
    file = path.with_name("model.plan.json")
    for content, field in (("{", None), ('{"format": 9}', "format"), ('{"format": 1}', None)):
        file.write_text(content)
        with pytest.raises(EngineError) as caught:
            engine_record.read(path)
        assert (caught.value.file, caught.value.field) == (str(file), field)
        assert engine_record.records(machine / "scale") == []
