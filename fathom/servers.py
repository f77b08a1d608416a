"""The server a command talks to: the one named, the one that runs here, or one started for the occasion."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from clients import Client, Unreachable, addresses
from fathom.errors import UsageError
from fathom.options import DEFAULT_SERVER, default_config_name
from fathom.output import err
from loadtests.errors import TargetError
from server import TritonServer, environment

if TYPE_CHECKING:
    from export.config.served import Served

LOOK_TIMEOUT_S = 1.0


@contextlib.contextmanager
def connect(server: str | None, repository: Path) -> Iterator[str]:
    """`host:port` of `server`, else of what listens on the default port, else of an embedded Triton for the block."""
    with connect_with_metrics(server, repository) as (url, _):
        yield url


@contextlib.contextmanager
def connect_with_metrics(
    server: str | None, repository: Path, tritonserver: Path | None = None
) -> Iterator[tuple[str, str | None]]:
    """The same and, where it is known, the address of the metrics."""
    if server is not None:
        try:
            addresses.parse(server)
        except ValueError as error:
            raise UsageError(f"--server {error}") from None
        try:
            yield server, None
        except (Unreachable, TargetError) as error:
            if not server.endswith(":8000"):
                raise
            raise UsageError(f"{error}; Triton's port 8000 is for HTTP, and gRPC is asked at 8001") from error
        return
    with Client(DEFAULT_SERVER, timeout_s=LOOK_TIMEOUT_S) as client:
        running = client.is_ready()
    if running:
        yield DEFAULT_SERVER, None
        return
    with err.status(f"no server at {DEFAULT_SERVER}: starting Triton with {repository}"):
        config_name = default_config_name(repository, tritonserver)
        served_models(repository, config_name, tritonserver)
        embedded = TritonServer(
            repository,
            config_name=config_name,
            tritonserver=tritonserver,
            stop_timeout_s=0,
        ).start()
    try:
        yield embedded.grpc_url, embedded.metrics_url
    finally:
        embedded.stop()


def served_models(repository: Path, config_name: str | None, tritonserver: Path | None) -> list[Served]:
    """What serves each model.

    Raises UsageError for a plan that no configuration loads, and, where this Triton runs engines, for one that
    `config_name` leaves out. Elsewhere a plan waits for another host, and ONNX is served.
    """
    from export.config.served import served
    from export.lint.served import check

    models = served(repository, config_name)
    engines = config_name != "cpu" and environment.runs_engines(tritonserver)
    wrong = list(check(repository, [model.model for model in models], config_name or "" if engines else None))
    if wrong:
        raise UsageError("; ".join(str(finding) for finding in wrong))
    return models
