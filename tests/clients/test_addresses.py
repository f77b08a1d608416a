"""Addresses of servers: what is taken, and what is refused with the address that was meant."""

import pytest

from clients import AsyncClient, Client
from clients.addresses import parse

TAKEN = [
    "localhost:8001",
    "triton_1.prod.svc.cluster.local:8001",
    "[::1]:8001",
    "[fe80::1%eth0]:8001",
    "dns:///triton:8001",
    "dns:triton:8001",
    "dns://10.0.0.2/triton:8001",
    "ipv4:127.0.0.1:1,10.0.0.7:1",
    "ipv6:[::1]:1,[::2]:2",
    "unix:/run/triton",
    "unix:///run/triton",
    "unix-abstract:triton",
    "xds:///triton",
    ["a:1", "dns:///b:2"],
]


@pytest.mark.parametrize("endpoint", TAKEN, ids=str)
def test_what_grpc_understands_is_taken_as_it_is(endpoint):
    assert parse(endpoint) == ((endpoint,) if isinstance(endpoint, str) else tuple(endpoint))


REFUSED = {
    # given: what the message proposes
    "localhost": "localhost:8001",
    "127.0.0.1": "127.0.0.1:8001",
    "localhost:": "localhost:8001",
    "[::1]": "[::1]:8001",
    "dns:///triton": "dns:///triton:8001",
    "ipv4:127.0.0.1": "ipv4:127.0.0.1:8001",
    "::1:8001": "[::1]:8001",
    "::1": "[::1]:8001",
    "ipv6:::1:8001": "[::1]:8001",
    ":8001": "localhost:8001",
    "localhost:http": "localhost:8001",
    "localhost:99999": "localhost:8001",
    "localhost:0": "localhost:8001",
    "localhost:8001 ": "localhost:8001",
    "localhost:8001\n": "localhost:8001",
    "127.0.0.1:8001,127.0.0.1:8002": "['127.0.0.1:8001', '127.0.0.1:8002']",
    "dns:///a:1,b:2": "['a:1', 'b:2']",
    "http://localhost:8001": "'localhost:8001'",
    "https://triton:443/v2": "'triton:443'",
    "https://triton:443": "TLS(",
    "grpc://triton:8001": "'triton:8001'",
    "dns://triton:8001": "dns:///triton:8001",
    "localhost:8001/v2": "host:port",
    "me@triton:8001": "host:port",
    "tri ton:8001": "host:port",
    "a:1:2": "host:port",
    "ipv4:1.2.3:5": "IPv4",
    "[localhost]:8001": "IPv6",
    "unix:": "unix:/path",
    "": "host:port",
}


@pytest.mark.parametrize("endpoint", REFUSED)
def test_what_grpc_would_take_for_something_else_is_refused_with_what_was_meant(endpoint):
    with pytest.raises(ValueError) as refused:
        parse(endpoint)
    assert REFUSED[endpoint] in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("endpoint", [[], None, 8001, b"a:1", ["a:1", "b"], ["a:1", None]], ids=str)
@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_both_clients_refuse_at_construction(kind, endpoint):
    with pytest.raises(ValueError, match=r"host:port|b:8001"):
        kind(endpoint)
