"""One server that freezes: every call ends at its deadline, and what can wait for the server waits.

Deadlines here are of a second or less, and a call that missed its own would take the client's 30 s.
"""

import contextlib
import time

import pytest
from freezing import frozen
from python_models import write_total
from small_models import write_double
from tritonclient.grpc import service_pb2

from clients import Client, DeadlineExceededError, UnreachableError, failures
from clients.regions import RegionPool
from clients.sequence import Sequence
from server import TritonServer

pytestmark = pytest.mark.process

LATE_S = 15


@pytest.fixture(scope="module")
def lone(tmp_path_factory):
    """A server of its own with `double` and `total`."""
    repository = tmp_path_factory.mktemp("lone") / "model_repository"
    write_double(repository / "double", "max_batch_size: 8\n")
    write_total(repository)
    with TritonServer(repository, stop_timeout_s=0) as server:
        yield server


def known_regions(server):
    with Client(server.grpc_url, headers=server.admin_headers) as client:
        status = service_pb2.SystemSharedMemoryStatusRequest()
        return len(client.run(client.call("SystemSharedMemoryStatus", status)).regions)


def test_a_map_begun_in_a_freeze_waits_for_its_end(lone):
    """Its connection is a new one, of which no server has ever answered a word."""
    with Client(lone.grpc_url, timeout_s=10) as client:
        double = client.model("double")
        with frozen(lone, for_s=1.2):
            answers = [answer["y"][0, 0] for answer in double.map([[[n, 0]] for n in range(200)])]
    assert answers == [2 * n for n in range(200)]


def test_a_first_question_in_a_freeze_says_what_is_the_matter(lone):
    start = time.monotonic()
    with frozen(lone), Client(lone.grpc_url, timeout_s=1.4) as client:
        with pytest.raises(UnreachableError) as caught:
            client.model("double")
        assert failures.is_silence(caught.value.details)
        assert (caught.value.source, caught.value.transient) == ("connection", True)
        assert time.monotonic() - start < LATE_S


def test_shared_memory_keeps_to_the_deadline_and_leaves_nothing_at_the_server(lone):
    with Client(lone.grpc_url, headers=lone.admin_headers) as client:
        client.pool = RegionPool("system", client.addresses, worth_bytes=1)
        double = client.model("double")
        assert double(x=[[1, 2]])["y"].tolist() == [[2, 4]]
        with frozen(lone):
            for _ in range(3):  # with a region that the server knows, and with new ones
                start = time.monotonic()
                with pytest.raises(DeadlineExceededError, match=r"0\.3 s"):
                    double(x=[[1, 2]], timeout_s=0.3)
                assert time.monotonic() - start < LATE_S
    assert known_regions(lone) == 0


def test_leaving_a_sequence_waits_no_longer_than_its_requests_did(lone):
    with Client(lone.grpc_url) as client, contextlib.ExitStack() as freeze:
        with client.model("total").sequence() as ask:
            assert ask(x=[[3]], timeout_s=0.5)["total"].tolist() == [[3]]
            freeze.enter_context(frozen(lone))
            start = time.monotonic()
        assert time.monotonic() - start < LATE_S


def test_ctrl_c_in_a_sequence_is_not_kept_waiting(lone):
    def interrupted(total):
        with Sequence(total, interrupt_timeout_s=0.3) as ask:
            ask(x=[[3]])
            freeze.enter_context(frozen(lone))
            raise KeyboardInterrupt

    with Client(lone.grpc_url) as client, contextlib.ExitStack() as freeze:
        total = client.model("total")
        start = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            interrupted(total)
        assert time.monotonic() - start < LATE_S
