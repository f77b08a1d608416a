"""The load tools at the entrance that callers use: HAProxy with TLS, certificates of both sides, and reloads."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from balancer import Balancer, Fleet, make_certificate
from debian import needs
from haste import HASTY

from clients import TLS
from fathom import cli
from loadtests import CapacityRequest, Slo, find
from loadtests.target.access import Access

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
