"""What a server has: whether it is ready, its models, and one of them."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import grpc
from tritonclient.grpc import service_pb2

from clients import errors
from clients.errors import InvalidInput
from clients.spec import ModelSpec

if TYPE_CHECKING:
    from clients.connection import Connection


async def is_ready(client: Connection[Any, Any, Any]) -> bool:
    """Whether a server can be reached and all its models are ready."""
    for server in client.rotation().servers:
        with contextlib.suppress(errors.InferenceError):
            if (await client.call("ServerReady", service_pb2.ServerReadyRequest(), retry=False, server=server)).ready:
                return True
    return False


async def names(client: Connection[Any, Any, Any]) -> list[str]:
    """Names of the models that are ready, sorted."""
    index = await client.call("RepositoryIndex", service_pb2.RepositoryIndexRequest(ready=True))
    return sorted({model.name for model in index.models})


async def model(client: Connection[Any, Any, Any], name: str, version: str) -> Any:
    """A model as its metadata and configuration describe it. Raises ModelNotFound, naming the models there are."""
    try:
        return client._model(client, await signature(client, name, version))
    except errors.ModelNotFound as error:
        with contextlib.suppress(errors.InferenceError):
            known = await names(client)
            what = f"version {version} of '{name}'" if name in known else f"model '{name}'"
            error.args = (f"{error.endpoint} has no {what}: it serves {', '.join(known) or 'no model'}",)
        raise


async def signature(client: Connection[Any, Any, Any], name: str, version: str, **options: Any) -> ModelSpec:
    """What a model takes and gives now; `options` are those of `Connection.call`."""
    which = {"name": name, "version": version}
    options["model"] = name
    metadata = await client.call("ModelMetadata", service_pb2.ModelMetadataRequest(**which), **options)
    try:
        config = await client.call("ModelConfig", service_pb2.ModelConfigRequest(**which), **options)
    except errors.InferenceError as error:
        if error.status != grpc.StatusCode.UNIMPLEMENTED.name:
            raise
        config = None  # a KServe-v2 server without the model configuration extension
    return ModelSpec.from_server(metadata, config, version)


async def now(client: Connection[Any, Any, Any], spec: ModelSpec, error: InvalidInput, timeout_s: float) -> ModelSpec:
    """The signature of a model as the server has it that refused a request; `spec` where it will not say."""
    server = next((server for server in client.rotation().servers if server.address == error.endpoint), None)
    with contextlib.suppress(errors.InferenceError):
        return await signature(client, spec.name, spec.version, server=server, timeout_s=timeout_s)
    return spec
