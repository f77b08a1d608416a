"""The decision to send a request again, without a server: the requests of a call, answered by hand."""

import time

import grpc
import pytest

from clients import (
    Client,
    InvalidInputError,
    ModelNotReadyError,
    OverloadedError,
    QueueTimeoutError,
    Retries,
    UnreachableError,
)
from clients.health import probe
from clients.retries import Budget, pause_s


class Rpc(grpc.RpcError):
    def __init__(self, code, details):
        self._code, self._details = code, details

    def code(self):
        return self._code

    def details(self):
        return self._details


UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
BROKEN = Rpc(UNAVAILABLE, "Socket closed")
REFUSED = Rpc(UNAVAILABLE, "failed to connect to all addresses; last error: Connection refused")
FULL = Rpc(UNAVAILABLE, "Exceeds maximum queue size")
STALE = Rpc(UNAVAILABLE, "Request timeout expired")
UNLOADED = Rpc(grpc.StatusCode.NOT_FOUND, "Request for unknown model: 'm' has no available versions")
ANSWERED_S = 1e-9  # long ago
WRONG = Rpc(grpc.StatusCode.INVALID_ARGUMENT, "unexpected shape")


def drive(client, ends, **options):
    """Answer the requests of one call with `ends` in turn: the result, the addresses asked and the pauses between."""
    ends, asked, pauses = iter(ends), [], []

    async def send(server, *request):
        asked.append(server.address)
        return next(ends)

    async def pause(seconds):
        pauses.append(seconds)

    client.send, client.pause = send, pause
    return client.run(client.call("ModelInfer", b"", model="m", **options)), asked, pauses


def known(addresses=("a:1",), **options):
    """A client whose servers have answered before."""
    client = Client([f"127.0.0.1:{n + 1}" for n, _ in enumerate(addresses)], **options)
    client._opened = lambda rotation: None
    for server in client.rotation().servers:
        server.answered_s = ANSWERED_S
    return client


def test_a_broken_connection_is_tried_again():
    answer, asked, pauses = drive(known(), [BROKEN, REFUSED, REFUSED, "answer"])
    assert (answer, len(asked), len(pauses)) == ("answer", 4, 3)


def test_what_may_have_run_is_sent_again_twice_at_most_and_what_has_not_until_the_deadline():
    client = known()
    with pytest.raises(UnreachableError):
        drive(client, [BROKEN, REFUSED, BROKEN, REFUSED, BROKEN, "answer"])
    assert (client.budget.retried, client.budget.spent) == (4, 2)
    assert drive(known(), [REFUSED] * 20 + ["answer"])[0] == "answer"


def test_another_server_is_tried_first():
    answer, asked, _ = drive(known("ab"), [BROKEN, "answer"])
    assert answer == "answer"
    assert len(set(asked)) == 2


def test_a_server_that_failed_is_passed_over_until_it_is_healthy():
    client = known("abc")
    _, asked, _ = drive(client, [BROKEN, "answer"])
    others = [drive(client, ["answer"])[1][0] for _ in range(6)]
    assert asked[0] not in others


STANDS = {
    "what the server refuses for good": (WRONG, InvalidInputError, {}),
    "a full queue, unless asked": (FULL, OverloadedError, {}),
    "a model that is not loaded, with one server": (UNLOADED, ModelNotReadyError, {}),
    "anything that must not run twice": (BROKEN, UnreachableError, {"retry": False}),
}


@pytest.mark.parametrize("case", STANDS)
def test_not_sent_again(case):
    end, kind, options = STANDS[case]
    client = known()
    with pytest.raises(kind):
        drive(client, [end], **options)
    assert client.budget.retried == 0


def test_what_grew_stale_in_a_queue_is_not_sent_again_even_when_asked():
    client = known(retries=Retries(overloaded=True))
    with pytest.raises(QueueTimeoutError):
        drive(client, [STALE])
    assert client.budget.retried == 0


def test_a_full_queue_is_tried_again_when_asked():
    client = known(retries=Retries(overloaded=True))
    assert drive(client, [FULL, FULL, "answer"])[0] == "answer"
    assert client.budget.spent == 2


def test_a_model_that_one_server_has_unloaded_is_asked_of_another():
    """As a server does that drains after SIGTERM."""
    assert drive(known("ab"), [UNLOADED, "answer"])[0] == "answer"
    with pytest.raises(ModelNotReadyError):
        drive(known("ab"), [UNLOADED, UNLOADED])


def test_a_server_that_never_answered_is_a_wrong_address_rather_than_a_restart():
    client = known("ab")
    for server in client.rotation().servers:
        server.answered_s = 0.0
    with pytest.raises(UnreachableError):
        drive(client, [REFUSED, REFUSED])


SILENT = Rpc(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")


def probed(client, server, end):
    """One health check of `server` that ends with `end`: whether the calls in flight there are given up."""
    asked, given_up = [], []

    async def send(server, *request):
        asked.append(server)
        return end

    async def give_up(server):
        given_up.append(server)

    client.send, client.cancel_in_flight = send, give_up
    client.run(probe(client, client.rotation(), server))
    assert asked == [server]
    assert given_up in ([], [server])
    return bool(given_up)


def test_a_server_that_answers_nothing_is_given_up_after_two_health_checks():
    client = known("ab")
    server = client.rotation().servers[0]
    assert [probed(client, server, SILENT) for _ in range(4)] == [False, True, False, False]
    assert not server.up


def test_a_server_that_answers_requests_is_busy_and_not_hung():
    client = known("ab")
    server = client.rotation().servers[0]
    for _ in range(3):
        server.answered_s = time.monotonic()
        assert not probed(client, server, SILENT)
    assert server.up


def test_a_server_that_tells_nobody_of_its_health_is_used():
    client = known("ab")
    server = client.rotation().servers[0]
    client.rotation().mark(server, up=False)
    assert not probed(client, server, Rpc(UNAVAILABLE, "This protocol is restricted, expecting header 'x'"))
    assert server.up
    probed(client, server, REFUSED)
    assert not server.up


def test_nothing_is_given_up_where_no_other_server_is_up():
    client = known("ab")
    server, other = client.rotation().servers
    client.rotation().mark(other, up=False)
    assert not any(probed(client, server, SILENT) for _ in range(3))


def test_requests_that_were_kept_for_want_of_another_server_move_once_there_is_one():
    client = known("ab")
    server, other = client.rotation().servers
    client.rotation().mark(other, up=False)
    assert not any(probed(client, server, SILENT) for _ in range(3))
    client.rotation().mark(other, up=True)
    server.link.calls.add("in flight")
    assert probed(client, server, SILENT)


def test_retries_end_with_the_deadline():
    with pytest.raises(UnreachableError):
        drive(known(), [BROKEN], timeout_s=1e-9)


def test_the_budget_is_a_tenth_of_the_requests_and_a_reserve():
    budget = Budget(Retries(reserve=5))
    assert [budget.spend() for _ in range(7)] == [True] * 5 + [False] * 2
    for _ in range(20):
        budget.earn()
    assert [budget.spend() for _ in range(3)] == [True, True, False]
    for _ in range(10_000):
        budget.earn()
    assert [budget.spend() for _ in range(6)] == [True] * 5 + [False], "what is saved up is bounded by the reserve"
    assert budget.spent == 12


def test_a_server_that_breaks_every_connection_gets_a_tenth_more_load_at_most():
    client = known(retries=Retries(reserve=10, first_pause_s=0.0))
    attempts = 0
    for _ in range(1000):
        ends = [BROKEN] * 50
        with pytest.raises(UnreachableError) as caught:
            drive(client, ends)
        attempts += 1
    assert any("retry budget is spent" in note for note in caught.value.__notes__)
    assert client.budget.retried <= 10 + 0.1 * attempts + 1


def test_what_never_left_costs_no_budget():
    client = known(retries=Retries(reserve=0))
    assert drive(client, [REFUSED, REFUSED, "answer"])[0] == "answer"
    with pytest.raises(UnreachableError) as caught:
        drive(client, [BROKEN])
    assert "retry budget is spent" in caught.value.__notes__[0]


def test_pauses_grow_are_bounded_and_random():
    retries = Retries(first_pause_s=0.1, longest_pause_s=1.0)
    for failures, bound in ((1, 0.1), (2, 0.2), (4, 0.8), (5, 1.0), (1000, 1.0)):
        pauses = [pause_s(retries, failures) for _ in range(300)]
        assert 0.8 * bound < max(pauses) <= bound
        assert min(pauses) < 0.2 * bound
