"""A real HAProxy that runs deploy/haproxy/haproxy.cfg in front of replicas, with certificates made here."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mortal import mortal
from replica import LOOPBACK, ROOT, Replica, lasting_ports
from waiting import until

TOKEN = "a-token-of-the-tests"
CONFIG = ROOT / "deploy" / "haproxy" / "haproxy.cfg"


def make_certificate(folder: Path, name: str = "server") -> Path:
    """A certificate of the folder's own authority (ca.crt); returns the PEM file with key and certificate."""
    folder.mkdir(parents=True, exist_ok=True)
    authority = [folder / "ca.crt", folder / "ca.key"]
    if not authority[0].exists():
        _openssl("-subj", "/CN=an authority of the tests", "-out", authority[0], "-keyout", authority[1])
    certificate, key, both = (folder / f"{name}.{suffix}" for suffix in ("crt", "key", "pem"))
    issued_by = ("-CA", authority[0], "-CAkey", authority[1])
    names = ("-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE")
    _openssl("-subj", f"/CN={name}", "-out", certificate, "-keyout", key, *issued_by, *names)
    both.write_text(certificate.read_text() + key.read_text())
    return both


def _openssl(*options: str | Path) -> None:
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    subprocess.run(["openssl", "req", "-x509", "-days", "2", *key, *options], check=True, capture_output=True)


class Balancer:
    """HAProxy in master-worker mode, as its container runs it."""

    def __init__(self, replicas: Sequence[Replica], folder: Path, **environment: str) -> None:
        self.port, self.metrics_port = lasting_ports(2)
        self.folder = folder
        self.certificate = make_certificate(folder)
        first, second = replicas
        self._environment = {
            "LISTEN": f"{LOOPBACK}:{self.port}",
            "METRICS_LISTEN": f"{LOOPBACK}:{self.metrics_port}",
            "CERTIFICATE": str(self.certificate),
            "CLIENT_CA": str(self.certificate),
            "TRITON_A": first.grpc_url,
            "TRITON_B": second.grpc_url,
            "HEALTH_PORT_A": str(first.http_port),
            "HEALTH_PORT_B": str(second.http_port),
            "AGENT_PORT_A": str(first.agent_port),
            "AGENT_PORT_B": str(second.agent_port),
            **environment,
        }
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"localhost:{self.port}"

    @property
    def ca(self) -> Path:
        return self.folder / "ca.crt"

    def start(self) -> None:
        with (self.folder / "haproxy.log").open("ab") as log:
            self._process = subprocess.Popen(
                mortal(["haproxy", "-W", "-db", "-f", str(CONFIG)]),
                env=os.environ | self._environment,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + 10
        while True:
            try:
                self.metrics()
                return
            except OSError:
                assert self._process.poll() is None, (self.folder / "haproxy.log").read_text()
                assert time.monotonic() < deadline
                time.sleep(0.05)

    def reload(self) -> None:
        """What `docker kill -s HUP` does: new workers with the configuration and certificates as they are now."""
        assert self._process is not None
        self._process.send_signal(signal.SIGHUP)

    def await_log(self, text: str) -> None:
        """Wait until HAProxy has printed `text`."""
        log = self.folder / "haproxy.log"
        until(lambda: text in log.read_text(errors="replace"), self.report)

    def close(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)

    def metrics(self) -> str:
        return str(urllib.request.urlopen(f"http://{LOOPBACK}:{self.metrics_port}/metrics", timeout=10).read(), "utf-8")

    def states(self) -> dict[str, str]:
        """The state of each server: UP, DOWN, DRAIN, ..."""
        found = re.findall(
            r'^haproxy_server_status\{proxy="triton",server="([\w-]+)",state="(\w+)"\} 1', self.metrics(), re.M
        )
        return dict(found)

    def await_change(self, server: str, state: str) -> float:
        """Wait until it is in another one; returns the seconds it took."""
        start = time.monotonic()
        until(lambda: self.states().get(server) != state, self.report)
        return time.monotonic() - start

    def report(self) -> str:
        """What HAProxy thinks of its servers, and the end of its log."""
        checks = re.findall(
            r'^haproxy_server_check_status\{proxy="triton",(server="[\w-]+",state="\w+")\} 1', self.metrics(), re.M
        )
        log = (self.folder / "haproxy.log").read_text(errors="replace").splitlines()[-10:]
        return "\n".join([f"states {self.states()}", f"last checks {checks}", *log])

    def answered(self) -> dict[str, int]:
        """Answers of each server so far."""
        found = re.findall(
            r'^haproxy_server_http_responses_total\{proxy="triton",server="([\w-]+)",code="2xx"\} (\d+)',
            self.metrics(),
            re.M,
        )
        return {server: int(count) for server, count in found}


@dataclass(frozen=True)
class Return:
    """How a server came back into use."""

    after_s: float  # from ready again until the balancer used it again
    ended: tuple[int, ...]  # exit statuses it ended with before


@dataclass(frozen=True)
class Fleet:
    """Two replicas and what balances them."""

    replicas: tuple[Replica, Replica]
    balancer: Balancer

    def bring_back(self, replica: Replica, timeout_s: float = 15.0) -> Return:
        """Wait until the balancer uses `replica`, started again whenever it has ended: `restart: unless-stopped`.

        Fails where it ends three times, a start takes a minute, or a ready server stays unused for `timeout_s`.
        """
        ended: list[int] = []
        ready_at: float | None = None
        deadline = time.monotonic() + 60
        while ready_at is None or self.balancer.states().get(replica.name) != "UP":
            if (status := replica.exit_status()) is not None:
                ended.append(status)
                replica.kill()
                replica.start(wait=False)
                ready_at, deadline = None, time.monotonic() + 60
            elif ready_at is None and replica.is_ready():
                ready_at = time.monotonic()
                deadline = ready_at + timeout_s
            given_up = time.monotonic() > deadline or len(ended) == 3
            assert not given_up, (
                f"{replica.name} is {'ready but not used' if ready_at else 'not ready'}, ended before with {ended}: "
                f"{self.balancer.report()}\n{replica.log_tail(10)}"
            )
            time.sleep(0.05)
        return Return(time.monotonic() - ready_at, tuple(ended))
