"""Put a new version of a model into service under load, and take it back when it is not as good.

Tried -> placed -> loaded -> watched. A candidate is loaded under another name from its files alone, so that it has to
load, warm up and agree before any traffic meets it. Then its folder appears by a rename, and Triton loads and warms it
beside the old version, moves new requests and lets the old version finish. What fails later takes the folder away and
loads again. The servers need --model-control-mode=explicit.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import json_format  # type: ignore[import-untyped]
from tritonclient.grpc import service_pb2

from clients import Client, InferenceError, codec
from clients.spec import ModelSpec
from export.repository.publish import hold, scratch
from fathom.console.arguments import UsageError
from loadtests.workload.payloads import from_metadata

CANDIDATE = "{model}--candidate"
LOAD_TIMEOUT_S = 600.0
MOST_BYTES = 1_900_000_000  # protobuf ends at 2 GiB
EXAMPLES = 16
Outcomes = tuple[int, int]  # requests that were answered, and that failed


class RolloutError(Exception):
    """The new version does not serve; the message says why, and that the old one does."""


@dataclass(frozen=True)
class Rules:
    """What a new version must keep to: agree with the old one to `tolerance` of its largest output, unless that is
    None, and fail no more than `failed_share` of its requests in the `watch_s` seconds after it takes over."""

    tolerance: float | None = 0.02
    watch_s: float = 30.0
    failed_share: float = 0.001


def roll(
    clients: Sequence[Client],
    model: str,
    files: Path,
    repository: Path,
    rules: Rules,
    say: Callable[[str], None] = lambda text: None,
    seen: Callable[[], Outcomes] = lambda: (0, 0),
) -> int:
    """Serve `files` (what belongs into a version's folder) as the next version on every server; returns its number.

    `repository` is the folder that all servers read. `seen` counts the outcomes that callers know of, since Triton's
    python backend (2.51) counts a request that it answers with an error as a success. Raises UsageError for what cannot
    be tried, RolloutError when the version was refused or taken back; the model is then served as before.
    """
    folder = repository / model
    if not folder.is_dir():
        raise UsageError(f"{repository} holds no model {model}")
    contents = {str(path.relative_to(files)): path for path in sorted(files.rglob("*")) if path.is_file()}
    if not contents:
        raise UsageError(f"{files} holds no files: name a folder like {model}/1")
    if sum(path.stat().st_size for path in contents.values()) > MOST_BYTES:
        raise UsageError(f"{files} holds more than {MOST_BYTES / 1e9:g} GB, which no candidate can be loaded from")
    with hold(repository):
        version = 1 + max((int(path.name) for path in folder.iterdir() if path.name.isdigit()), default=0)
        try_candidate(clients[0], model, contents, rules.tolerance)
        say(f"version {version} loads, is warm and agrees")
        with scratch(folder) as room:
            shutil.copytree(files, room / str(version))
            (room / str(version)).rename(folder / str(version))
            try:
                _move(clients, model, version, rules, say, seen)
            except BaseException as reason:
                (folder / str(version)).rename(room / "refused")
                for client in clients:
                    _load(client, model)
                if isinstance(reason, RolloutError):
                    raise RolloutError(f"{reason}; version {version} was taken back") from reason
                raise
    return version


def try_candidate(client: Client, model: str, contents: dict[str, Path], tolerance: float | None) -> None:
    """Load `contents` beside the live model and compare their answers. Raises RolloutError."""
    name = CANDIDATE.format(model=model)
    metadata = _call(client, "ModelMetadata", service_pb2.ModelMetadataRequest(name=model))
    config = _call(client, "ModelConfig", service_pb2.ModelConfigRequest(name=model)).config
    request = service_pb2.RepositoryModelLoadRequest(model_name=name)
    renamed = type(config)()
    renamed.CopyFrom(config)
    renamed.name = name
    renamed.ClearField("version_policy")
    request.parameters["config"].string_param = json_format.MessageToJson(renamed, preserving_proto_field_name=True)
    for relative, path in contents.items():
        request.parameters[f"file:1/{relative}"].bytes_param = path.read_bytes()
    try:
        _call(client, "RepositoryModelLoad", request)
        if tolerance is not None:
            _compare(client, metadata, config, name, tolerance)
    except InferenceError as error:
        raise RolloutError(f"the new version does not serve: {error}") from error
    finally:
        _call(client, "RepositoryModelUnload", service_pb2.RepositoryModelUnloadRequest(model_name=name))


def _compare(client: Client, metadata: Any, config: Any, candidate: str, tolerance: float) -> None:
    answers: list[list[dict[str, Any]]] = []
    for name in (metadata.name, candidate):
        metadata.name = name
        spec = ModelSpec.from_server(metadata, None, "")
        payloads = from_metadata(metadata, config, seed=0, count=EXAMPLES)
        answers.append([codec.decode(spec, _call(client, "ModelInfer", payload)) for payload in payloads])
    for old, new in zip(*answers, strict=True):
        for output, wanted in old.items():
            agree(output, wanted, new[output], tolerance)


def agree(output: str, wanted: np.ndarray[Any, Any], given: np.ndarray[Any, Any], tolerance: float) -> None:
    """Raises RolloutError where an output of the new version is not that of the old one."""
    if wanted.shape != given.shape:
        raise RolloutError(f"the new version answers {output} with shape {given.shape}, not {wanted.shape}")
    if wanted.dtype.kind not in "fiu":
        off = 0.0 if np.array_equal(wanted, given) else np.inf
    else:
        largest = float(np.abs(wanted.astype(float)).max(initial=0.0)) or 1.0
        off = float(np.abs(wanted.astype(float) - given.astype(float)).max(initial=0.0)) / largest
    if not off <= tolerance:
        raise RolloutError(
            f"the new version's {output} is off by {off:.2g} of the largest value, more than {tolerance:g}"
        )


def _move(
    clients: Sequence[Client],
    model: str,
    version: int,
    rules: Rules,
    say: Callable[[str], None],
    seen: Callable[[], Outcomes],
) -> None:
    good_before, bad_before = seen()
    for client in clients:
        try:
            _load(client, model)
        except InferenceError as error:
            raise RolloutError(f"{client.endpoint} cannot load the new version: {error}") from error
        say(f"{client.endpoint} serves version {version}")
    end = time.monotonic() + rules.watch_s
    while True:
        for client in clients:
            good, bad = _outcomes(client, model, version)
            if bad > rules.failed_share * (good + bad):
                raise RolloutError(f"{bad:,} of {good + bad:,} requests to the new version failed at {client.endpoint}")
        good, bad = (now - before for now, before in zip(seen(), (good_before, bad_before), strict=True))
        if bad > rules.failed_share * (good + bad):
            raise RolloutError(
                f"{bad:,} of {good + bad:,} requests failed for their callers since the new version came"
            )
        if time.monotonic() >= end:
            return
        time.sleep(min(0.5, rules.watch_s))


def _outcomes(client: Client, model: str, version: int) -> Outcomes:
    request = service_pb2.ModelStatisticsRequest(name=model, version=str(version))
    try:
        (statistics,) = _call(client, "ModelStatistics", request).model_stats
    except InferenceError as error:
        raise RolloutError(f"{client.endpoint} no longer serves the new version: {error}") from error
    return statistics.inference_stats.success.count, statistics.inference_stats.fail.count


def _load(client: Client, model: str) -> None:
    _call(client, "RepositoryModelLoad", service_pb2.RepositoryModelLoadRequest(model_name=model))


def _call(client: Client, method: str, request: Any) -> Any:
    return client.run(client.call(method, request, timeout_s=LOAD_TIMEOUT_S, retry=False))
