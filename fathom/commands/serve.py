"""Start a real Triton on this machine with the model repository and keep it until Ctrl-C.

Without MODEL it loads every model that is exported, and names the others. With MODEL it loads these and the models that
they need: the steps of an ensemble, and what config.pbtxt names in its parameters.

Loading models, shared memory, tracing and logging are refused to callers that do not send the admin token (gRPC
metadata triton-grpc-protocol-admin-token, HTTP header admin-token). It is FATHOM_ADMIN_TOKEN of the environment, or
else random; `fathom infer` and `fathom publish` of the same user on this machine find it by themselves. Where the
kernel does not allow tracing (ptrace), every local user can read the token among the arguments of tritonserver.
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
        help="serve configs/NAME.pbtxt of the models that have one (default: cpu where there is no GPU driver, gpu "
        "where there is one and Triton has the TensorRT backend)",
    )
    options.add_tritonserver(command)
    command.add_argument("--address", default="127.0.0.1", metavar="IP", help="listen here (default: %(default)s)")
    command.add_argument(
        "--grpc-port", type=options.port, default=8001, metavar="N", help="default: %(default)s; 0: a free one"
    )
    command.add_argument(
        "--http-port", type=options.port, default=8000, metavar="N", help="default: %(default)s; 0: a free one"
    )
    command.add_argument(
        "--metrics-port", type=options.port, default=8002, metavar="N", help="default: %(default)s; 0: a free one"
    )
    options.add_json(command)


def run(arguments: argparse.Namespace) -> int:
    """Serve until the process is asked to stop."""
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
    if not arguments.models and (left := not_loaded(repository, config_name)):
        note(left)
    with err.status(f"starting Triton with {repository}"):
        server.start()
    try:
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
            err.print("Ctrl-C stops it once the requests in flight are answered")
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
    """Until it has ended. Says when it hangs, which is after `silent_s` without an answer, and when it goes on.

    It is asked again and again, and has `answer_s` for each answer.
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
            err.print(f"Triton has answered nothing for {silent_s:g} s: it hangs. Ctrl-C ends it", soft_wrap=True)
