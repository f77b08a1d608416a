"""The HTTP/2 transport against the official gRPC server, beside grpc.aio: plain, with TLS, over every address."""

from __future__ import annotations

import asyncio
import ssl
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from certificates import issue_all
from exchange import exchange
from grpc_transport import GrpcTransport

from clients import TLS
from loadtests.errors import BadRequestError, GeneratorError
from loadtests.generator.http2 import Http2Transport
from loadtests.generator.http2 import frames as h2
from loadtests.generator.transport import METHOD
from loadtests.records.record import EMPTY_RESPONSE, OK
from loadtests.target.access import Access

TRANSPORTS = [Http2Transport, GrpcTransport]
ECHO = b"echo "


def start_echo(*addresses: str, credentials: grpc.ServerCredentials | None = None) -> tuple[grpc.Server, list[int]]:
    """Answers `echo ...` with itself, `empty` with nothing, `fail ...` with an error, `sleep` after half a second, and
    `who` with the caller's token. Returns its ports."""

    def handle(request: bytes, context: grpc.ServicerContext) -> bytes:
        if request.startswith(b"fail "):
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, request[5:].decode())
        if request == b"sleep":
            time.sleep(0.5)
        if request == b"who":
            context.abort(grpc.StatusCode.UNAUTHENTICATED, dict(context.invocation_metadata())["authorization"])
        return b"" if request == b"empty" else request

    server = grpc.server(
        ThreadPoolExecutor(4),
        options=[("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)],
    )
    method = grpc.unary_unary_rpc_method_handler(handle)
    service, name = METHOD.strip("/").split("/")
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, {name: method})])
    ports = [
        server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
        for address in addresses
    ]
    server.start()
    return server, ports


@pytest.fixture(scope="module")
def echo_server():
    server, (port,) = start_echo("127.0.0.1:0")
    yield f"127.0.0.1:{port}"
    server.stop(None)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    return issue_all(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def tls_server(certificates):
    """The same behind TLS, for holders of a certificate."""
    authority, own, key = ((certificates / f).read_bytes() for f in ("authority.pem", "triton.pem", "triton.key"))
    credentials = grpc.ssl_server_credentials([(key, own)], root_certificates=authority, require_client_auth=True)
    server, (port,) = start_echo("127.0.0.1:0", credentials=credentials)
    yield f"127.0.0.1:{port}"
    server.stop(None)


def tls_of(folder, *, ca="authority", caller: str | None = "caller") -> Access:
    own = {"cert": folder / f"{caller}.pem", "key": folder / f"{caller}.key"} if caller else {}
    return Access(TLS(ca=folder / f"{ca}.pem", **own), {"Authorization": "Bearer " + "t" * 3000})


@pytest.mark.parametrize("kind", TRANSPORTS)
def test_tls_with_a_certificate_and_a_token(tls_server, certificates, kind):
    payloads = [ECHO + bytes(200_000), b"who"]
    access = tls_of(certificates)
    answers = asyncio.run(exchange(kind, tls_server, payloads, [0, 0, 1, 0, 1], channels=2, access=access))
    assert answers[0] == answers[1] == answers[3] == (OK, "")
    assert answers[2] == answers[4] == (grpc.StatusCode.UNAUTHENTICATED.value[0], "Bearer " + "t" * 3000)


@pytest.mark.parametrize("kind", TRANSPORTS)
@pytest.mark.parametrize(
    "wrong", [{"ca": "stranger"}, {"caller": None}, {"caller": "stranger"}], ids=["other authority", "none", "stranger"]
)
def test_tls_that_does_not_match_is_no_connection(tls_server, certificates, kind, wrong):
    access = tls_of(certificates, **wrong)
    with pytest.raises(OSError):
        asyncio.run(exchange(kind, tls_server, [ECHO], [0], access=access, timeout_s=0.5))


def test_the_leaf_may_be_what_is_trusted(tls_server, certificates):
    """As gRPC has it; OpenSSL alone would want the authority."""
    answers = asyncio.run(exchange(Http2Transport, tls_server, [ECHO], [0], access=tls_of(certificates, ca="triton")))
    assert answers[0] == (OK, "")


def test_tls_without_http2_is_no_connection(certificates):
    async def scenario():
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificates / "triton.pem", certificates / "triton.key")
        async with await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=context) as server:
            address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
            transport = Http2Transport(
                address, [ECHO], lambda *_: None, channels=1, timeout_s=3, access=tls_of(certificates)
            )
            with pytest.raises(OSError, match="ALPN"):
                await transport.open()

    asyncio.run(scenario())


def test_certificates_that_cannot_be_used_are_our_own_fault(certificates, tmp_path):
    (tmp_path / "no.pem").write_text("nothing")
    with pytest.raises(GeneratorError):
        asyncio.run(exchange(Http2Transport, "h:1", [ECHO], [0], access=Access(TLS(ca=tmp_path / "no.pem"))))


@pytest.mark.parametrize("kind", TRANSPORTS)
def test_every_kind_of_address(kind, tmp_path):
    server, (four, six, _, _) = start_echo(
        "127.0.0.1:0", "[::1]:0", f"unix:{tmp_path / 'socket'}", f"unix-abstract:{tmp_path}"
    )
    forms = [
        f"localhost:{four}",
        f"dns:///localhost:{four}",
        f"ipv4:127.0.0.1:{four}",
        f"ipv4:127.0.0.1:{four},127.0.0.1:9",
        f"[::1]:{six}",
        f"ipv6:[::1]:{six}",
        f"unix:{tmp_path / 'socket'}",
        f"unix://{tmp_path / 'socket'}",
        f"unix-abstract:{tmp_path}",
    ]
    try:
        for form in forms:
            assert asyncio.run(exchange(kind, form, [ECHO], [0]))[0] == (OK, ""), form
    finally:
        server.stop(None)


@pytest.mark.parametrize("server", ["localhost", "http://h:1", "xds:///h:1", "h:0", "", "dns://h:1"])
def test_what_is_no_address(server):
    with pytest.raises(BadRequestError) as refused:
        asyncio.run(exchange(Http2Transport, server, [ECHO], [0]))
    assert refused.value.field == "server"


@pytest.mark.parametrize("kind", TRANSPORTS)
def test_answers_errors_and_empty_bodies(echo_server, kind):
    payloads = [ECHO, b"empty", "fail größer als 100 % \u2713".encode()]
    answers = asyncio.run(exchange(kind, echo_server, payloads, [0, 1, 2, 0]))
    assert answers[0] == answers[3] == (OK, "")
    assert answers[1][0] == EMPTY_RESPONSE
    assert answers[2] == (grpc.StatusCode.INVALID_ARGUMENT.value[0], "größer als 100 % \u2713")


@pytest.mark.parametrize("kind", TRANSPORTS)
@pytest.mark.parametrize("size", [0, 16_378, 16_379, 16_380, 65_530, 3_000_000])
def test_bodies_of_any_size_pass_flow_control_both_ways(echo_server, kind, size):
    payloads = [ECHO + bytes(size)]
    answers = asyncio.run(exchange(kind, echo_server, payloads, [0] * 6, channels=2))
    assert set(answers.values()) == {(OK, "")}


def test_many_requests_on_several_channels(echo_server):
    answers = asyncio.run(exchange(Http2Transport, echo_server, [ECHO, ECHO * 99], [0, 1] * 400, channels=3))
    assert set(answers.values()) == {(OK, "")}


@pytest.mark.parametrize("kind", TRANSPORTS)
def test_the_server_is_told_the_deadline(echo_server, kind):
    answers = asyncio.run(exchange(kind, echo_server, [b"sleep"], [0], timeout_s=0.2))
    assert answers[0][0] in (grpc.StatusCode.DEADLINE_EXCEEDED.value[0], grpc.StatusCode.CANCELLED.value[0])


@pytest.mark.parametrize("kind", TRANSPORTS)
def test_nobody_listens(kind):
    with pytest.raises(OSError):
        asyncio.run(exchange(kind, "127.0.0.1:9", [ECHO], [0], timeout_s=0.2))


def test_cancelled_requests_are_not_reported(echo_server):
    async def run() -> list[int]:
        seen: list[int] = []
        transport = Http2Transport(
            echo_server, [b"sleep", ECHO], lambda index, *_: seen.append(index), channels=1, timeout_s=5
        )
        await transport.open()
        transport.send(0, 0)
        transport.flush()
        await asyncio.sleep(0.05)
        transport.cancel(0)
        transport.send(1, 1)
        transport.flush()
        await asyncio.sleep(0.7)
        await transport.close()
        return seen

    assert asyncio.run(run()) == [1]


@pytest.mark.parametrize(("table_bytes", "token_bytes"), [(0, 1), (4096, 1), (4096, 3000), (4096, 5000)])
def test_later_header_blocks_mean_the_same_as_the_first(table_bytes, token_bytes):
    from hpack import Decoder

    headers = h2.RequestHeaders("host:1", [METHOD], 2.5, metadata=[("token", "t" * token_bytes)])
    ((first, later),) = headers.blocks(table_bytes)
    decoder = Decoder()
    decoder.max_allowed_table_size = table_bytes
    decoder.max_header_list_size = 1 << 16
    lists = [decoder.decode(block) for block in (first, later, later, later)]
    assert all(found == lists[0] for found in lists)
    assert dict(lists[0])[":path"] == METHOD
    assert dict(lists[0])["grpc-timeout"] == "2500m"
    assert (len(later) < 20) == (table_bytes > 0 and token_bytes < 4000)
