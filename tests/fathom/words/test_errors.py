"""One example of each class of error, as the command line shows it."""

from __future__ import annotations

import argparse
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from endless_graphs import forever
from imported_models import F, node, write
from plain_server import PlainServer
from scale_model import Scale
from syrupy.assertion import SnapshotAssertion

import clients.errors
import export.errors
import loadtests.errors
import server.errors
from clients import failures
from export import files
from export.config import config as configs
from export.engine import library
from export.engine.options import EngineOptions
from export.graph import onnx_file
from export.graph.runtime import Limits
from export.recipe.gate import gate
from export.recipe.measure import Measurement
from export.repository.publish import hold
from fathom import candidate, cli, rollout
from fathom.console.arguments import UsageError
from fathom.replica import RolloutError
from fathom.rollout import Rollout, Watched
from loadtests.generator.messages import read_record
from loadtests.results.store import read_runs
from loadtests.search import unloaded
from loadtests.slo import Slo
from loadtests.target.client import Target
from loadtests.workload.trace import read_trace
from server import TritonServer, environment


class Rpc(grpc.RpcError):  # type: ignore[misc]
    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        self._code, self._details = code, details

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return self._details

    def initial_metadata(self) -> tuple[()]:
        return ()

    def trailing_metadata(self) -> tuple[()]:
        return ()


def rpc(status: str, details: str) -> Callable[[Path], None]:
    """A call that Triton or gRPC ends like that."""

    def fail(folder: Path) -> None:
        sent = failures.Sent("mine", "host:8001", 2.0)
        raise failures.from_rpc(Rpc(grpc.StatusCode[status], details), sent)

    return fail


class Refusing(PlainServer):
    """A KServe server that ends each inference with the status."""

    def __init__(self, status: str, details: str) -> None:
        super().__init__()
        self._ends = grpc.StatusCode[status], details

    def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802
        context.abort(*self._ends)


def refused(status: str, details: str) -> Callable[[Path], None]:
    def fail(folder: Path) -> None:
        with Refusing(status, details) as refusing, Target(refusing.address, "m") as target:
            target.infer(b"", 5.0)

    return fail


def a_trace(folder: Path) -> None:
    (folder / "trace.csv").write_text("offset_s\n0.5\nsoon\n")
    read_trace(folder / "trace.csv")


def a_config(folder: Path) -> None:
    (folder / "mine").mkdir()
    (folder / "mine" / "config.pbtxt").write_text("max_batch_size: 8\ndynamic_batching {{\n")
    configs.load(folder / "mine" / "config.pbtxt")


def a_graph(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(b"no graph")
    onnx_file.session(folder / "model.onnx")


def an_endless_graph(folder: Path) -> None:
    onnx_file.session(forever().SerializeToString(), limits=Limits(seconds=0.5))({"x": np.ones((1, 4), np.float32)})


def an_accuracy(folder: Path) -> None:
    gate(Scale(folder), "onnx", Measurement({"hit_rate": 1.0}), Measurement({"hit_rate": 0.5}))


def a_dead_server(folder: Path) -> None:
    triton = TritonServer(folder)
    triton._process = subprocess.Popen(["sh", "-c", "exit 137"])  # as its keeper ends when it was killed
    triton._process.wait()
    triton._run_dir = folder
    print(triton.pid)


def a_shape(folder: Path) -> None:
    write(folder / "relu.onnx", [node("Relu", ["x"], ["y"])], [("x", F, ["n", 3])], [("y", F, ["n", 3])])
    np.savez(folder / "rows.npz", x=np.zeros((2, 5), np.float32))
    cli_command("add mine --onnx relu.onnx --example rows.npz")(folder)


def cli_command(words: str) -> Callable[[Path], None]:
    """The command itself, past the place where errors become a line."""

    def fail(folder: Path) -> None:
        options = cli.parser(words.split()[0]).parse_args(words.split())
        options.run(options)

    return fail


ERRORS: dict[type[Exception], Callable[[Path], object]] = {
    clients.errors.InvalidInputError: rpc("INVALID_ARGUMENT", "unexpected shape for input 'x' for model 'mine'"),
    clients.errors.ModelNotFoundError: rpc("NOT_FOUND", "Request for unknown model: 'mine' is not found"),
    clients.errors.ModelNotReadyError: rpc("UNAVAILABLE", "Request for unknown model: 'mine' is not at ready state"),
    clients.errors.OverloadedError: rpc("UNAVAILABLE", "Exceeds maximum queue size"),
    clients.errors.QueueTimeoutError: rpc("UNAVAILABLE", "Request timeout expired"),
    clients.errors.DeadlineExceededError: rpc("DEADLINE_EXCEEDED", "Deadline Exceeded"),
    clients.errors.UnreachableError: rpc("UNAVAILABLE", "failed to connect to all addresses; Connection refused"),
    clients.errors.ServerError: rpc("INTERNAL", "the model raised ValueError: no"),
    export.errors.FileError: lambda folder: files.find(folder, "../elsewhere"),
    export.errors.RecipeError: cli_command("export resnet"),
    export.errors.NotOfferedError: cli_command("export rain_forecast --precision int8"),
    export.errors.ConfigError: a_config,
    export.errors.ContractError: a_shape,
    export.errors.NotLoadedError: a_graph,
    export.errors.LimitError: an_endless_graph,
    export.errors.AccuracyError: an_accuracy,
    export.errors.PublishError: lambda folder: hold(folder / "nowhere").__enter__(),
    export.errors.EngineError: lambda folder: EngineOptions(workspace_gb=0),
    export.errors.EngineUnavailableError: lambda folder: library.load(),
    server.errors.EnvironmentNotFitError: lambda folder: environment._package_dir("pytriton_that_is_missing"),
    server.errors.ServerStartError: lambda folder: TritonServer(folder / "model_repository").start(),
    server.errors.ServerDiedError: a_dead_server,
    loadtests.errors.BadRequestError: lambda folder: Slo.parse("fast"),
    loadtests.errors.InputFileError: a_trace,
    loadtests.errors.TargetError: refused("INVALID_ARGUMENT", "input x has no rows"),
    loadtests.errors.TargetBusyError: refused("UNAVAILABLE", "Exceeds maximum queue size"),
    loadtests.errors.TargetLostError: refused("DEADLINE_EXCEEDED", "Deadline Exceeded"),
    loadtests.errors.SloUnreachableError: lambda folder: unloaded._check(
        "mine", [Slo.parse("p99=20ms")], unloaded.Alone(42.0, 42.0, 0.0, 0.0), 15
    ),
    loadtests.errors.GeneratorError: read_record,
    loadtests.errors.ResultsError: lambda folder: read_runs(folder / "nowhere"),
    UsageError: cli_command("report"),
    OSError: lambda folder: (folder / "model_repository").write_text(""),
}


def leaves(base: type[Exception]) -> Iterator[type[Exception]]:
    for kind in base.__subclasses__():
        yield kind
        yield from leaves(kind)


def test_every_error_has_an_example() -> None:
    bases = (
        clients.errors.InferenceError,
        export.errors.ExportError,
        server.errors.TritonServerError,
        loadtests.errors.LoadTestError,
    )
    assert {kind for base in bases for kind in leaves(base) if kind.__module__.endswith(".errors")} <= set(ERRORS)


@pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.__name__)
def test_error(
    kind: type[Exception],
    folder: Path,
    shown: Callable[[], str],
    monkeypatch: pytest.MonkeyPatch,
    snapshot: SnapshotAssertion,
) -> None:
    """As `fathom check` shows it: a line behind the command's name, and exit status 2."""
    with pytest.raises(kind) as raised:
        ERRORS[kind](folder)
    assert issubclass(kind, OSError) or type(raised.value) is kind
    shown()

    def fail(options: argparse.Namespace) -> int:
        raise raised.value

    monkeypatch.setattr("fathom.commands.check.run", fail)
    assert cli.main(["check"]) == 2
    text = shown()
    assert text.count("\n") == 2
    assert text == snapshot


def test_a_new_version_that_is_refused(
    shown: Callable[[], str], monkeypatch: pytest.MonkeyPatch, snapshot: SnapshotAssertion
) -> None:
    def differ(*_: object) -> int:
        candidate.agree("y", np.ones(2), np.array([1.0, 0.5]), 0.02)
        return 2

    monkeypatch.setattr("fathom.commands.publish.roll", differ)
    assert cli.main(["publish", "mine", "--from", "mine/1"]) == 1
    assert shown() == snapshot


def test_a_roll_back_that_leaves_a_replica_behind(
    shown: Callable[[], str], monkeypatch: pytest.MonkeyPatch, snapshot: SnapshotAssertion
) -> None:
    left_behind = {"gpu-2:8001": "gpu-2:8001 does not answer"}

    def fail(*_: object) -> int:
        raise RolloutError(
            rollout.rolled_back("31 of 700 requests failed at gpu-1:8001", 4, left_behind), [*left_behind]
        )

    monkeypatch.setattr("fathom.commands.publish.roll", fail)
    assert cli.main(["publish", "mine", "--from", "mine/1"]) == 1
    assert shown() == snapshot


IN_SERVICE = {
    "too few": Watched(12, 0, "undecided", ("gpu-2:8001",)),
    "enough": Watched(5_000, 0, "pass"),
    "no traffic": Watched(0, 0, "undecided", ("gpu-1:8001", "gpu-2:8001")),
    "not watched": None,
}


@pytest.mark.parametrize("watched", IN_SERVICE)
def test_a_version_that_is_in_service(
    shown: Callable[[], str], monkeypatch: pytest.MonkeyPatch, snapshot: SnapshotAssertion, watched: str
) -> None:
    monkeypatch.setattr("fathom.commands.publish.roll", lambda *_: Rollout(4, IN_SERVICE[watched]))
    assert cli.main(["publish", "mine", "--from", "mine/1"]) == (1 if watched == "no traffic" else 0)
    assert shown() == snapshot
