"""The load tools at the entrance that callers use: HAProxy with TLS, certificates of both sides, and reloads."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from balancer import Balancer, Fleet, make_certificate
from debian import needs
from haste import HASTY
from locust_process import LocustProcess, children, free_port
from tritonclient.grpc import service_pb2 as pb

from clients import TLS
from fathom import cli
from loadtests import CapacityRequest, Slo, find
from loadtests.generator.messages import Limits
from loadtests.generator.process import GeneratorProcess, GeneratorSettings
from loadtests.target.access import Access
from loadtests.workload.schedule import constant, payload_choices

pytestmark = [pytest.mark.process, pytest.mark.alone, needs("haproxy", "haproxy")]
LOOSE = (Slo.parse("p90=500ms"),)


@pytest.fixture
def entrance(healthy: Fleet, tmp_path: Path) -> Iterator[Balancer]:
    """An HAProxy of its own in front of the fleet, for holders of a certificate: `caller.crt` and `caller.key`."""
    balancer = Balancer(healthy.replicas, tmp_path, VERIFY_CLIENTS="required", CLIENT_CA=str(tmp_path / "ca.crt"))
    make_certificate(tmp_path, "caller")
    try:
        balancer.start()
        for replica in healthy.replicas:
            Fleet(healthy.replicas, balancer).bring_back(replica)
        yield balancer
    finally:
        balancer.close()


def access(balancer: Balancer) -> Access:
    folder = balancer.folder
    return Access(
        TLS(ca=balancer.ca, cert=folder / "caller.crt", key=folder / "caller.key"), {"authorization": "secret"}
    )


def test_a_capacity_search_loses_nothing_while_haproxy_is_reloaded(entrance: Balancer, tmp_path: Path) -> None:
    over = threading.Event()
    reloads = []

    def reload() -> None:
        while not over.wait(0.7):
            entrance.reload()
            reloads.append(entrance)

    reloading = threading.Thread(target=reload)
    reloading.start()
    try:
        request = CapacityRequest(
            entrance.address,
            "double",
            LOOSE,
            budget_s=20.0,
            start_per_s=400.0,
            max_per_s=400.0,
            folder=tmp_path / "report",
            access=access(entrance),
            timing=HASTY,
        )
        result = find(request)
    finally:
        over.set()
        reloading.join()
    assert [(point.rate_per_s, point.errors, point.error_messages) for point in result.points if point.errors] == []
    assert result.verdict == "pass"
    assert not result.partial
    assert len(reloads) >= 2
    kept = "".join(path.read_text() for path in tmp_path.rglob("report/**/*") if path.suffix in (".json", ".jsonl"))
    assert '"authorization"' in kept
    assert "secret" not in kept


def test_the_commands_take_certificates_and_tokens(entrance: Balancer, capsys: pytest.CaptureFixture[str]) -> None:
    folder = entrance.folder
    (folder / "token").write_text("Bearer secret\n")
    given = ["--server", entrance.address, "--tls-ca", str(entrance.ca)]
    own = ["--tls-cert", str(folder / "caller.crt"), "--tls-key", str(folder / "caller.key")]
    token = ["--header", f"authorization=@{folder / 'token'}", "--json"]
    asked = ["load", "double", "--slo", "p90=1s", "--schedule", "constant:100", "--duration", "1"]
    assert cli.main([*asked, *given, *own, *token]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["errors"] == 0
    assert cli.main([*asked, *given]) == 2  # without a certificate
    assert capsys.readouterr().err.count("\n") == 1


def own_options(balancer: Balancer) -> tuple[str, ...]:
    """What a Locust process needs to get in."""
    folder = balancer.folder
    (folder / "token").write_text("secret\n")
    files = ("--tls-client-cert", str(folder / "caller.crt"), "--tls-client-key", str(folder / "caller.key"))
    return ("--tls-ca", str(balancer.ca), *files, "--header", f"authorization=@{folder / 'token'}")


def test_locust_takes_certificates_and_tokens(entrance: Balancer, tmp_path: Path) -> None:
    asked = ("--headless", "-u", "100", "-t", "60s", "--only-summary", "--model", "double", "--slo", "p90=500ms")
    process = LocustProcess(tmp_path / "log", "--host", entrance.address, *asked, *own_options(entrance))
    process.wait_for("All users spawned")
    time.sleep(1.5)
    process.process.terminate()
    code, said = process.wait()
    assert "p90=500ms: pass" in said, said
    assert code == 0


def test_locust_workers_use_their_own_certificates_for_a_search(entrance: Balancer, tmp_path: Path) -> None:
    port = str(free_port())
    worker = LocustProcess(tmp_path / "log", "--worker", "--master-port", port, *own_options(entrance))
    tensor = pb.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=[1, 2])
    request = pb.ModelInferRequest(model_name="double", inputs=[tensor], raw_input_contents=[bytes(8)])
    settings = GeneratorSettings(entrance.address, [request.SerializeToString()], access=access(entrance))
    options = ("127.0.0.1", port, "1")
    schedule, choices = constant(100, count=100), payload_choices(100, 1, seed=0)
    try:
        with GeneratorProcess(settings, module="loadtests.locust_ui.master", options=options) as master:
            record, outcome = master.run_schedule(schedule, choices, Limits(10_000))
            assert record.ok.all(), outcome
            processes = (master.pid, worker.process.pid, *children(worker.process.pid))
            command_lines = [Path(f"/proc/{pid}/cmdline").read_text() for pid in processes]
            assert "secret" not in "".join(command_lines)
            assert len(command_lines) == 3
    finally:
        worker.stop()
