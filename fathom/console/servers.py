"""The server that a command uses: the named one, the one that runs here, or one that the command starts."""

from __future__ import annotations

import argparse
import contextlib
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from clients import Client, InsecureConnectionWarning, UnreachableError, addresses
from export import recipes
from export.command import fathom, naming, quote
from export.errors import did_you_mean
from fathom.console.arguments import UsageError
from fathom.console.options import DEFAULT_SERVER, default_config_name
from fathom.console.output import err
from loadtests.errors import TargetError
from loadtests.target import access_options
from loadtests.target.access import Access
from server import TritonServer, environment, loading

if TYPE_CHECKING:
    from export.config.served import Served

LOOK_TIMEOUT_S = 1.0
_FEW = 3
"""Exports that a command names; of more it asks for all."""


def same_server(arguments: argparse.Namespace) -> str:
    """The options for a command line that asks the same server about the same models."""
    words = [*(("--server", arguments.server) if arguments.server else ()), *naming(arguments.model_repository)]
    return "".join(f" {quote(word)}" for word in words) + access_options.repeated(arguments)


@contextlib.contextmanager
def connect(server: str | None, repository: Path, access: Access, models: Sequence[str]) -> Iterator[str]:
    """The address of `server`, else of what listens on the default port, else of an embedded Triton for the block,
    which loads `models` and what they need.

    Warns of a server of another machine that is asked in plain text, and refuses TLS without a server.
    """
    with connect_with_metrics(server, repository, access, models) as (url, _):
        yield url


@contextlib.contextmanager
def connect_with_metrics(
    server: str | None, repository: Path, access: Access, models: Sequence[str], tritonserver: Path | None = None
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
    why = f"no server at {DEFAULT_SERVER}: starting Triton with {', '.join(models)} of {repository}"
    with embedded(repository, config_name, models, tritonserver, why) as found:
        yield found


@contextlib.contextmanager
def embedded(
    repository: Path, config_name: str | None, models: Sequence[str], tritonserver: Path | None, why: str
) -> Iterator[tuple[str, str | None]]:
    """A Triton of this command's own, with these models and what they need: its address and that of its metrics."""
    with err.status(why):
        served_models(repository, config_name, tritonserver, models)
        server = TritonServer(
            repository, config_name=config_name, models=models, tritonserver=tritonserver, stop_timeout_s=0
        ).start()
    try:
        yield server.grpc_url, server.metrics_url
    finally:
        server.stop()


def served_models(
    repository: Path, config_name: str | None, tritonserver: Path | None, names: Sequence[str] = ()
) -> list[Served]:
    """What serves each model that a server loads: those named with what they need, else every one that is exported.

    Raises UsageError for a model that is not there or not exported, for a plan that no configuration loads, and, where
    this Triton runs engines, for one that `config_name` leaves out. Elsewhere a plan waits for another host, and ONNX
    is served.
    """
    from export.config.served import served
    from export.lint.folders.served import unserved_plans

    left = loading.waiting(repository, config_name)
    for name in names:
        if name not in (known := loading.models(repository)):
            near = did_you_mean(name, known)
            raise UsageError(f"{repository} has no model '{name}'{near}; it has {', '.join(known) or 'none'}")
        if name in left:
            missing = export_command(left[name], repository)
            raise UsageError(f"'{name}' cannot be served before its export: run `{missing}`")
    loaded = set(loading.needed(repository, names, config_name) if names else loading.models(repository)) - left.keys()
    models = [model for model in served(repository, config_name) if model.model in loaded]
    engines = config_name != "cpu" and environment.runs_engines(tritonserver)
    wrong = list(unserved_plans(repository, [model.model for model in models], config_name or "" if engines else None))
    if wrong:
        raise UsageError("; ".join(str(finding) for finding in wrong))
    return models


def not_loaded(repository: Path, config_name: str | None) -> str:
    """A line on the models that are not exported, with the command that exports them; empty where all are."""
    left = loading.waiting(repository, config_name)
    if not left:
        return ""
    command = export_command([name for names in left.values() for name in names], repository)
    return f"not exported, and so not loaded: {', '.join(filter(_is_asked, left))} (`{command}`)"


def _is_asked(name: str) -> bool:
    """Whether people ask the model, which is no step or companion of others."""
    recipe = recipes.bundled(name)
    return recipe is None or name in (recipe.name, *(system.name for system in recipe.systems))


def export_command(models: Sequence[str], repository: Path) -> str:
    """The command that exports what makes these models."""
    recipe = {name: recipes.bundled(name) for name in models}
    names = [*dict.fromkeys(each.name if each else name for name, each in recipe.items())]
    return fathom("export", *(names if len(names) <= _FEW else ["--all"]), repository=repository)
