"""The load profile of docker-compose.yml with its defaults: a real Locust master and worker against a real Triton."""

from __future__ import annotations

import re
import time
import urllib.request
from pathlib import Path

import compose
import pytest
from locust_process import LocustProcess
from replica import LOOPBACK

from server import TritonServer
from server.ports import free_ports

pytestmark = pytest.mark.process

CONFIG = """
backend: "python"
max_batch_size: 8
input [ { name: "image" data_type: TYPE_STRING dims: [ 1 ] } ]
output [ { name: "width" data_type: TYPE_INT64 dims: [ 1 ] } ]
"""
MODEL = """
import io

import numpy as np
import triton_python_backend_utils as pb_utils
from PIL import Image


class TritonPythonModel:
    def execute(self, requests):
        return [self.answer(pb_utils.get_input_tensor_by_name(request, "image").as_numpy()) for request in requests]

    def answer(self, images):
        try:
            widths = [[Image.open(io.BytesIO(image)).width] for image in images[:, 0]]
        except Exception as error:
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error), pb_utils.TritonError.INVALID_ARG))
        return pb_utils.InferenceResponse([pb_utils.Tensor("width", np.array(widths, np.int64))])
"""


def test_the_defaults_fire_load_at_the_default_model(tmp_path: Path) -> None:
    services = compose.read({"TRITON_ADMIN_TOKEN": "a-token"})["services"]
    folder = tmp_path / "models" / "image_classifier"
    (folder / "1").mkdir(parents=True)
    (folder / "config.pbtxt").write_text(CONFIG)
    (folder / "1" / "model.py").write_text(MODEL)
    (port,) = free_ports(LOOPBACK, 1)

    with TritonServer(tmp_path / "models", stop_timeout_s=0) as server:

        def start(service: str, *more: str) -> LocustProcess:
            there = {"triton:8001": server.grpc_url, "=load-master": f"={LOOPBACK}"}
            options = list(services[service]["command"])
            for name, address in there.items():
                options = [option.replace(name, address) for option in options]
            assert options != services[service]["command"]
            return LocustProcess(tmp_path / f"{service}.log", *options, *more)

        bind = (f"--master-bind-host={LOOPBACK}", f"--master-bind-port={port}")
        master = start("load-master", *bind, "--headless", "--expect-workers=1", "--users=20")
        worker = start("load-worker", f"--master-port={port}")
        try:
            until_s = time.monotonic() + 60
            while answered(server) < 20:
                assert master.process.poll() is None, master.log.read_text()
                assert time.monotonic() < until_s, master.log.read_text() + worker.log.read_text()
                time.sleep(0.1)
            master.stop()
            assert master.process.returncode in (0, 1)  # so few requests may be too few to prove the SLO
        finally:
            master.stop()
            worker.stop()


def answered(server: TritonServer) -> int:
    """Pictures that Triton took."""
    metrics = urllib.request.urlopen(server.metrics_url, timeout=10).read().decode()
    found = re.search(r'^nv_inference_request_success\{model="image_classifier",version="1"\} (\d+)', metrics, re.M)
    return int(found[1])
