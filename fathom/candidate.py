"""Try a new version under another name: it must load, warm up and agree with the live one before it gets traffic."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import json_format  # type: ignore[import-untyped]
from tritonclient.grpc import service_pb2

from clients import Client, DeadlineExceededError, InferenceError, UnreachableError, codec
from clients.spec import ModelSpec
from fathom.console.arguments import UsageError
from fathom.replica import RolloutError, Rules, call, call_patiently
from loadtests.workload.payloads import from_metadata

CANDIDATE = "{model}--candidate"
EXAMPLES = 16


def try_candidate(client: Client, model: str, contents: dict[str, Path], rules: Rules) -> None:
    """Load `contents` beside the live model and compare their answers. Raises RolloutError, or UsageError for a server
    that loads no models on request."""
    name = CANDIDATE.format(model=model)
    try:
        metadata = call(client, "ModelMetadata", service_pb2.ModelMetadataRequest(name=model), rules.silent_s)
        config = call(client, "ModelConfig", service_pb2.ModelConfigRequest(name=model), rules.silent_s).config
    except (UnreachableError, DeadlineExceededError) as error:
        raise RolloutError(f"{client.endpoint} does not answer: {error}") from error
    request = service_pb2.RepositoryModelLoadRequest(model_name=name)
    renamed = type(config)()
    renamed.CopyFrom(config)
    renamed.name = name
    renamed.ClearField("version_policy")
    request.parameters["config"].string_param = json_format.MessageToJson(renamed, preserving_proto_field_name=True)
    for relative, path in contents.items():
        request.parameters[f"file:1/{relative}"].bytes_param = path.read_bytes()
    try:
        call_patiently(client, "RepositoryModelLoad", request, rules)
        if rules.tolerance is not None:
            _compare(client, metadata, config, name, rules, rules.tolerance)
    except InferenceError as error:
        if "explicit model load" in error.details:
            raise UsageError(
                f"{client.endpoint} cannot load models on request: start it with "
                "--model-control-mode=explicit --load-model=*"
            ) from error
        raise RolloutError(f"the new version failed: {error}") from error
    finally:
        with contextlib.suppress(InferenceError):  # what went wrong is raised already
            unload = service_pb2.RepositoryModelUnloadRequest(model_name=name)
            call(client, "RepositoryModelUnload", unload, rules.silent_s)


def _compare(client: Client, metadata: Any, config: Any, candidate: str, rules: Rules, tolerance: float) -> None:
    answers: list[list[dict[str, Any]]] = []
    for name in (metadata.name, candidate):
        metadata.name = name
        spec = ModelSpec.from_server(metadata, None, "")
        payloads = from_metadata(metadata, config, seed=0, count=EXAMPLES)
        answers.append(
            [codec.decode(spec, call_patiently(client, "ModelInfer", payload, rules)) for payload in payloads]
        )
    for old, new in zip(*answers, strict=True):
        for output, wanted in old.items():
            if output not in new:
                raise RolloutError(f"the new version has no output {output}")
            agree(output, wanted, new[output], tolerance)


def agree(output: str, wanted: np.ndarray[Any, Any], given: np.ndarray[Any, Any], tolerance: float) -> None:
    """Raises RolloutError where an output of the new version is not that of the old one."""
    if wanted.shape != given.shape:
        raise RolloutError(f"output {output} of the new version has shape {given.shape}, not {wanted.shape}")
    if wanted.dtype.kind not in "fiu":
        off = 0.0 if np.array_equal(wanted, given) else np.inf
    else:
        largest = float(np.abs(wanted.astype(float)).max(initial=0.0)) or 1.0
        off = float(np.abs(wanted.astype(float) - given.astype(float)).max(initial=0.0)) / largest
    if not off <= tolerance:
        raise RolloutError(
            f"output {output} of the new version differs from the old by {off:.2g} of the largest value, more than "
            f"{tolerance:g} (--parity)"
        )
