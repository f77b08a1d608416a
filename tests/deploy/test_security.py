"""What listens where, what is refused without a token, which TLS is offered: asked of the running programs."""

from __future__ import annotations

import os
import re
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import grpc
import psutil
import pytest
from balancer import TOKEN, Balancer, Fleet, make_certificate
from debian import needs
from tritonclient.grpc import service_pb2, service_pb2_grpc
from waiting import until

from clients import TLS, Client, UnreachableError
from server.command import ADMIN_HEADER

pytestmark = [pytest.mark.process, needs("haproxy", "haproxy")]
# Every procedure of Triton's gRPC service that changes the server or reaches into its memory, with a request for it.
ADMIN_CALLS = {
    "RepositoryIndex": service_pb2.RepositoryIndexRequest(),
    "RepositoryModelLoad": service_pb2.RepositoryModelLoadRequest(model_name="double"),
    "RepositoryModelUnload": service_pb2.RepositoryModelUnloadRequest(model_name="double"),
    "SystemSharedMemoryStatus": service_pb2.SystemSharedMemoryStatusRequest(),
    "SystemSharedMemoryRegister": service_pb2.SystemSharedMemoryRegisterRequest(name="x", key="/x", byte_size=8),
    "CudaSharedMemoryStatus": service_pb2.CudaSharedMemoryStatusRequest(),
    "TraceSetting": service_pb2.TraceSettingRequest(),
    "LogSettings": service_pb2.LogSettingsRequest(),
}


@pytest.mark.parametrize("call", ADMIN_CALLS)
def test_triton_refuses_administration_without_the_token(fleet: Fleet, call: str) -> None:
    with grpc.insecure_channel(fleet.replicas[1].grpc_url) as channel:
        procedure = getattr(service_pb2_grpc.GRPCInferenceServiceStub(channel), call)
        with pytest.raises(grpc.RpcError) as refused:
            procedure(ADMIN_CALLS[call], timeout=5)
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "restricted" in refused.value.details()
        with pytest.raises(grpc.RpcError, match="restricted"):
            procedure(ADMIN_CALLS[call], timeout=5, metadata=[(f"triton-grpc-protocol-{ADMIN_HEADER}", "wrong")])


def test_triton_grants_administration_with_the_token(fleet: Fleet) -> None:
    with grpc.insecure_channel(fleet.replicas[1].grpc_url) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        index = stub.RepositoryIndex(
            service_pb2.RepositoryIndexRequest(),
            timeout=5,
            metadata=[(f"triton-grpc-protocol-{ADMIN_HEADER}", TOKEN)],
        )
    assert [model.name for model in index.models] == ["double"]


@pytest.mark.parametrize("path", ["repository/index", "repository/models/double/unload"])
def test_triton_refuses_administration_over_http_without_the_token(fleet: Fleet, path: str) -> None:
    url = f"http://127.0.0.1:{fleet.replicas[1].http_port}/v2/{path}"
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(urllib.request.Request(url, b"{}"), timeout=5)


@pytest.mark.parametrize("call", ADMIN_CALLS)
def test_the_balancer_passes_no_administration_on_even_with_the_token(fleet: Fleet, call: str) -> None:
    credentials = grpc.ssl_channel_credentials(fleet.balancer.ca.read_bytes())
    with grpc.secure_channel(fleet.balancer.address, credentials) as channel:
        procedure = getattr(service_pb2_grpc.GRPCInferenceServiceStub(channel), call)
        with pytest.raises(grpc.RpcError) as refused:
            procedure(ADMIN_CALLS[call], timeout=5, metadata=[(f"triton-grpc-protocol-{ADMIN_HEADER}", TOKEN)])
    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED


@pytest.mark.parametrize(
    ("version", "offered"), [("tls1", False), ("tls1_1", False), ("tls1_2", True), ("tls1_3", True)]
)
def test_tls_versions(fleet: Fleet, version: str, offered: bool) -> None:
    shown = handshake(fleet.balancer, f"-{version}", "-cipher", "DEFAULT:@SECLEVEL=0")
    assert ("Cipher is (NONE)" not in shown and "Cipher is " in shown) is offered, shown
    if offered:
        assert "ALPN protocol: h2" in shown
        assert re.search(r"Cipher is (TLS_|ECDHE-.*(GCM|CHACHA20))", shown)


def test_http_1_is_not_spoken_on_the_encrypted_port(fleet: Fleet) -> None:
    assert "No ALPN negotiated" in handshake(fleet.balancer, alpn="http/1.1")


def test_plain_text_is_refused_on_the_encrypted_port(fleet: Fleet) -> None:
    with Client(fleet.balancer.address, timeout_s=3) as client, pytest.raises(UnreachableError):
        client.model("double")


def test_mutual_tls_refuses_a_client_without_a_certificate(fleet: Fleet, tmp_path: Path) -> None:
    mine = make_certificate(tmp_path / "client", "client")
    balancer = Balancer(fleet.replicas, tmp_path, VERIFY_CLIENTS="required", CLIENT_CA=str(mine.with_name("ca.crt")))
    balancer.start()
    try:
        with Client(balancer.address, tls=TLS(ca=balancer.ca), timeout_s=3) as client, pytest.raises(UnreachableError):
            client.model("double")
        known = TLS(ca=balancer.ca, cert=mine.with_suffix(".crt"), key=mine.with_suffix(".key"))
        with Client(balancer.address, tls=known) as client:
            assert client.model("double")(x=[[1.0, 2.0]])["y"].tolist() == [[2.0, 4.0]]
    finally:
        balancer.close()


def test_a_rotated_certificate_is_used_after_a_reload_and_no_request_is_lost(fleet: Fleet) -> None:
    balancer = fleet.balancer
    before = serial(balancer)
    with Client(balancer.address, tls=TLS(ca=balancer.ca)) as client:
        double = client.model("double")
        make_certificate(balancer.folder)
        balancer.reload()
        for number in range(200):
            assert double(x=[[number, 0.0]])["y"][0, 0] == 2 * number
    await_serial(balancer, lambda now: now != before)


def test_a_broken_certificate_keeps_the_old_one_in_use(fleet: Fleet) -> None:
    balancer = fleet.balancer
    good, before = balancer.certificate.read_text(), serial(balancer)
    try:
        balancer.certificate.write_text("not a certificate\n")
        balancer.reload()
        balancer.await_log("unable to load certificate")
        assert serial(balancer) == before
        with Client(balancer.address, tls=TLS(ca=balancer.ca)) as client:
            assert client.model("double")(x=[[1.0, 2.0]])["y"].tolist() == [[2.0, 4.0]]
    finally:
        balancer.certificate.write_text(good)
        balancer.reload()
        await_serial(balancer, lambda now: now == before)
        balancer.metrics()


def test_everything_listens_on_the_loopback_when_it_is_told_to(fleet: Fleet) -> None:
    sockets = [socket for replica in fleet.replicas for socket in psutil.Process(replica.pid).net_connections("tcp")]
    addresses = [socket.laddr.ip for socket in sockets if socket.status == psutil.CONN_LISTEN]
    assert len(addresses) >= 6
    assert set(addresses) <= {"127.0.0.1", "::ffff:127.0.0.1"}


def handshake(balancer: Balancer, *options: str, alpn: str = "h2") -> str:
    """What `openssl s_client` says of a connection."""
    command = ["openssl", "s_client", "-connect", balancer.address, "-alpn", alpn, *options]
    done = subprocess.run(command, input="", capture_output=True, text=True, timeout=10, env=os.environ, check=False)
    return done.stdout + done.stderr


def await_serial(balancer: Balancer, expected: Callable[[str], bool]) -> None:
    """Wait until the certificate that is offered is as expected: a reload takes its time on a busy machine."""
    until(lambda: expected(serial(balancer)), balancer.report)


def serial(balancer: Balancer) -> str:
    """The certificate that is offered now."""
    return re.search(r"-----BEGIN CERTIFICATE-----(.*?)-----END", handshake(balancer), re.S)[1]
