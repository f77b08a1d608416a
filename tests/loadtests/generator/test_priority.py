"""What sends or receives on time must do so in all of its threads."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.process

SCRIPT = """
import concurrent.futures, os
from loadtests.generator.clock import take_priority
take_priority()
with concurrent.futures.ThreadPoolExecutor(1) as pool:
    own, of_thread = os.sched_getscheduler(0), pool.submit(os.sched_getscheduler, 0).result()
    print(own & ~os.SCHED_RESET_ON_FORK, of_thread, os.SCHED_FIFO)
"""


@pytest.mark.skipif(not hasattr(os, "sched_setscheduler"), reason="no such scheduler on this platform")
def test_threads_go_first_too():
    """gRPC receives in threads of its own; an ordinary one waits behind whatever else the machine does."""
    done = subprocess.run([sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, text=True, check=True)
    own, of_thread, real_time = map(int, done.stdout.split())
    if own != real_time:
        pytest.skip("real-time priority is not permitted here")
    assert of_thread == real_time
