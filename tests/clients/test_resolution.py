"""Names that stand for several servers: those that come are used, those that leave finish, whatever the look-ups do."""

from __future__ import annotations

import contextlib
import threading

import grpc
import psutil
import pytest
from both_clients import KINDS, X, drive, until
from certificates import issue
from plain_server import PlainServer

from clients import TLS, Client, Unreachable, addresses

pytestmark = pytest.mark.filterwarnings("ignore::clients.InsecureConnectionWarning")
NAME = "dns:///triton.test:8001"
QUICK = {"probe_every_s": 0.02, "resolve_every_s": 0.02}


@pytest.fixture(scope="module")
def four():
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(PlainServer()) for _ in range(4)]


class Names:
    """A resolver whose answer changes: addresses, or an error; look-ups are counted."""

    def __init__(self, servers):
        self.answer, self.asked = [server.address for server in servers], []

    def __call__(self, name):
        self.asked.append(name)
        if isinstance(self.answer, Exception):
            raise self.answer
        return list(self.answer)


def answered(servers, ask, requests=12):
    before = [server.answered for server in servers]
    for _ in range(requests):
        ask()
    return [server.answered - then for server, then in zip(servers, before, strict=True)]


@KINDS
def test_two_servers_become_four_and_one(four, kind):
    names = Names(four[:2])

    def steps(rotation, ask, mark):
        assert answered(four, ask) == [6, 6, 0, 0]
        names.answer = [server.address for server in four]
        until(lambda: len(rotation.servers) == 4)
        assert answered(four, ask) == [3, 3, 3, 3]
        names.answer = [four[3].address]
        until(lambda: len(rotation.servers) == 1)
        assert answered(four, ask) == [0, 0, 0, 12]
        assert set(names.asked) == {"triton.test:8001"}

    drive(kind, NAME, steps, resolve=names, **QUICK)


@KINDS
@pytest.mark.parametrize("failure", [OSError("no such host"), RuntimeError("broken"), [], ["no address"]], ids=str)
def test_a_look_up_that_fails_leaves_the_servers_that_are_known(four, kind, failure):
    names = Names(four[:2])

    def steps(rotation, ask, mark):
        asked = len(names.asked)
        names.answer = failure
        until(lambda: len(names.asked) > asked + 3)
        assert answered(four, ask) == [6, 6, 0, 0]
        names.answer = [server.address for server in four[1:3]]
        until(lambda: {server.address for server in rotation.servers} == set(names.answer))

    drive(kind, NAME, steps, resolve=names, **QUICK)


@KINDS
def test_a_look_up_that_hangs_delays_no_other_server(four, kind):
    over = threading.Event()

    def steps(rotation, ask, mark):
        assert answered(four, ask) == [12, 0, 0, 0]
        over.set()

    endpoint = [four[0].address, NAME]
    drive(kind, endpoint, steps, resolve=lambda name: over.wait(20) and [], **QUICK)


@KINDS
def test_a_server_that_leaves_finishes_what_it_has_and_its_connection_ends(kind):
    with PlainServer() as leaving, PlainServer() as staying:
        names = Names([leaving])
        answers = []

        def steps(rotation, ask, mark):
            leaving.hold.clear()
            asking = threading.Thread(target=lambda: answers.append(ask()))
            asking.start()
            until(lambda: leaving.answered == 1)
            names.answer = [staying.address]
            until(lambda: [server.address for server in rotation.servers] == [staying.address])
            ask()
            leaving.hold.set()
            asking.join(20)
            until(lambda: not is_connected(leaving.address))

        drive(kind, NAME, steps, resolve=names, **QUICK)
    assert answers[0]["x"].tolist() == X.tolist()
    assert (leaving.answered, staying.answered) == (1, 1)


def is_connected(address):
    port = int(address.rpartition(":")[2])
    found = psutil.Process().net_connections("tcp")
    return any(c.raddr and c.raddr.port == port and c.status == psutil.CONN_ESTABLISHED for c in found)


@KINDS
def test_a_server_that_is_down_has_its_name_looked_up_at_once(four, kind):
    """A replaced pod has another address, which nobody waits for until the next regular look-up."""
    names = Names(four[:2])

    def steps(rotation, ask, mark):
        names.answer = [server.address for server in four[1:3]]
        mark(rotation.servers[0], up=False)
        until(lambda: {server.address for server in rotation.servers} == set(names.answer))

    drive(kind, NAME, steps, resolve=names, probe_every_s=1e6, resolve_every_s=1e6)


def test_a_name_that_nobody_knows_is_grpcs_to_explain():
    with Client("dns:///nowhere.invalid:8001", timeout_s=10) as client, pytest.raises(Unreachable) as caught:
        client.models()
    assert caught.value.source == "resolver"


@KINDS
def test_a_certificate_is_checked_against_the_name(tmp_path, kind):
    issue(tmp_path, "triton.test", addresses=())
    key, certificate = ((tmp_path / f"triton.test.{suffix}").read_bytes() for suffix in ("key", "pem"))
    credentials = grpc.ssl_server_credentials([(key, certificate)])

    def steps(rotation, ask, mark):
        assert ask()["x"].tolist() == X.tolist()

    with PlainServer(credentials=credentials) as server:
        options = {"tls": TLS(ca=tmp_path / "triton.test.pem"), "resolve": Names([server])}
        drive(kind, NAME, steps, **options)
        with Client("dns:///other.test:8001", **options) as client, pytest.raises(Unreachable) as caught:
            client.models()
        assert caught.value.source == "tls"


NAMES = {
    "dns:///triton:8001": "triton:8001",
    "dns:triton:8001": "triton:8001",
    "dns://1.1.1.1/triton:8001": "",
    "ipv4:1.2.3.4:8001": "",
    "triton:8001": "",
    "unix:/run/triton": "",
}


@pytest.mark.parametrize("address", NAMES)
def test_which_names_are_looked_up_here(address):
    assert addresses.name_in(address) == NAMES[address]


def test_the_systems_resolver_is_asked(four):
    port = four[0].address.rpartition(":")[2]
    assert f"127.0.0.1:{port}" in addresses.look_up(f"localhost:{port}")
    assert addresses.look_up("[::1]:8001") == ["[::1]:8001"]
    with Client(f"dns:///localhost:{port}") as client:
        assert client.model("m")(x=X)["x"].tolist() == X.tolist()


def test_a_proxy_looks_names_up_itself(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://proxy.test:3128")
    with Client(NAME) as client:
        assert client.names == [""]
