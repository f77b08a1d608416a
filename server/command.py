"""The tritonserver command line, made in one place for every target it runs on."""

from __future__ import annotations

from dataclasses import dataclass, field

from server import loading, response_cache

# Groups of the gRPC and HTTP protocol that change the server or reach into its memory; inference needs none of them.
ADMIN_PROTOCOLS = ("shared-memory", "model-repository", "trace", "logging")
# gRPC clients send it as the metadata `triton-grpc-protocol-admin-token`, HTTP clients as the header `admin-token`.
ADMIN_HEADER = "admin-token"
GRPC_ADMIN_HEADER = f"triton-grpc-protocol-{ADMIN_HEADER}"
# Flags that are younger than the embedded server (2.51): sent only to a container.
CONTAINER_ONLY_FLAGS = ("--http-max-input-size", "--allow-client-shm")
HTTP_MAX_INPUT_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True)
class TritonOptions:
    """What a Triton server is started with; the names are those of its own flags.

    An address and three ports say where it listens. `config_name` selects `configs/<name>.pbtxt` in every model folder
    that has one. `models` are the only ones that are loaded; with none, the container's entry point names them (see
    `server.loading`). `exit_timeout_s` bounds the wait for requests in flight when the server is asked to stop. With an
    `admin_token`, the `admin_protocols` are refused to callers that do not send it. `cache_bytes` is the size of the
    response cache of all models, whose library lies in the `cache_directory`; 0 for none.
    """

    model_repository: str
    address: str = "127.0.0.1"
    grpc_port: int = 8001
    http_port: int = 8000
    metrics_port: int = 8002
    config_name: str | None = None
    models: tuple[str, ...] | None = None
    exit_timeout_s: int = 30
    backend_directory: str | None = None
    shm_prefix: str | None = None
    cache_bytes: int = 0
    cache_directory: str | None = None
    admin_token: str | None = field(default=None, repr=False)
    admin_protocols: tuple[str, ...] = ADMIN_PROTOCOLS
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
    if options.models is not None:
        command += loading.flags(options.models)
    if options.backend_directory:
        command.append(f"--backend-directory={options.backend_directory}")
    if options.shm_prefix:
        command.append(f"--backend-config=python,shm-region-prefix-name={options.shm_prefix}")
    if options.cache_bytes:
        command.append(f"--cache-config=local,size={options.cache_bytes}")
        if options.cache_directory:
            command.append(f"--cache-directory={options.cache_directory}")
    if options.admin_token:
        restriction = f"{','.join(options.admin_protocols)}:{ADMIN_HEADER}={options.admin_token}"
        command += [f"--grpc-restricted-protocol={restriction}", f"--http-restricted-api={restriction}"]
    return [*command, *options.extra]


def container_options(
    *,
    config_name: str,
    admin_token: str,
    exit_timeout_s: int,
    trace_url: str,
    trace_level: str = "OFF",
    trace_rate: int = 100,
) -> TritonOptions:
    """The official container as docker-compose.yml and the Kubernetes manifests start it.

    Its entry point names the models that are exported. It listens on every address of its own network namespace.
    Traces of every `trace_rate`-th request go to `trace_url` (OTLP over HTTP) when `trace_level` is TIMESTAMPS. Shared
    memory of clients stays refused and a request over HTTP bounded, whatever a later release has as its default. The
    response cache is there for the bundled models that enable it.
    """
    return TritonOptions(
        model_repository="/models",
        address="0.0.0.0",
        config_name=config_name,
        models=(),
        exit_timeout_s=exit_timeout_s,
        admin_token=admin_token,
        cache_bytes=response_cache.BYTES,
        extra=(
            "--log-format=ISO8601",
            "--metrics-config=histogram_latencies=true",
            "--trace-config=mode=opentelemetry",
            f"--trace-config=level={trace_level}",
            f"--trace-config=rate={trace_rate}",
            f"--trace-config=opentelemetry,url={trace_url}",
            "--trace-config=opentelemetry,resource=service.name=triton",
            f"--http-max-input-size={HTTP_MAX_INPUT_BYTES}",
            "--allow-client-shm=false",
        ),
    )
