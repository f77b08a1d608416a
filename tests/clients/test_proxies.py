"""Proxies that the environment names: never on the way to this machine, and named where a call through one fails."""

import asyncio
import socket
import threading

import pytest

from clients import AsyncClient, Client, InsecureConnectionWarning, UnreachableError, proxies

FAR = "triton.example.com:8001"
URL = "http://me:secret@127.0.0.1:9"
NAMES = ("grpc_proxy", "https_proxy", "http_proxy", "no_grpc_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch):
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("variable", ["grpc_proxy", "https_proxy", "http_proxy"])
def test_this_machine_is_asked_directly(small_server, monkeypatch, variable):
    monkeypatch.setenv(variable, URL)
    port = small_server.grpc_url.rpartition(":")[2]
    for host in ("127.0.0.1", "localhost", "ipv4:127.0.0.1", "dns:///localhost", "0.0.0.0"):
        with Client(f"{host}:{port}", timeout_s=5) as client:
            assert "double" in client.models()

    async def ask():
        async with AsyncClient(small_server.grpc_url) as client:
            return await client.models()

    assert "double" in asyncio.run(ask())


@pytest.fixture
def refusing_proxy():
    """The URL of an HTTP proxy that answers 403 to everything."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def refuse():
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(65_536)
                    connection.sendall(b"HTTP/1.1 403 Forbidden\r\n\r\n")

        threading.Thread(target=refuse, daemon=True).start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        listening.shutdown(socket.SHUT_RDWR)


@pytest.mark.filterwarnings(f"ignore::{InsecureConnectionWarning.__module__}.InsecureConnectionWarning")
def test_a_proxy_in_the_way_is_named(monkeypatch, refusing_proxy):
    for url in (URL, refusing_proxy, "http://no-such-proxy.invalid:3128"):
        monkeypatch.setenv("http_proxy", url)
        with Client(FAR, timeout_s=5) as client, pytest.raises(UnreachableError) as caught:
            client.models()
        assert f"http_proxy={url.replace('me:secret@', '')}:" in str(caught.value)
        assert "secret" not in str(caught.value)


ROWS = [
    # the environment, the address, the variable that counts
    ({"http_proxy": URL}, FAR, "http_proxy"),
    ({"http_proxy": URL, "grpc_proxy": URL}, FAR, "grpc_proxy"),
    ({"http_proxy": URL, "https_proxy": URL}, f"dns:///{FAR}", "https_proxy"),
    ({"http_proxy": URL}, "ipv6:[2001:db8::1]:8001", "http_proxy"),
    ({"http_proxy": ""}, FAR, ""),
    ({"http_proxy": "socks5://127.0.0.1:9"}, FAR, ""),
    ({"http_proxy": URL}, "localhost:8001", ""),
    ({"http_proxy": URL}, "triton.localhost:8001", ""),
    ({"http_proxy": URL}, "[::1]:8001", ""),
    ({"http_proxy": URL}, "ipv6:[::1]:8001", ""),
    ({"http_proxy": URL}, "unix:/run/triton", ""),
    ({"http_proxy": URL, "no_proxy": "other.com, .Example.com"}, FAR, ""),
    ({"http_proxy": URL, "no_proxy": "triton.example.com"}, f"dns:{FAR}", ""),
    ({"http_proxy": URL, "no_proxy": "10.0.0.0/8"}, "ipv4:10.1.2.3:8001", ""),
    ({"http_proxy": URL, "no_proxy": "10.0.0.0/8"}, "10.1.2.3:8001", ""),
    ({"http_proxy": URL, "no_proxy": "10.0.0.0/8"}, "11.1.2.3:8001", "http_proxy"),
    ({"http_proxy": URL, "no_proxy": "example.com", "no_grpc_proxy": "other.com"}, FAR, "http_proxy"),
]


@pytest.mark.parametrize(("environment", "address", "variable"), ROWS)
def test_which_variable_counts(monkeypatch, environment, address, variable):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert proxies.on_the_way_to(address) == (f"{variable}=http://127.0.0.1:9" if variable else "")
