"""What goes wrong with TLS is named, with the remedy: as ValueError where a file is wrong, else as UnreachableError."""

from __future__ import annotations

import datetime
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from certificates import issue, issue_all
from cryptography.hazmat.primitives import serialization

from clients import TLS, Client, ServerError, UnreachableError

DAY = datetime.timedelta(days=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Certificates as in `issue_all`, and the wrong ones of this table."""
    folder = issue_all(tmp_path_factory.mktemp("tls"))
    authority = issue(folder, "second-authority")
    issue(folder, "expired", authority, valid=(-2 * DAY, -DAY))
    issue(folder, "early", authority, valid=(DAY, 2 * DAY))
    issue(folder, "elsewhere", authority, addresses=())
    certificate, key = issue(folder, "self-signed")
    encrypted = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"x")
    )
    (folder / "encrypted.key").write_bytes(encrypted)
    (folder / "binary.pem").write_bytes(certificate.public_bytes(serialization.Encoding.DER))
    (folder / "empty.pem").write_bytes(b"")
    (folder / "damaged.pem").write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    return folder


FILES = {
    # fault: (arguments of TLS, what the message names)
    "a key in place of the authority": ({"ca": "caller.key"}, ("ca=", "private key", "certificate")),
    "an authority in binary form": ({"ca": "binary.pem"}, ("ca=", "PEM")),
    "an empty file": ({"ca": "empty.pem"}, ("ca=", "PEM")),
    "a damaged certificate": ({"ca": "damaged.pem"}, ("ca=", "damaged")),
    "no such file": ({"ca": "none.pem"}, ("ca=", "none.pem", "No such file")),
    "a folder": ({"ca": "."}, ("ca=", "directory")),
    "certificate and key swapped": ({"cert": "caller.key", "key": "caller.pem"}, ("cert=", "private key")),
    "the key of another certificate": ({"cert": "caller.pem", "key": "triton.key"}, ("key=", "triton.key", "belong")),
    "a key with a passphrase": ({"cert": "caller.pem", "key": "encrypted.key"}, ("key=", "encrypted", "openssl pkey")),
    "a certificate in place of the key": ({"cert": "caller.pem", "key": "caller.pem"}, ("key=", "certificate")),
}


@pytest.mark.parametrize("fault", FILES)
def test_a_file_that_grpc_cannot_use_is_refused_at_construction(folder, fault):
    files, named = FILES[fault]
    with pytest.raises(ValueError, match="=") as refused:
        Client("127.0.0.1:1", tls=TLS(**{name: folder / file for name, file in files.items()}))
    assert all(words in str(refused.value) for words in named)


def test_files_that_grpc_can_use_are_taken(folder):
    both = folder / "both.pem"
    both.write_bytes(
        "# größer\n".encode() + (folder / "caller.pem").read_bytes() + (folder / "caller.key").read_bytes()
    )
    TLS(ca=folder / "authority.pem", cert=both, key=both).credentials()


@pytest.fixture(scope="module")
def ports(folder):
    """Ports of gRPC servers by the certificate they show; `mutual` wants the caller's, `plain` has no TLS."""
    servers, ports = [], {}
    authority = (folder / "authority.pem").read_bytes()
    for name in ("triton", "expired", "early", "elsewhere", "self-signed", "mutual", "plain"):
        server = grpc.server(ThreadPoolExecutor(1))
        mutual, shown = name == "mutual", "triton" if name == "mutual" else name
        if name == "plain":
            ports[name] = server.add_insecure_port("127.0.0.1:0")
        else:
            pair = ((folder / f"{shown}.key").read_bytes(), (folder / f"{shown}.pem").read_bytes())
            trusted = authority if mutual else None
            ports[name] = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair], trusted, mutual))
        server.start()
        servers.append(server)
    yield ports
    for server in servers:
        server.stop(None)


CA, SECOND = {"ca": "authority.pem"}, {"ca": "second-authority.pem"}
STRANGER = {**CA, "cert": "stranger.pem", "key": "stranger.key"}
CONNECTIONS = {
    # fault: (server, arguments of TLS or None, source, what the message names)
    "another host name": ("elsewhere", SECOND, "tls", ("'127.0.0.1'", "server_name=")),
    "a server_name that is not in it": ("triton", {**CA, "server_name": "x"}, "tls", ("'x'", "server_name=")),
    "an expired certificate": ("expired", SECOND, "tls", ("expired",)),
    "a certificate of tomorrow": ("early", SECOND, "tls", ("clocks",)),
    "a self-signed one": ("self-signed", CA, "tls", ("/authority.pem'", "TLS(ca=FILE)")),
    "a private authority, and none given": ("triton", {}, "tls", ("TLS(ca=FILE)",)),
    "another authority": ("triton", SECOND, "tls", ("/second-authority.pem'", "TLS(ca=FILE)")),
    "mutual TLS without a certificate": ("mutual", CA, "tls", ("cert=FILE, key=FILE",)),
    "mutual TLS with a stranger's": ("mutual", STRANGER, "tls", ("stranger.pem", "trust")),
    "plain text to a TLS port": ("triton", None, "connection", ("tls=TLS(",)),
    "TLS to a plain-text port": ("plain", CA, "tls", ("tls=", "--grpc-use-ssl")),
}


@pytest.mark.parametrize("fault", CONNECTIONS)
def test_a_connection_that_tls_prevents_names_cause_and_remedy(folder, ports, fault):
    server, given, source, named = CONNECTIONS[fault]
    files = {} if given is None else {k: v if k == "server_name" else folder / v for k, v in given.items()}
    tls = None if given is None else TLS(**files)
    with (
        Client(f"127.0.0.1:{ports[server]}", tls=tls, timeout_s=5) as client,
        pytest.raises(UnreachableError) as caught,
    ):
        client.model("m")
    error = caught.value
    assert (error.source, error.may_have_run, client.budget.retried) == (source, False, 0)
    assert all(words in str(error) for words in named)


def test_another_server_is_asked_where_one_has_a_bad_certificate(folder, ports):
    """The second answers, if only that it has no such method."""
    addresses = [f"127.0.0.1:{ports[name]}" for name in ("self-signed", "triton")]
    with Client(addresses, tls=TLS(ca=folder / "authority.pem"), timeout_s=5) as client:
        for _ in range(4):
            with pytest.raises(ServerError) as caught:
                client.model("m")
            assert caught.value.status == "UNIMPLEMENTED"
