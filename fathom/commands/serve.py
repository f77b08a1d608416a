"""Start Triton on this machine with the model repository, and keep it running until Ctrl-C.

Without MODEL, Triton loads every exported model, and Fathom names the others. With MODEL, it loads these and the models
that they need: the steps of an ensemble, and models that config.pbtxt names in its parameters.

Callers need the admin token to load models and to use shared memory, tracing and logging (gRPC metadata
triton-grpc-protocol-admin-token, HTTP header admin-token). The token is FATHOM_ADMIN_TOKEN, or random if that is not
set. `fathom infer` and `fathom publish` of the same user on this machine find it. If the kernel forbids tracing
(ptrace), every local user can read the token in the arguments of tritonserver.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fathom.console import options
from fathom.console.output import err, note, print_json
from fathom.console.servers import not_loaded, served_models
from fathom.rollout import take_back_unfinished
from server import ServerDiedError, TritonServer, admin

if TYPE_CHECKING:
    from export.config.served import Served

_LOOK_EVERY_S = 1.0


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Declare the arguments of `fathom serve`."""
    command.add_argument("models", nargs="*", metavar="MODEL", help="models to load (default: all that are exported)")
    options.add_repository(command)
    command.add_argument(
        "--config-name",
        metavar="NAME",
        help="use configs/NAME.pbtxt of each model that has one (default: cpu without a GPU driver; gpu with one, if "
        "Triton has the TensorRT backend)",
    )
    options.add_tritonserver(command)
    command.add_argument(
        "--address", default="127.0.0.1", metavar="IP", help="address to listen on (default: %(default)s)"
    )
    command.add_argument(
        "--grpc-port",
        type=options.port,
        default=8001,
        metavar="PORT",
        help="gRPC port; 0 for a free one (default: 8001)",
    )
    command.add_argument(
        "--http-port",
        type=options.port,
        default=8000,
        metavar="PORT",
        help="HTTP port; 0 for a free one (default: 8000)",
    )
    command.add_argument(
        "--metrics-port",
        type=options.port,
        default=8002,
        metavar="PORT",
        help="port of the Prometheus metrics; 0 for a free one (default: 8002)",
    )
    options.add_json(command)


def run(arguments: argparse.Namespace) -> int:
    """Serve until Ctrl-C or SIGTERM."""
    repository = arguments.model_repository
    take_back_unfinished(repository, lambda text: err.print(text, markup=False, soft_wrap=True))
    config_name = arguments.config_name or options.default_config_name(repository, arguments.tritonserver)
    models = served_models(repository, config_name, arguments.tritonserver, arguments.models)
    server = TritonServer(
        repository,
        config_name=config_name,
        models=arguments.models or None,
        tritonserver=arguments.tritonserver,
        address=arguments.address,
        grpc_port=arguments.grpc_port,
        http_port=arguments.http_port,
        metrics_port=arguments.metrics_port,
        admin_token=admin.given_token(),
    )
    with err.status(f"starting Triton with {repository}"):
        server.start()
    try:
        if not arguments.models and (left := not_loaded(repository, config_name)):
            note(left)
        if arguments.json:
            print_json(
                {
                    "grpc": server.grpc_url,
                    "http": server.http_url,
                    "metrics": server.metrics_url,
                    "pid": server.pid,
                    "served": {model.model: model.to_json() for model in models},
                }
            )
        else:
            err.print("ready", style="green", end="  ")
            where = f"gRPC {server.grpc_url}, HTTP {server.http_url}, metrics {server.metrics_url}"
            err.print(where, soft_wrap=True)
            for line in _by_configuration(models):
                err.print(line, soft_wrap=True)
            err.print("Ctrl-C stops the server after it has answered the requests in flight")
        watch(server)
        raise ServerDiedError(server.death_reason())
    except KeyboardInterrupt:
        if not server.answers():
            server.stop_timeout_s = 0  # one that hangs finishes nothing
        with err.status("stopping: waiting for requests in flight"):
            server.stop()
        return 0
    finally:
        server.stop()


def _by_configuration(models: Sequence[Served]) -> list[str]:
    """A line for each file that configures models, such as `configs/cpu.pbtxt  mobilenet_v2 (onnxruntime)`."""
    files = dict.fromkeys(model.file for model in models)
    return [
        f"{file}  {', '.join(f'{model.model} ({model.how})' for model in models if model.file == file)}"
        for file in files
    ]


def watch(server: TritonServer, *, silent_s: float = 10.0, answer_s: float = 2.0) -> None:
    """Watch the server until it has ended; print when it hangs and when it answers again.

    It hangs when no health check was answered within `answer_s` for `silent_s`.
    """
    heard_s, hangs = time.monotonic(), False
    while server.is_alive():
        time.sleep(_LOOK_EVERY_S)
        if server.answers(answer_s):
            heard_s = time.monotonic()
            if hangs:
                hangs = False
                err.print("Triton answers again")
        elif not hangs and time.monotonic() - heard_s >= silent_s and server.is_alive():
            hangs = True
            err.print(f"Triton has not answered for {silent_s:g} s: it hangs. Ctrl-C ends it", soft_wrap=True)
