"""`fathom serve` as a process: where it says that it is ready, and how it ends."""

import json
import signal
import subprocess
import sys
from contextlib import ExitStack

import pytest
from small_models import write_double

from clients import Client

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
