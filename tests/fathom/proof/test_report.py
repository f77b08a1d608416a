"""docs/gpu.md and configs/<gpu>.pbtxt from constructed results: what a GPU earned is written, what none did is not."""

import copy
import json

import pytest

from export import config as configs
from fathom.errors import UsageError
from fathom.proof import cli, report, winners

PARITY = {"max_abs": 1e-3, "max_relative": 2e-3, "min_cosine": 0.9999}
VARIANT = {"instances": 4, "max_batch_size": 16, "queue_delay_us": 500, "device_tensors": True}


def step(name, rows=(), status="measured", why="", skipped=(), failed=()):
    return {
        "step": name, "status": status, "why": why, "seconds": 1.0,
        "rows": list(rows), "skipped": list(skipped), "failed": list(failed),
    }  # fmt: skip


def served(batch, share):
    return {
        "model": "mobilenet_v2", "precision": "fp32", "transport": "grpc", "batch": batch, "in_flight": 64,
        "rows_per_s": 1e4, "client_cpu_us": 10.0, "of_bare": share / 2, "of_bare_from_host": share,
    }  # fmt: skip


@pytest.fixture
def document():
    """What a proof on an H200 might have written; the figures are made up, and go nowhere but here."""
    return {
        "dry_run": False,
        "date": "2026-11-23T01:00:00+00:00",
        "minutes": 20.0,
        "machine": {
            "gpu": {"name": "NVIDIA H200", "driver": "580.1", "compute_capability": "9.0"},
            "hardware": {"cpu": "a CPU", "cores": 16, "os": "Linux"},
            "versions": {"onnxruntime-gpu": "1.31.1", "nvidia-pytriton": "0.7.0"},
        },
        "gpu_afterwards": {"sm_clock": "1980 MHz"},
        "settings": {"in_flight": 64, "rounds": 3},
        "steps": [
            step("prepare", [{"model": "mobilenet_v2", "precision": "fp32", "bytes": 2_800_000}]),
            step("accuracy", [{
                "model": "mobilenet_v2", "precision": "fp16", "device": "cuda", "rows": 450,
                "figures": {"top1_accuracy": 0.98}, "at_source": {"top1_accuracy": 0.98}, "parity": PARITY,
            }]),
            step("roofline", [
                {"ceilings": {"bytes_per_s": 4e12, "macs_per_s": {"fp32": 2e14}, "strict_fp32_macs_per_s": 2e13}},
                *({
                    "model": "mobilenet_v2", "precision": "fp32", "batch": batch, "device": "cuda",
                    "rows_per_s": 1e4 * batch, "from_host_rows_per_s": 9e3 * batch, "roofline_rows_per_s": 4e4 * batch,
                    "roofline_share": 0.25, "limited_by_memory": 1.0, "gmacs_per_row": 0.03, "mbytes": 12.0,
                    "nodes_by_provider": {"CUDAExecutionProvider": 110},
                } for batch in (1, 8)),
            ]),
            step("served", [served(1, 0.61), served(32, 0.7), {
                "model": "mobilenet_v2", "precision": "fp32", "transport": "cuda", "slo": "p99=10ms",
                "capacity_per_s": None, "estimate_per_s": 900.0, "verdict": "undecided", "reason": "", "seeds": [0],
            }]),
            step("hand_over", [{
                "model": "mobilenet_v2", "precision": "fp32", "hand_over": "device", "rows": 32, "rows_per_s": 9e3,
                "parity": PARITY,
            }]),
            step("sweep", [
                {"model": "mobilenet_v2", "precision": "fp32", **VARIANT, "rows_per_s": 1.2e4},
                {
                    "model": "mobilenet_v2", "precision": "fp32", "winner": VARIANT, "default_rows_per_s": 1e4,
                    "winner_rows_per_s": 1.3e4, "over_default": 1.3, "over_default_range": [1.25, 1.34],
                },
            ]),
            step("tensorrt", status="skipped", why="TensorRT cannot be imported"),
            step("eager", failed=[{"what": "minilm fp32", "why": "no transformers"}]),
        ],
    }  # fmt: skip


def dry(document):
    made = copy.deepcopy(document)
    made["dry_run"], made["machine"]["gpu"] = True, None
    return made


def test_measured_figures_are_in_the_tables_with_hardware_and_verdicts(document, tmp_path):
    report.write(document, tmp_path / "gpu.md")
    text = (tmp_path / "gpu.md").read_text()
    assert "name NVIDIA H200" in text
    assert "| served / bare from host memory, 32 rows a request | 0.70 | >= 0.8 | missed |" in text
    assert "| ..., one row a request | 0.61 | >= 0.5 | reached |" in text
    assert "| best configuration / committed one | 1.30 |" in text
    assert "110 CUDA" in text
    assert "| mobilenet_v2 | 32 | device | 9000 | 2.0e-03 |" in text
    assert "copy 4000 GB/s; TFLOP/s fp32 400" in text
    assert "- skipped: TensorRT cannot be imported" in text
    assert "- failed: minilm fp32: no transformers" in text


def test_every_picture_that_is_linked_is_there(document, tmp_path):
    report.write(document, tmp_path / "gpu.md")
    text = (tmp_path / "gpu.md").read_text()
    for name in ("roofline", "served"):
        assert f"](gpu/{name}.svg)" in text
        assert (tmp_path / "gpu" / f"{name}.svg").read_text().startswith("<svg")


def test_a_dry_run_gives_no_figure_away(document, tmp_path):
    report.write(dry(document), tmp_path / "gpu.md")
    text = (tmp_path / "gpu.md").read_text()
    assert text.count("**not measured**") >= 8
    assert "| best configuration / committed one | not measured |" in text
    assert all(figure not in text for figure in ("0.61", "1.30", "4000", "H200"))
    assert not (tmp_path / "gpu").exists()


def test_a_dry_run_leaves_a_page_with_measurements_alone(document, tmp_path, capfd):
    page, results = tmp_path / "gpu.md", tmp_path / "dry.json"
    results.write_text(json.dumps(dry(document)))
    report.write(document, page)
    measured = page.read_text()
    words = ["--render", str(results), "--document", str(page)]
    cli.main(words)
    assert page.read_text() == measured
    assert "which a dry run leaves" in capfd.readouterr().err
    report.write(dry(document), page)
    assert not report.holds_measurements(page)


def test_a_render_is_the_same_as_the_first(document, tmp_path):
    results = tmp_path / "results.json"
    results.write_text(json.dumps(document))
    report.write(document, tmp_path / "gpu.md")
    first = (tmp_path / "gpu.md").read_text(), (tmp_path / "gpu" / "served.svg").read_text()
    assert cli.main(["--render", str(results), "--document", str(tmp_path / "gpu.md")]) == 1  # a step had failed
    assert ((tmp_path / "gpu.md").read_text(), (tmp_path / "gpu" / "served.svg").read_text()) == first


@pytest.fixture
def repository(tmp_path):
    folder = tmp_path / "model_repository" / "mobilenet_v2"
    folder.mkdir(parents=True)
    (folder / "config.pbtxt").write_text(
        'name: "mobilenet_v2"\nbackend: "onnxruntime"\nmax_batch_size: 32\n'
        'input [ { name: "pixels" data_type: TYPE_UINT8 dims: [ 8, 8, 3 ] } ]\n'
        'output [ { name: "probabilities" data_type: TYPE_FP32 dims: [ 10 ] } ]\n'
        "instance_group [ { count: 2 kind: KIND_AUTO } ]\n"
        'parameters { key: "intra_op_thread_count" value { string_value: "1" } }\n'
    )
    return folder.parent


def test_the_winner_becomes_a_configuration_that_names_its_measurement(document, repository):
    (path,) = winners.write(document, repository)
    assert path == repository / "mobilenet_v2" / "configs" / "h200.pbtxt"
    text = path.read_text()
    assert text.startswith("# Measured by tests/gpu/proof.py on 2026-11-23: NVIDIA H200, driver 580.1,")
    assert "# 1.30 times config.pbtxt (1.25 to 1.34 over 3 rounds)." in text
    message = configs.parse(text)
    (group,) = message.instance_group
    assert (group.count, group.kind) == (4, type(group).KIND_GPU)
    assert message.max_batch_size == 16
    assert message.dynamic_batching.max_queue_delay_microseconds == 500
    assert message.parameters["FORCE_CPU_ONLY_INPUT_TENSORS"].string_value == "no"
    assert [tensor.name for tensor in (*message.input, *message.output)] == ["pixels", "probabilities"]


def test_no_configuration_comes_of_a_dry_run(document, repository, tmp_path):
    with pytest.raises(UsageError, match="of no GPU"):
        winners.write(dry(document), repository)
    results = tmp_path / "dry.json"
    results.write_text(json.dumps(dry(document)))
    assert cli.main(["--render", str(results), "--write-configs", "--model-repository", str(repository)]) == 2
    assert not (repository / "mobilenet_v2" / "configs").exists()
