"""The tritonserver command line, made in one place for every target it runs on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TritonOptions:
    """What a Triton server is started with; the names are those of its own flags.

    An address and three ports say where it listens. `config_name` selects `configs/<name>.pbtxt` in every model folder
    that has one. `exit_timeout_s` bounds the wait for requests in flight when the server is asked to stop.
    """

    model_repository: str
    address: str = "127.0.0.1"
    grpc_port: int = 8001
    http_port: int = 8000
    metrics_port: int = 8002
    config_name: str | None = None
    exit_timeout_s: int = 30
    backend_directory: str | None = None
    shm_prefix: str | None = None
    extra: tuple[str, ...] = ()


def triton_command(options: TritonOptions, *, binary: str = "tritonserver") -> list[str]:
    """The command line for `options`, without a shell."""
    command = [
        binary,
        f"--model-repository={options.model_repository}",
        f"--grpc-address={options.address}",
        f"--grpc-port={options.grpc_port}",
        f"--http-address={options.address}",
        f"--http-port={options.http_port}",
        f"--metrics-address={options.address}",
        f"--metrics-port={options.metrics_port}",
        f"--exit-timeout-secs={options.exit_timeout_s}",
    ]
    if options.config_name:
        command.append(f"--model-config-name={options.config_name}")
    if options.backend_directory:
        command.append(f"--backend-directory={options.backend_directory}")
    if options.shm_prefix:
        command.append(f"--backend-config=python,shm-region-prefix-name={options.shm_prefix}")
    return [*command, *options.extra]
