"""`fathom serve` as a process: where it says that it is ready, and how it ends."""

import json
import signal
import subprocess
import sys

import pytest

from clients import Client

PORTS = ("--grpc-port", "0", "--http-port", "0", "--metrics-port", "0")


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_a_program_reads_the_address_and_ctrl_c_ends_it_in_order(small_repository, stop):
    process = subprocess.Popen(
        [sys.executable, "-m", "fathom.cli", "serve", "--json", "--model-repository", str(small_repository), *PORTS],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        document = json.loads("".join(iter(process.stdout.readline, "}\n")) + "}")  # while it goes on serving
        with Client(document["grpc"]) as client:
            assert client.is_ready()
    finally:
        process.send_signal(stop)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, "")
    assert "Traceback" not in err
