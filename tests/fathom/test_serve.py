"""`fathom serve` as a process: where it says that it is ready, and how it ends."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack

import psutil
import pytest
from small_models import write_double

from clients import Client

pytestmark = pytest.mark.process

PORTS = ("--grpc-port", "0", "--http-port", "0", "--metrics-port", "0")
STOPS = (signal.SIGINT, signal.SIGTERM)


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """What a server of its own said, and with which status it ended, for each of STOPS; all at the same time."""
    repository = tmp_path_factory.mktemp("serve") / "model_repository"
    write_double(repository / "double")
    command = [sys.executable, "-m", "fathom.cli", "serve", "--json", "--model-repository", str(repository), *PORTS]
    with ExitStack() as stack:
        processes = {}
        for stop in STOPS:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            processes[stop] = stack.enter_context(process)
            stack.callback(process.kill)
        for process in processes.values():
            document = json.loads("".join(iter(process.stdout.readline, "}\n")) + "}")  # while it goes on serving
            with Client(document["grpc"]) as client:
                assert client.is_ready()
        for stop, process in processes.items():
            process.send_signal(stop)
        said = {stop: process.communicate(timeout=60) for stop, process in processes.items()}
        return {stop: (process.returncode, *said[stop]) for stop, process in processes.items()}


@pytest.mark.parametrize("stop", STOPS)
def test_a_program_reads_the_address_and_ctrl_c_ends_it_in_order(ended, stop):
    status, out, err = ended[stop]
    assert (status, out) == (0, "")
    assert "Traceback" not in err


QUICK = """
import functools
import sys
from fathom import cli
from fathom.commands import serve

serve.watch = functools.partial(serve.watch, silent_s=0.5, answer_s=0.5)
sys.exit(cli.main())
"""


def test_a_triton_that_hangs_is_told_and_not_waited_for(tmp_path):
    write_double(tmp_path / "double", "max_batch_size: 8")
    command = [sys.executable, "-c", QUICK, "serve", "--json", "--model-repository", str(tmp_path), *PORTS]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        late = threading.Timer(60, process.kill)
        late.start()
        assert process.stdout is not None
        assert process.stderr is not None
        document = json.loads("".join(iter(process.stdout.readline, "}\n")) + "}")
        os.kill(document["pid"], signal.SIGSTOP)
        assert any("0.5 s" in line for line in process.stderr)
        os.kill(document["pid"], signal.SIGCONT)
        assert "again" in process.stderr.readline()
        os.kill(document["pid"], signal.SIGSTOP)
        while psutil.Process(document["pid"]).status() != psutil.STATUS_STOPPED:
            time.sleep(0.001)
        start = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.wait() == 0
        late.cancel()
    assert time.monotonic() - start < 15  # not the 30 s that requests in flight are given
    assert not psutil.pid_exists(document["pid"])
