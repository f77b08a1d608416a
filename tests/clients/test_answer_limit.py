"""The bound on an answer's size, against the official gRPC server: no more is read, and nothing is inflated."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from tritonclient.grpc import service_pb2

from clients import AsyncClient, Client, ServerError

LARGE = 1 << 20


def answers_of(size: int, compression: grpc.Compression | None) -> tuple[grpc.Server, str]:
    """A server whose models have a name of `size` bytes, and its address."""
    answer = service_pb2.ModelMetadataResponse(name="m" * size).SerializeToString()

    class Handler(grpc.GenericRpcHandler):
        def service(self, details):
            sent = answer if details.method.endswith("ModelMetadata") else b""
            return grpc.unary_unary_rpc_method_handler(lambda request, context: sent)

    server = grpc.server(ThreadPoolExecutor(4), compression=compression)
    server.add_generic_rpc_handlers((Handler(),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    return server, f"127.0.0.1:{port}"


@pytest.fixture(params=[None, grpc.Compression.Gzip, grpc.Compression.Deflate], ids=["plain", "gzip", "deflate"])
def too_large(request) -> Iterator[str]:
    server, address = answers_of(LARGE, request.param)
    yield address
    server.stop(None)


def test_too_large_an_answer_is_refused_and_not_asked_for_again(too_large):
    with Client(too_large, max_answer_bytes=LARGE) as client, pytest.raises(ServerError) as refused:
        client.model("m")
    assert (refused.value.source, refused.value.transient) == ("client", False)


def test_too_large_an_answer_with_asyncio(too_large):
    async def ask() -> None:
        async with AsyncClient(too_large, max_answer_bytes=LARGE) as client:
            await client.model("m")

    with pytest.raises(ServerError):
        asyncio.run(ask())


def test_a_compressed_answer_is_refused_whatever_it_holds():
    server, address = answers_of(1000, grpc.Compression.Gzip)
    try:
        with Client(address) as client, pytest.raises(ServerError):
            client.model("m")
    finally:
        server.stop(None)


def test_an_answer_up_to_the_limit_is_read():
    server, address = answers_of(LARGE, None)
    try:
        with Client(address, max_answer_bytes=LARGE + 100) as client:
            assert client.model("m").spec.name == "m" * LARGE
    finally:
        server.stop(None)


@pytest.mark.parametrize("limit", [0, -1, 1 << 31, 1.5, True])
def test_what_is_no_limit(limit):
    with pytest.raises(ValueError, match="max_answer_bytes"):
        Client("localhost:1", max_answer_bytes=limit)
