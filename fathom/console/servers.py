"""The server that a command uses: the named one, the one that runs here, or one that the command starts."""

from __future__ import annotations

import argparse
import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from clients import Client, InsecureConnectionWarning, UnreachableError, addresses
from export.command import naming, quote
from fathom.console.arguments import UsageError
from fathom.console.options import DEFAULT_SERVER, default_config_name
from fathom.console.output import err
from loadtests.errors import TargetError
from loadtests.target import access_options
from loadtests.target.access import Access
from server import TritonServer, environment

if TYPE_CHECKING:
    from export.config.served import Served

LOOK_TIMEOUT_S = 1.0


def same_server(arguments: argparse.Namespace) -> str:
    """The options for a command line that asks the same server about the same models."""
    words = [*(("--server", arguments.server) if arguments.server else ()), *naming(arguments.model_repository)]
    return "".join(f" {quote(word)}" for word in words) + access_options.repeated(arguments)


@contextlib.contextmanager
def connect(server: str | None, repository: Path, access: Access) -> Iterator[str]:
    """The address of `server`, else of what listens on the default port, else of an embedded Triton for the block.

    Warns of a server of another machine that is asked in plain text, and refuses TLS without a server.
    """
    with connect_with_metrics(server, repository, access) as (url, _):
        yield url


@contextlib.contextmanager
def connect_with_metrics(
    server: str | None, repository: Path, access: Access, tritonserver: Path | None = None
) -> Iterator[tuple[str, str | None]]:
    """`connect` with the address of the metrics, where that is known."""
    if server is not None:
        try:
            addresses.parse(server)
        except ValueError as error:
            raise UsageError(f"--server {error}") from None
        if access.tls is None and not addresses.is_loopback(server):
            err.print(f"warning: requests to {server} are not encrypted: add --tls-ca FILE", soft_wrap=True)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", InsecureConnectionWarning)  # said above
                yield server, None
        except (UnreachableError, TargetError) as error:
            if not server.endswith(":8000"):
                raise
            raise UsageError(f"{error}; Triton's port 8000 is for HTTP: use its gRPC port, 8001") from error
        return
    if access.tls is not None:
        raise UsageError("TLS needs --server HOST:PORT: a server started by this command has none")
    with Client(DEFAULT_SERVER, timeout_s=LOOK_TIMEOUT_S) as client:
        running = client.is_ready()
    if running:
        yield DEFAULT_SERVER, None
        return
    config_name = default_config_name(repository, tritonserver)
    why = f"no server at {DEFAULT_SERVER}: starting Triton with {repository}"
    with embedded(repository, config_name, tritonserver, why) as found:
        yield found


@contextlib.contextmanager
def embedded(
    repository: Path, config_name: str | None, tritonserver: Path | None, why: str
) -> Iterator[tuple[str, str | None]]:
    """A Triton of this command's own: its address and that of its metrics."""
    with err.status(why):
        served_models(repository, config_name, tritonserver)
        server = TritonServer(repository, config_name=config_name, tritonserver=tritonserver, stop_timeout_s=0).start()
    try:
        yield server.grpc_url, server.metrics_url
    finally:
        server.stop()


def served_models(repository: Path, config_name: str | None, tritonserver: Path | None) -> list[Served]:
    """What serves each model.

    Raises UsageError for a plan that no configuration loads, and, where this Triton runs engines, for one that
    `config_name` leaves out. Elsewhere a plan waits for another host, and ONNX is served.
    """
    from export.config.served import served
    from export.lint.folders.served import unserved_plans

    models = served(repository, config_name)
    engines = config_name != "cpu" and environment.runs_engines(tritonserver)
    wrong = list(unserved_plans(repository, [model.model for model in models], config_name or "" if engines else None))
    if wrong:
        raise UsageError("; ".join(str(finding) for finding in wrong))
    return models
