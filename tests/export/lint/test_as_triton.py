"""What `fathom check` refuses, the real Triton refuses, and the other way round, over the folder of configurations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import groupby
from pathlib import Path

import grpc
import pytest
from complete_server import complete_server
from configurations import CASES, STRICTER, Case
from tritonclient.grpc import service_pb2, service_pb2_grpc

from export.lint.finding import Finding
from export.lint.lint import lint
from server import TritonServer

LOADS_AT_ONCE = 24
"""Most of a load is waiting for the stub of the python backend."""


@pytest.fixture(scope="module")
def configurations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model repository with the folder of every case."""
    repository = tmp_path_factory.mktemp("configurations")
    for case in CASES:
        case.write(repository)
    return repository


@pytest.fixture(scope="module")
def errors(configurations: Path) -> Mapping[str, list[Finding]]:
    """What check calls an error, by model."""
    found: dict[str, list[Finding]] = {case.name: [] for case in CASES}
    for finding in lint(configurations):
        if finding.severity == "error":
            found[finding.file.split("/")[0]].append(finding)
    return found


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_check_reports_the_rule_and_the_field_or_nothing(case: Case, errors: Mapping[str, list[Finding]]) -> None:
    found = {(finding.rule, finding.field) for finding in errors[case.name]}
    assert (case.rule, case.field) in found if case.rule else not found


@pytest.mark.process
def test_check_agrees_with_triton(
    configurations: Path, errors: Mapping[str, list[Finding]], record_property: pytest.RecordProperty
) -> None:
    options = ("--model-control-mode=explicit", f"--model-load-thread-count={LOADS_AT_ONCE}")
    written = [case for case in CASES if case.is_complete]
    loaded = load(partial(complete_server, configurations, extra=options), written)
    completing = partial(TritonServer, configurations, stop_timeout_s=0, extra=options)
    loaded |= load(completing, [case for case in CASES if case not in written])
    verdicts = {case: verdict(case, loaded[case.name], errors[case.name]) for case in CASES}
    for name, count in Counter(verdicts.values()).items():
        record_property(name, count)
    assert {case.why: errors[case.name] for case, said in verdicts.items() if said == "disagree"} == {}
    stricter = {case.rule for case, said in verdicts.items() if said == "stricter"}
    assert stricter == {*STRICTER}
    assert len(CASES) >= 100


def verdict(case: Case, loaded: bool, errors: list[Finding]) -> str:
    """Whether check agrees with Triton; with the official backend, where the embedded one cannot do as it does."""
    serves = case.loads if case.gap else loaded
    if serves != bool(errors):
        return "agree"
    return "stricter" if serves and {finding.rule for finding in errors} <= {*STRICTER} else "disagree"


def load(serve: Callable[[], TritonServer], cases: Sequence[Case], at_once: int = LOADS_AT_ONCE) -> dict[str, bool]:
    """Whether Triton loads each model. Where it crashes of one (docs/known-issues.md), fresh servers load the rest."""
    with serve() as server:
        loaded = dict(answers(server, cases, at_once))
        if len(loaded) == len(cases):
            return loaded
        reason = server.death_reason()
    left = [case for case in cases if case.name not in loaded]
    suspects = [case for case in left if repr(case.name) in reason]
    others = [case for case in left if case not in suspects]
    assert suspects, reason
    loaded |= load(serve, suspects, 1) if len(suspects) > 1 else {suspects[0].name: False}
    return loaded | load(serve, others, at_once) if others else loaded


def answers(server: TritonServer, cases: Sequence[Case], at_once: int) -> Iterator[tuple[str, bool]]:
    """Whether the server loads each model, until it crashes; ensembles last, whose steps are loaded by then."""
    token = tuple(server.admin_headers.items())
    with grpc.insecure_channel(server.grpc_url) as channel, ThreadPoolExecutor(at_once) as pool:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)

        def loads(case: Case) -> bool | None:
            try:
                asked = service_pb2.RepositoryModelLoadRequest(model_name=case.name)
                stub.RepositoryModelLoad(asked, timeout=120, metadata=token)
            except grpc.RpcError as error:
                if error.code() == grpc.StatusCode.DEADLINE_EXCEEDED:
                    raise
                return None if error.code() == grpc.StatusCode.UNAVAILABLE else False
            return True

        for _, alike in groupby(cases, lambda case: "ensemble_scheduling" in (case.config or "")):
            group = list(alike)
            for case, loaded in zip(group, pool.map(loads, group), strict=True):
                if loaded is not None:
                    yield case.name, loaded
