"""`fathom tune`: what it refuses before it measures, what it would try, how it goes on, and what it writes."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from small_models import write_double
from tuning_replay import Replay, Table

from export.config.config import load
from export.config.knobs import knobs_of
from export.errors import ConfigError
from fathom.cli import main
from fathom.console.output import Step, Steps
from fathom.tuning.journal import kept_answers
from fathom.tuning.models import TunedModel
from fathom.tuning.session import HEADER, TURNS, drive
from fathom.tuning.winner import write_winner
from loadtests.search.budget import Plan
from loadtests.slo import Slo
from loadtests.tuning.objective import Objective
from loadtests.tuning.race import Race
from loadtests.tuning.ranking import Ranking
from loadtests.tuning.result import TuningResult
from loadtests.tuning.space import Machine

CONFIG = """
max_batch_size: 8
input [ { name: "x" data_type: TYPE_FP32 dims: [ 2 ] } ]
output [ { name: "y" data_type: TYPE_FP32 dims: [ 2 ] } ]
instance_group [ { count: 1 kind: KIND_CPU } ]
dynamic_batching { default_queue_policy { max_queue_size: 64 } }
"""
MACHINE = Machine(cores=2, memory_mib=8000)


@pytest.fixture
def repository(tmp_path):
    write_double(tmp_path / "models" / "double", CONFIG)
    return tmp_path / "models"


def tune(repository, *arguments, model="double", slo="p99=50ms"):
    return main(["tune", model, "--slo", slo, "--model-repository", str(repository), *map(str, arguments)])


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"model": "duoble"}, "double"),  # a misspelt model, with the nearest one
        ({"slo": "errors=1%"}, "p99=50ms"),  # an SLO that limits no latency
        ({"extra": ("--objective", "speed")}, "latency-at=RATE"),
        ({"extra": ("--objective", "latency-at=0")}, "latency-at=RATE"),
        ({"extra": ("--space", "missing.toml")}, "missing.toml"),
        ({"space": "[double]\ninstances = [1]"}, "one point"),
        ({"space": "[double]\nmax_batch = [0]"}, "double.max_batch"),
        ({"extra": ("--name", "a/b")}, "a/b"),
        ({"extra": ("--name", "known")}, "known.pbtxt"),  # a name that exists
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_cannot_be_tuned_is_refused_in_a_sentence_before_anything_starts(
    repository, tmp_path, capsys, arguments, named
):
    (repository / "double" / "configs").mkdir()
    shutil.copy(repository / "double" / "config.pbtxt", repository / "double" / "configs" / "known.pbtxt")
    extra = list(arguments.get("extra", ()))
    if "space" in arguments:
        (tmp_path / "space.toml").write_text(arguments["space"])
        extra += ["--space", str(tmp_path / "space.toml")]
    assert tune(repository, *extra, **{k: v for k, v in arguments.items() if k in ("model", "slo")}) == 2
    err = capsys.readouterr().err
    assert named in err
    assert err.count("\n") == 1


def test_a_repository_that_is_not_writable_is_refused(repository, monkeypatch, capsys):
    monkeypatch.setattr(os, "access", lambda path, mode: not Path(path).is_relative_to(repository))
    assert tune(repository) == 2
    assert str(repository / "double") in capsys.readouterr().err


def test_a_batch_above_the_graphs_is_refused(repository, tmp_path, capsys):
    from onnx import TensorProto, helper
    from small_models import write_onnx

    fixed = (TensorProto.FLOAT, [4, 2])
    add = helper.make_node("Add", ["x", "x"], ["y"])
    write_onnx(repository / "double" / "1" / "model.onnx", [add], [("x", *fixed)], [("y", *fixed)])
    (tmp_path / "space.toml").write_text("[double]\nmax_batch = [4, 8]")
    assert tune(repository, "--space", tmp_path / "space.toml", "--dry-run") == 2
    assert "at most 4" in capsys.readouterr().err


def test_a_dry_run_lists_the_space_and_what_is_left_out(repository, capsys):
    assert tune(repository, "--dry-run", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["space"]["double.preferred"] == {"values": [0, 2, 4], "committed": 0}
    assert document["configurations"] > document["tables"] > 1
    assert {each["what"] for each in document["left_out"]} == {"double.max_batch", "double.inter_threads"}


def race(table, budget_s=20.0):
    slo = Slo.parse("p99=50ms")
    return Race(Objective((slo,)), Ranking(table.predictions), Plan((slo,), 200.0, 0, budget_s))


class Interrupted:
    """Servers of a table, until Ctrl-C after some turns."""

    def __init__(self, table, turns=10**6):
        self.replay, self.left = Replay(table), turns

    def answer(self, turn):
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        self.replay.turns.append(turn)
        return self.replay.answer(turn)


def test_a_run_goes_on_after_ctrl_c_without_measuring_anything_again(tmp_path):
    table = Table.read("constant")
    with Steps() as steps, steps.step("race") as step:
        assert isinstance(step, Step)
        assert drive(race(table), Interrupted(table, 5), [], tmp_path / TURNS, step) == "interrupted"
        kept = kept_answers(tmp_path / TURNS)
        servers, resumed, whole = Interrupted(table), race(table), race(table)
        assert drive(resumed, servers, kept, tmp_path / TURNS, step) == ""
        assert drive(whole, Interrupted(table), [], tmp_path / "other", step) == ""
    assert len(kept) == 5
    asked = {(turn.configuration, turn.probe.seed) for turn in servers.replay.turns}
    assert not asked & {(configuration, answer.point.seed) for configuration, answer in kept}
    assert resumed.leader == whole.leader
    assert len(kept_answers(tmp_path / TURNS)) == sum(len(arm.points) for arm in resumed.arms.values())


def result(changes):
    return TuningResult(
        "double", "p99=50ms", "rate", "requests/s", "double preferred=4", changes, (1.2, 1.1, 1.3), True, True, "", (),
        (), "double", 0.1, 0, 60.0, 60.0, "", {"cpu": "a CPU", "cores": 2},
    )  # fmt: skip


def test_the_winner_is_a_configuration_that_passes_the_check_and_tells_why(repository):
    tuned = TunedModel.read("double", repository, None, MACHINE, embedded=True)
    changes = {"double": {"preferred": 4, "delay_ms": 2, "queue_policy": "none", "rows_per_run": 1}}
    (path,) = write_winner(tuned, result(changes), "tuned", Path("report.html"))
    assert path == repository / "double" / "configs" / "tuned.pbtxt"
    found = knobs_of(load(path).message, embedded=True)
    assert {knob: found[knob] for knob in changes["double"]} == changes["double"]
    text = path.read_text()
    assert "+20 %" in text
    assert "report.html" in text
    assert text.count("committed is") == 4
    assert main(["check", "double", "--model-repository", str(repository)]) == 0


def test_the_winner_keeps_what_the_committed_named_configuration_says(repository):
    named = repository / "double" / "configs" / "cpu.pbtxt"
    named.parent.mkdir()
    named.write_text((repository / "double" / "config.pbtxt").read_text().replace("count: 1", "count: 2"))
    tuned = TunedModel.read("double", repository, "cpu", MACHINE, embedded=True)
    (path,) = write_winner(tuned, result({"double": {"preferred": 4}}), "tuned", Path("report.html"))
    assert knobs_of(load(path).message)["instances"] == 2


def test_the_winner_may_replace_the_configuration_that_it_began_with(repository, tmp_path):
    named = repository / "double" / "configs" / "cpu.pbtxt"
    named.parent.mkdir()
    shutil.copy(repository / "double" / "config.pbtxt", named)
    tuned = TunedModel.read("double", repository, "cpu", MACHINE, embedded=True)
    assert write_winner(tuned, result({"double": {"preferred": 4}}), "cpu", Path("report.html")) == [named]
    assert knobs_of(load(named).message)["preferred"] == 4
    assert "+20 %" in named.read_text()
    assert tune(repository, "--name", "cpu", "--dry-run") == 0  # which writes nothing
    assert tune(repository, "--name", "cpu") == 2


def test_a_winner_that_the_check_refuses_leaves_the_configuration_as_it_was(repository):
    named = repository / "double" / "configs" / "cpu.pbtxt"
    named.parent.mkdir()
    shutil.copy(repository / "double" / "config.pbtxt", named)
    before = named.read_text()
    tuned = TunedModel.read("double", repository, "cpu", MACHINE, embedded=True)
    tuned.messages["double"].input[0].dims[:] = [3]  # not the graph's
    with pytest.raises(ConfigError):
        write_winner(tuned, result({"double": {"preferred": 4}}), "cpu", Path("report.html"))
    assert named.read_text() == before


MOODY = """
import time
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        import json
        pad = json.loads(args["model_config"])["parameters"]["pad_to_multiple_of"]["string_value"]
        if pad == "32":
            raise pb_utils.TritonModelException("32 is too much")
        self.seconds = {"8": 0.006}.get(pad, 0.024)

    def execute(self, requests):
        time.sleep(self.seconds)
        inputs = [pb_utils.get_input_tensor_by_name(request, "x").as_numpy() for request in requests]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("y", x)]) for x in inputs]
"""


@pytest.mark.parametrize("given", ["results", "results/double", "results/double/2026-11-30_11-00-00"])
def test_the_newest_run_of_a_folder_of_results_is_resumed(given, repository, tmp_path, capsys):
    """It was another one here, so that the error names it."""
    for start in ("2026-11-30_10-00-00", "2026-11-30_11-00-00"):
        run = tmp_path / "results" / "double" / start
        run.mkdir(parents=True)
        (run / HEADER).write_text('{"identity": {}}')
    assert tune(repository, "--resume", tmp_path / given) == 2
    assert "/2026-11-30_11-00-00 " in capsys.readouterr().err


@pytest.mark.slow
def test_a_real_server_is_tuned_and_what_does_not_load_is_a_row(tmp_path, capsys):
    folder = tmp_path / "models" / "moody"
    (folder / "1").mkdir(parents=True)
    (folder / "1" / "model.py").write_text(MOODY)
    parameter = 'parameters { key: "pad_to_multiple_of" value { string_value: "16" } }'
    (folder / "config.pbtxt").write_text(f'backend: "python"{CONFIG}{parameter}')
    (tmp_path / "space.toml").write_text("[moody]\npad_to_multiple_of = [8, 32]")
    given = ("--space", tmp_path / "space.toml", "--budget", "100s", "--report", tmp_path / "results", "--json")
    assert tune(tmp_path / "models", *given, model="moody", slo="p99=100ms") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["changes"] == {"moody": {"pad_to_multiple_of": 8}}
    assert document["gain"][1] > 1
    failed = next(row for row in document["rows"] if row["configuration"] == "moody pad_to_multiple_of=32")
    assert "too much" in failed["outcome"]
    assert [Path(each).name for each in document["written"]] == ["tuned.pbtxt"]
