"""What a load consists of: whose requests, how many of them, and when."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from tritonclient.grpc import service_pb2

from clients import ModelSpec, TensorSpec
from fathom import cli
from fathom.commands.load import _plan
from fathom.console.arguments import UsageError
from fathom.recipes import draw
from fathom.workload import same_requests, with_evaluation_data
from loadtests.errors import BadRequestError
from loadtests.workload.arrivals import parse_arrivals
from loadtests.workload.shape import Shape
from loadtests.workload.trace import Trace
from loadtests.workload.workload import ModelWeight


def test_all_requests_are_sent_where_they_fit_and_else_some_of_the_whole_set():
    requests = [bytes([number]) * 10 for number in range(200)]
    assert draw(requests, 2000, seed=1) == draw(requests, 2000, seed=2) == requests
    some = draw(requests, 555, seed=1)
    assert len(some) == 55
    assert some == sorted(some) == draw(requests, 555, seed=1) != draw(requests, 555, seed=2)
    assert max(some) > requests[150]
    assert len(draw(requests, 1, seed=1)) == 1


def test_a_recipe_gives_sequences_and_their_interval(tmp_path):
    """Without a server: only the model's signature is asked for."""
    audio = TensorSpec("audio", "INT16", (1280,))
    spec = ModelSpec("voice_command", "", 32, {"audio": audio}, {}, sequence=True)
    client: Any = SimpleNamespace(model=lambda name: SimpleNamespace(spec=spec))
    share = with_evaluation_data(client, ModelWeight("voice_command"), tmp_path)
    assert share.interval_s == 0.08
    assert share.source == "evaluation data"
    assert share.payloads is not None
    for sequence in share.payloads[:3]:
        assert len(sequence) > 10
        for content in sequence:
            request = service_pb2.ModelInferRequest.FromString(content)
            assert list(request.inputs[0].shape) == [1, 1280]
            assert len(request.raw_input_contents[0]) == 2560


@pytest.fixture
def trace(tmp_path):
    path = tmp_path / "trace.csv"
    path.write_text("0\n0.5\n0.6\n")
    return str(path)


def planned(*options: str) -> Shape | Trace:
    return _plan(cli.parser("load").parse_args(["load", "m", "--slo", "p99=1s", *options]))


def test_a_recording_is_replayed_as_it_was_or_at_the_rate_of_a_schedule(trace, capsys):
    for options in (["--trace", trace], ["--arrivals", trace]):
        plan = planned(*options)
        assert isinstance(plan, Trace)
        assert "gamma:cv=" in capsys.readouterr().err
    at_rate = planned("--arrivals", trace, "--schedule", "ramp:10-20", "--duration", "4")
    assert len(at_rate.offsets_s(0)) == 60


def test_a_law_is_for_the_schedule():
    assert planned().arrivals == parse_arrivals("poisson")
    assert planned("--arrivals", "gamma:cv=2").arrivals == parse_arrivals("gamma:cv=2")


def test_contradictions_are_refused(trace):
    with pytest.raises(UsageError):
        planned("--trace", trace, "--arrivals", "poisson")
    with pytest.raises(BadRequestError):
        planned("--schedule", "poisson:5", "--arrivals", "constant")


def test_the_next_command_sends_the_same_requests():
    words = ["--slo", "p99=1s", "--inputs", "m=my file.jsonl", "--arrivals", "gamma:cv=2", "--seed", "3"]
    words += ["--sequence-interval", "0.08s"]
    asked = cli.parser("capacity").parse_args(["capacity", "m", *words])
    assert same_requests(asked) == " --inputs 'm=my file.jsonl' --arrivals gamma:cv=2 --seed 3 --sequence-interval 80ms"
    assert same_requests(cli.parser("capacity").parse_args(["capacity", "m", "--slo", "p99=1s"])) == ""
