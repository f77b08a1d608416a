"""What becomes of a step that ends well, badly or not at all, and of a session that is on no GPU."""

import json
import sys

import numpy as np
import pytest
from small_models import write_double

from fathom.proof import bare, onnx_torch, resnet50, runner
from fathom.proof.context import Context
from fathom.proof.settings import DRY, Settings

ENDINGS = {
    "it ended well": (0, ["row"], "measured", ""),
    "it measured nothing": (0, [], "skipped", "nothing was measured"),
    "it said why it cannot": (runner.SKIPPED_STATUS, [], "skipped", "the last line"),
    "it raised": (1, ["row"], "failed", "exit status 1: the last line"),
    "it crashed": (-11, ["row"], "failed", "killed by signal 11: the last line"),
    "it hung": (None, ["row", "row"], "failed", "stopped after its 30 s; 2 rows were kept"),
}


@pytest.mark.parametrize("case", ENDINGS)
def test_a_step_keeps_its_rows_however_it_ends(case, tmp_path):
    status, kinds, word, why = ENDINGS[case]
    lines, log = tmp_path / "lines", tmp_path / "log"
    lines.write_text("".join(json.dumps({kind: {"x": 1}}) + "\n" for kind in kinds) + '{"row": {"x"')  # cut off
    log.write_text("something\nthe last line\n\n")
    found = runner._outcome("served", status, 30, 12.34, lines, log)
    assert (found.status, found.why, len(found.rows)) == (word, why, len(kinds))


def test_the_steps_after_one_that_crashes_and_one_that_hangs_are_run(tmp_path, monkeypatch):
    script = """#!/bin/sh
case "$3" in
  prepare) kill -SEGV $$ ;;
  accuracy) sleep 60 ;;
esac
exit 3
"""
    (tmp_path / "python").write_text(script)
    (tmp_path / "python").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setattr(runner, "LEAST_S", 0.2)
    told = []
    chosen = ("accuracy", "roofline")
    settings = Settings(minutes=1 / 60)
    outcomes = runner.run(settings, tmp_path, tmp_path, None, chosen, lambda outcome: told.append(outcome.step))
    assert told == ["prepare", "accuracy", "roofline"]
    assert [outcome.status for outcome in outcomes] == ["failed", "failed", "skipped"]
    assert "signal 11" in outcomes[0].why
    assert "stopped after" in outcomes[1].why


def test_no_step_is_begun_when_the_time_is_over(tmp_path):
    outcomes = runner.run(Settings(minutes=0), tmp_path, tmp_path, None, ("sweep",), lambda outcome: None)
    assert [(outcome.status, outcome.why) for outcome in outcomes] == [("skipped", "the 0 minutes were over")] * 2


def test_a_step_out_of_time_says_what_it_leaves_out(tmp_path):
    context = Context(DRY, tmp_path, tmp_path, None, tmp_path / "lines", seconds=0)
    assert context.out_of_time("minilm fp32")
    assert "minilm fp32" in (tmp_path / "lines").read_text()


def test_settings_survive_the_way_to_a_step():
    assert Settings.from_json(json.loads(json.dumps(DRY.to_json()))) == DRY


def test_a_session_on_the_cpu_is_never_called_a_gpus(tmp_path):
    write_double(tmp_path / "double")
    with pytest.warns(UserWarning, match="CUDAExecutionProvider"), pytest.raises(bare.FallbackError, match="no CUDA"):
        bare.Bare(tmp_path / "double" / "1" / "model.onnx", "cuda")


def test_the_bound_loop_gives_what_the_session_does(tmp_path):
    write_double(tmp_path / "double")
    runs = bare.Bare(tmp_path / "double" / "1" / "model.onnx", "cpu")
    x = {"x": np.arange(4, dtype=np.float32).reshape(2, 2)}
    assert runs(x)["y"].tolist() == [[0, 2], [4, 6]]
    assert bare.rate_per_s(runs.on_device(x), 0.01) > 0
    providers = bare.nodes_by_provider(tmp_path / "double" / "1" / "model.onnx", "cpu", x, tmp_path)
    assert providers == {"CPUExecutionProvider": 1}
    assert not list(tmp_path.glob("profile*"))


@pytest.mark.slow
def test_resnet50_in_torch_answers_like_its_graph(tmp_path):
    import torch

    from export.measure import Reference, parity

    resnet50.write(tmp_path, rows=2)
    folder = tmp_path / "resnet50" / "1"
    reference = Reference.read(folder / "reference.npz")
    pixels = reference.evaluation.inputs["pixels"]
    with torch.inference_mode():
        answered = onnx_torch.module(folder / "model.onnx")(torch.from_numpy(pixels)).numpy()
    assert parity({"probabilities": answered}, reference.outputs).max_relative < 1e-4
    assert len(set(answered.argmax(axis=1))) == 2
