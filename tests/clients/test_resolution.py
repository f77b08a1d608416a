"""Names that stand for several servers: those that come are used, those that leave finish, whatever the look-ups do."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import psutil
import pytest
from both_clients import KINDS, X, drive, until
from certificates import issue
from complete_server import complete_server
from name_server import NameServer
from plain_server import PlainServer
from tritonclient.grpc import service_pb2

from clients import TLS, AsyncClient, Client, InferenceError, UnreachableError, addresses
from server import TritonServer
from server.ports import free_ports

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
            # A finished call of grpc.aio lies in a reference cycle, and holds its connection until that is collected.
            until(lambda: gc.collect() >= 0 and not is_connected(leaving.address))

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
    with Client("dns:///nowhere.invalid:8001", timeout_s=10) as client, pytest.raises(UnreachableError) as caught:
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
        with Client("dns:///other.test:8001", **options) as client, pytest.raises(UnreachableError) as caught:
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


@pytest.fixture(scope="module")
def four_tritons(double_repository):
    """On 127.0.0.1 to 127.0.0.4 and one port, as pods are."""
    (port,) = free_ports("127.0.0.1", 1)
    servers = [complete_server(double_repository, address=f"127.0.0.{n}", grpc_port=port) for n in (1, 2, 3, 4)]
    with ThreadPoolExecutor() as starting:
        list(starting.map(TritonServer.start, servers))
    yield servers
    for server in servers:
        server.stop()


WAYS = {
    "Client, dns:///": (Client, "dns:///triton.test:{port}"),
    "AsyncClient, dns:///": (AsyncClient, "dns:///triton.test:{port}"),
    "gRPC's own, dns://SERVER/": (Client, "dns://{names}/triton.test:{port}"),
}


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_two_tritons_become_four_under_load(four_tritons, way, capsys):
    """Behind a real DNS server, and beside what gRPC makes of the same name."""
    kind, endpoint = WAYS[way]
    port = int(four_tritons[0].grpc_url.rpartition(":")[2])
    with NameServer() as names:
        names.addresses = ["127.0.0.1", "127.0.0.2"]
        endpoint = endpoint.format(port=port, names=names.address)
        with Load(kind, endpoint, resolve=names.ask) as load:
            before = counted(four_tritons, 3.0)
            names.addresses = [f"127.0.0.{n}" for n in (1, 2, 3, 4)]
            time.sleep(10.0)
            after = counted(four_tritons, 3.0)
    with capsys.disabled():
        print(f"\n{way}: {before} requests in 3 s before, {after} after; {load.errors} errors")
    assert not load.errors
    assert before[2:] == [0, 0]
    if "gRPC" not in way:
        assert min(after) > 0.8 * max(after)


def counted(servers, seconds):
    before = [executed(server) for server in servers]
    time.sleep(seconds)
    return [executed(server) - then for server, then in zip(servers, before, strict=True)]


def executed(server):
    with Client(server.grpc_url) as client:
        statistics = client.run(client.call("ModelStatistics", service_pb2.ModelStatisticsRequest(name="double")))
        return statistics.model_stats[0].inference_stats.success.count


class Load:
    """Four requests at a time until the block ends, by either client."""

    def __init__(self, kind, endpoint, **options):
        self.errors = 0
        self._over = threading.Event()
        target = self._ask if kind is Client else lambda *given, **o: asyncio.run(self._ask_with_asyncio(*given, **o))
        self._thread = threading.Thread(target=target, args=[endpoint], kwargs=options)

    def __enter__(self):
        self._thread.start()
        time.sleep(1.0)
        return self

    def __exit__(self, *_):
        self._over.set()
        self._thread.join()

    def _ask(self, endpoint, **options):
        with Client(endpoint, **options) as client, ThreadPoolExecutor(4) as pool:
            double = client.model("double")
            list(pool.map(lambda _: self._repeat(double), range(4)))

    def _repeat(self, double):
        while not self._over.is_set():
            try:
                double(x=[[1, 2]])
            except InferenceError:
                self.errors += 1

    async def _ask_with_asyncio(self, endpoint, **options):
        async with AsyncClient(endpoint, **options) as client:
            double = await client.model("double")
            await asyncio.gather(*(self._repeat_with_asyncio(double) for _ in range(4)))

    async def _repeat_with_asyncio(self, double):
        while not self._over.is_set():
            try:
                await double(x=[[1, 2]])
            except InferenceError:
                self.errors += 1
