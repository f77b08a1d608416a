"""TLS, mutual TLS, tokens and restricted protocols against a Triton that insists on them."""

import asyncio
import warnings

import numpy as np
import pytest
from certificates import issue_all, mutual_flags
from complete_server import complete_server

from clients import TLS, AsyncClient, Client, InsecureConnectionWarning, ServerError

pytestmark = pytest.mark.process

KEY = "s3cret"
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
CALLER = {"triton-grpc-protocol-caller": KEY}


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    return issue_all(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def secure_server(double_repository, certificates):
    """A Triton that wants the caller's certificate, and a key for the names of its models."""
    extra = (
        *mutual_flags(certificates),
        f"--grpc-restricted-protocol=model-repository,statistics:admin={KEY}",
        f"--grpc-restricted-protocol=inference:caller={KEY}",
    )
    with complete_server(double_repository, extra=extra) as server:
        yield server


def mutual(certificates, **changes):
    return TLS(
        ca=certificates / "authority.pem", cert=certificates / "caller.pem", key=certificates / "caller.key", **changes
    )


def test_mutual_tls(secure_server, certificates):
    with Client(secure_server.grpc_url, tls=mutual(certificates)) as client:
        assert client.model("double")(x=[[1, 2]], headers=CALLER)["y"].tolist() == [[2, 4]]


def test_mutual_tls_with_asyncio(secure_server, certificates):
    async def ask():
        async with AsyncClient(secure_server.grpc_url, tls=mutual(certificates)) as client:
            return (await (await client.model("double"))(x=np.ones((1, 2), np.float32), headers=CALLER))["y"].tolist()

    assert asyncio.run(ask()) == [[2, 2]]


def test_half_a_certificate_is_refused_with_the_remedy():
    with pytest.raises(ValueError, match=r"TLS\(cert=FILE, key=FILE\)"):
        TLS(cert="caller.pem")


def test_a_restricted_protocol_wants_its_header(secure_server, certificates):
    with Client(secure_server.grpc_url, tls=mutual(certificates)) as client:
        with pytest.raises(ServerError, match="triton-grpc-protocol-admin"):
            client.models()
        assert client.budget.retried == 0
    headers = {"triton-grpc-protocol-admin": KEY}
    with Client(secure_server.grpc_url, tls=mutual(certificates), headers=headers) as client:
        assert client.models() == ["double"]


def test_headers_of_one_request_are_for_that_request(secure_server, certificates):
    """The way of a token, and of W3C traceparent."""
    with Client(secure_server.grpc_url, tls=mutual(certificates), headers={"traceparent": TRACE}) as client:
        double = client.model("double")
        assert double.one(x=[1, 2], headers=CALLER)["y"].tolist() == [2, 4]
        with pytest.raises(ServerError, match="triton-grpc-protocol-caller"):
            double(x=[[1, 2]])


def test_headers_may_be_made_for_each_request(secure_server, certificates):
    made = []

    def headers():
        made.append("a token that is renewed")
        return {"Triton-GRPC-Protocol-admin": KEY}

    with Client(secure_server.grpc_url, tls=mutual(certificates), headers=headers) as client:
        assert client.models() == client.models() == ["double"]
    assert len(made) == 2


@pytest.mark.parametrize("headers", [{"a b": "c"}, {"token": "two\nlines"}, {"": "x"}, {"token": "ü"}])
def test_a_header_that_cannot_be_sent_is_refused_by_name(headers):
    with pytest.raises(ValueError, match=repr(next(iter(headers)))):
        Client("localhost:8001", headers=headers)


FAR = ["triton:8001", "dns:///triton:8001", "10.0.0.7:8001", "[2001:db8::7]:8001", "ipv4:127.0.0.1:1,10.0.0.7:1"]
NEAR = ["localhost:8001", "127.0.0.1:8001", "127.3.4.5:8001", "[::1]:8001", "ipv4:127.0.0.1:8001", "unix:/run/triton"]


@pytest.mark.parametrize("address", FAR)
def test_plain_text_to_another_machine_is_warned_of_with_the_remedy(address):
    with pytest.warns(InsecureConnectionWarning, match=r"TLS\(.*--grpc-use-ssl") as warned:
        Client(address).close()
    assert warned[0].filename == __file__


def test_tls_and_loopback_are_not_warned_of(certificates):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for address in NEAR:
            Client(address).close()
        for address in FAR:
            Client(address, tls=mutual(certificates)).close()
