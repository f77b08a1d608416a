"""The reference queue of the load tests, as a process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from mortal import mortal

SERVER = Path(__file__).parents[1] / "loadtests" / "queue_server.py"


class QueueProcess:
    """A running `queue_server.py`."""

    def __init__(self, *options: str) -> None:
        self.process = subprocess.Popen(
            mortal([sys.executable, str(SERVER), *options]), stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.address = f"127.0.0.1:{self.process.stdout.readline().strip()}"

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


def request(model: str = "queue") -> bytes:
    """An encoded request of the queue's shape."""
    from tritonclient.grpc import service_pb2 as pb

    tensor = pb.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=[1, 4])
    return pb.ModelInferRequest(model_name=model, inputs=[tensor], raw_input_contents=[bytes(16)]).SerializeToString()
