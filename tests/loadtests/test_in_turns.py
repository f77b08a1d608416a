"""Two reference queues measured in turns: what is kept when one dies or Ctrl-C comes, and going on with both."""

from __future__ import annotations

import dataclasses
import os
import signal
import threading

import pytest
from haste import HASTY

from loadtests import CapacityRequest, Slo
from loadtests.errors import BadRequestError
from loadtests.finding import find, find_in_turns
from loadtests.report import compare
from loadtests.results.result import INTERRUPTED

pytestmark = [pytest.mark.process, pytest.mark.alone]


def test_both_keep_what_was_measured_and_go_on_together_until_one_dies(start_queue, shared_queue, tmp_path):
    one, other = shared_queue("--service-ms", "2"), start_queue("--service-ms", "2")
    request = CapacityRequest(
        one.address, "queue", [Slo.parse("p90=30ms")], budget_s=30, timing=HASTY, folder=tmp_path, side="one"
    )
    sides = (request, dataclasses.replace(request, server=other.address, folder=tmp_path / "other", side="other"))
    seen = []

    def interrupt(side, _):
        seen.append(side)
        if len(seen) == 3:
            os.kill(os.getpid(), signal.SIGINT)

    first = find_in_turns(sides, interrupt)
    assert seen[:3] == [0, 1, 1]
    assert [result.ended_because for result in first] == [INTERRUPTED, INTERRUPTED]
    assert sum(len(result.points) for result in first) >= 3
    with pytest.raises(BadRequestError) as refused:
        find(dataclasses.replace(request, side="", resume=True))
    assert refused.value.field == "side"

    def kill(side, point):
        if point.number == 3 and side == 1:
            threading.Timer(0.1, other.process.kill).start()

    again = find_in_turns(tuple(dataclasses.replace(side, resume=True) for side in sides), kill)
    assert [result.folder for result in again] == [result.folder for result in first]
    assert again[0].settings["turns"] == again[1].settings["turns"] == first[0].settings["turns"]
    assert all(result.partial for result in again)
    assert "other" in again[0].ended_because  # whose search ended
    assert min(len(result.points) for result in again) >= 3
    seeds = [[point.seed for point in result.points] for result in again]
    assert seeds[0][:3] == seeds[1][:3]
    (found,) = compare.compare_folders([tmp_path, tmp_path / "other"])
    assert found.names == ("one", "other")
