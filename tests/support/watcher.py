"""A real Prometheus that runs deploy/prometheus with targets of the tests."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml
from mortal import mortal
from replica import LOOPBACK, ROOT

from server.ports import free_ports

SOURCE = ROOT / "deploy" / "prometheus"
ALERTS = [
    rule for group in yaml.safe_load((SOURCE / "rules" / "alerts.yml").read_text())["groups"] for rule in group["rules"]
]


class Prometheus:
    """The committed configuration, copied; only the intervals are shortened, to one second."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (self.port,) = free_ports(LOOPBACK, 1)
        self._process: subprocess.Popen[bytes] | None = None
        shutil.copytree(SOURCE, folder)

    def hurry(self) -> None:
        """Scrape and evaluate every second."""
        for path in (self.folder / "prometheus.yml", self.folder / "rules" / "objectives.yml"):
            text = path.read_text()
            hurried = re.sub(r"interval: (5s|1m)$", "interval: 1s", text, flags=re.M)
            assert hurried != text
            path.write_text(hurried)

    def watch(self, job: str, *targets: str) -> None:
        """List `host:port` targets in targets/JOB.yml."""
        (self.folder / "targets" / f"{job}.yml").write_text(yaml.safe_dump([{"targets": list(targets)}]))

    def start(self) -> None:
        command = ["prometheus", f"--config.file={self.folder / 'prometheus.yml'}"]
        command += [f"--storage.tsdb.path={self.folder / 'data'}", f"--web.listen-address={LOOPBACK}:{self.port}"]
        with (self.folder / "log").open("wb") as log:
            self._process = subprocess.Popen(mortal(command), stdout=log, stderr=log)
        deadline = time.monotonic() + 20
        while True:
            try:
                self._get("/-/ready")
                return
            except OSError:
                assert self._process.poll() is None, (self.folder / "log").read_text()
                assert time.monotonic() < deadline
                time.sleep(0.1)

    def close(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The samples of an instant query; raises HTTPError for one that Prometheus refuses."""
        answer = json.loads(self._get("/api/v1/query?" + urllib.parse.urlencode({"query": expression})))
        assert answer["status"] == "success", answer
        assert not answer.get("warnings"), answer
        samples: list[dict[str, Any]] = answer["data"]["result"]
        return samples

    def eventually(self, expression: str, timeout_s: float = 20.0) -> list[dict[str, Any]]:
        """The samples that are numbers, as soon as there are any; none after `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        while True:
            samples = [sample for sample in self.query(expression) if sample["value"][1] != "NaN"]
            if samples or time.monotonic() > deadline:
                return samples
            time.sleep(0.2)

    def api(self, path: str) -> Any:
        return json.loads(self._get(f"/api/v1/{path}"))["data"]

    def _get(self, path: str) -> bytes:
        body: bytes = urllib.request.urlopen(f"http://{LOOPBACK}:{self.port}{path}", timeout=10).read()
        return body


class Recording:
    """Serves a recorded text as /metrics, as a newer Triton with a GPU would; {scrapes} in it counts up."""

    def __init__(self, path: Path) -> None:
        text, scrapes = path.read_text(), itertools.count(1)

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.end_headers()
                self.wfile.write(text.replace("{scrapes}", str(next(scrapes))).encode())

            def log_message(self, *arguments: Any) -> None:
                pass

        self._server = ThreadingHTTPServer((LOOPBACK, 0), Handler)
        self.address = f"{LOOPBACK}:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
