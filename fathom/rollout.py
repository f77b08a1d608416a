"""Put a new version of a model into service under load, and roll back when it is not as good.

Tried -> placed -> switched -> watched. A candidate is loaded under another name from its files alone, so that it has to
load, warm up and agree before it meets any traffic. Then its folder appears by a rename, and each replica in turn loads
and warms it beside the old version, moves new requests and lets the old version finish. A later failure removes the
folder and reloads every replica. The servers need --model-control-mode=explicit.
"""

from __future__ import annotations

import contextlib
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from google.protobuf import json_format  # type: ignore[import-untyped]
from tritonclient.grpc import service_pb2

from clients import Client, DeadlineExceeded, InferenceError, Unreachable, codec
from clients.spec import ModelSpec
from export.repository.publish import hold, scratch
from fathom.errors import UsageError
from loadtests.judge.verdict import CONFIDENCE, judge_counts
from loadtests.workload.payloads import from_metadata

CANDIDATE = "{model}--candidate"
MOST_BYTES = 1_900_000_000  # protobuf ends at 2 GiB
EXAMPLES = 16
Outcomes = tuple[int, int]  # requests that were answered, and that failed
LOOK_EVERY_S = 0.5


class RolloutError(Exception):
    """The new version was refused or rolled back. `left_behind` are the replicas that could not be reloaded: they may
    still serve it, all others serve the old version."""

    def __init__(self, message: str, left_behind: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.left_behind = tuple(left_behind)


@dataclass(frozen=True)
class Rules:
    """What a new version must keep to: agree with the old one to `tolerance` of its largest output, unless that is
    None, and fail no more than `failed_share` of its requests in the `watch_s` seconds after it takes over.

    A replica has `load_s` to load a version, and is taken for lost when it says nothing for `silent_s`."""

    tolerance: float | None = 0.02
    watch_s: float = 30.0
    failed_share: float = 0.001
    load_s: float = 600.0
    silent_s: float = 5.0


@dataclass(frozen=True)
class Watched:
    """What the replicas counted while they were watched: requests to the new version, and how many of them failed.

    The verdict is pass where so many requests prove with 99 % confidence that no larger share fails than allowed."""

    requests: int
    failed: int
    verdict: Literal["pass", "undecided"]
    idle: tuple[str, ...] = ()
    """The replicas that no request reached."""


@dataclass(frozen=True)
class Rollout:
    """A version that is in service. `watched` is None where nothing was to be watched."""

    version: int
    watched: Watched | None


def roll(
    clients: Sequence[Client],
    model: str,
    files: Path,
    repository: Path,
    rules: Rules,
    report: Callable[[str], None] = lambda text: None,
    outcomes: Callable[[], Outcomes] = lambda: (0, 0),
) -> Rollout:
    """Serve `files` (what belongs into a version's folder) as the next version on every replica.

    `repository` is the folder that all replicas read. `outcomes` counts the requests of the callers, since Triton's
    python backend (2.51) counts a request that it answers with an error as a success. Raises UsageError for what cannot
    be tried, RolloutError when the version was refused or rolled back.
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
        replicas = [Replica(client, model, version, rules) for client in clients]
        for replica in replicas:
            replica.require_answer()
        try_candidate(clients[0], model, contents, rules)
        report(f"version {version} loads, is warm and agrees")
        with scratch(folder) as room:
            shutil.copytree(files, room / str(version))
            (room / str(version)).rename(folder / str(version))
            switched: list[Replica] = []
            try:
                for replica in replicas:
                    switched.append(replica)
                    replica.switch()
                    report(f"{replica.endpoint} serves version {version}")
                return Rollout(version, watch(replicas, rules, outcomes) if rules.watch_s else None)
            except BaseException as reason:
                # Replicas not reached yet come last: one that was restarted meanwhile has loaded the newest folder.
                order = switched + [replica for replica in replicas if replica not in switched]
                left_behind = _roll_back(order, folder / str(version), room / "refused")
                if not left_behind and not isinstance(reason, Exception):
                    raise  # Ctrl-C, and all is as before
                why = str(reason) or type(reason).__name__
                raise RolloutError(_rolled_back(why, version, left_behind), [*left_behind]) from reason


def _roll_back(replicas: Sequence[Replica], version: Path, refused: Path) -> dict[str, str]:
    """Take the folder `version` away and reload every replica, in order; those that say nothing come last.

    Returns why a replica could not be reloaded, by its address."""
    try:
        version.rename(refused)
    except OSError as error:
        why = f"the folder {version} cannot be removed ({error.strerror})"
        return {replica.endpoint: f"{replica.endpoint}: {why}" for replica in replicas}
    left_behind: dict[str, str] = {}
    answering = {replica: replica.answers() for replica in replicas}
    for replica in sorted(replicas, key=lambda replica: not answering[replica]):
        try:
            replica.require_answer()
            replica.load()
        except (RolloutError, ValueError) as error:
            left_behind[replica.endpoint] = str(error)
    return left_behind


def _rolled_back(reason: str, version: int, left_behind: dict[str, str]) -> str:
    if not left_behind:
        return f"{reason}; version {version} was rolled back"
    return (
        f"{reason}; version {version} was rolled back, except where that failed: {'; '.join(left_behind.values())}; "
        f"restart what is named here, since it may still serve version {version}"
    )


class Replica:
    """One server during a roll-out. Its methods raise RolloutError."""

    def __init__(self, client: Client, model: str, version: int, rules: Rules) -> None:
        self.endpoint = client.endpoint
        self._client, self._model, self._version, self._rules = client, model, version, rules
        self._warm: Outcomes = (0, 0)

    def answers(self) -> bool:
        """Whether it says anything within `silent_s`."""
        return _answers(self._client, self._rules)

    def require_answer(self) -> None:
        if not self.answers():
            raise RolloutError(f"{self.endpoint} does not answer")

    def load(self) -> None:
        """Load the newest folder."""
        request = service_pb2.RepositoryModelLoadRequest(model_name=self._model)
        try:
            _call_patiently(self._client, "RepositoryModelLoad", request, self._rules)
        except InferenceError as error:
            raise RolloutError(f"{self.endpoint} cannot load {self._model}: {error}") from error

    def switch(self) -> None:
        """Load the new version, and count its requests from now on: Triton counts those of its warm-up too."""
        self.load()
        self._warm = self._counts()

    def outcomes(self) -> Outcomes:
        """Requests to the new version that were answered, and that failed."""
        (good, failed), (warm, broken) = self._counts(), self._warm
        if good < warm:
            raise RolloutError(f"{self.endpoint} was restarted")
        return good - warm, failed - broken

    def _counts(self) -> Outcomes:
        request = service_pb2.ModelStatisticsRequest(name=self._model, version=str(self._version))
        try:
            (statistics,) = _call(self._client, "ModelStatistics", request, self._rules.silent_s).model_stats
        except InferenceError as error:
            raise RolloutError(f"{self.endpoint} no longer serves the new version: {error}") from error
        return statistics.inference_stats.success.count, statistics.inference_stats.fail.count


def watch(replicas: Sequence[Replica], rules: Rules, outcomes: Callable[[], Outcomes]) -> Watched:
    """Watch for `watch_s`. Raises RolloutError once the share of failures is proven to be larger than allowed."""
    looks = 1 + int(rules.watch_s / LOOK_EVERY_S)
    confidence = 1 - (1 - CONFIDENCE) / looks  # of each look, so that all together keep to CONFIDENCE
    good_before, failed_before = outcomes()

    def refuse_failures(good: int, failed: int, where: str) -> None:
        if judge_counts(good + failed, failed, rules.failed_share, confidence=confidence) == "fail":
            raise RolloutError(f"{failed:,} of {good + failed:,} requests {where}")

    for _ in _looks(rules.watch_s):
        counts = [replica.outcomes() for replica in replicas]
        for replica, (good, failed) in zip(replicas, counts, strict=True):
            refuse_failures(good, failed, f"to the new version failed at {replica.endpoint}")
        good, failed = outcomes()
        good, failed = good - good_before, failed - failed_before
        refuse_failures(good, failed, "failed for their callers since the new version came")
    totals = (sum(good for good, _ in counts), sum(failed for _, failed in counts))
    answered, refused = max(totals, (good, failed), key=sum)
    idle = tuple(replica.endpoint for replica, count in zip(replicas, counts, strict=True) if not sum(count))
    passes = judge_counts(answered + refused, refused, rules.failed_share) == "pass"
    return Watched(answered + refused, refused, "pass" if passes else "undecided", idle)


def _looks(seconds: float) -> Iterator[None]:
    end_s = time.monotonic() + seconds
    while True:
        yield
        left_s = end_s - time.monotonic()
        if left_s <= 0:
            return
        time.sleep(min(LOOK_EVERY_S, left_s))


def try_candidate(client: Client, model: str, contents: dict[str, Path], rules: Rules) -> None:
    """Load `contents` beside the live model and compare their answers. Raises RolloutError, or UsageError for a server
    that loads no models on request."""
    name = CANDIDATE.format(model=model)
    try:
        metadata = _call(client, "ModelMetadata", service_pb2.ModelMetadataRequest(name=model), rules.silent_s)
        config = _call(client, "ModelConfig", service_pb2.ModelConfigRequest(name=model), rules.silent_s).config
    except (Unreachable, DeadlineExceeded) as error:
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
        _call_patiently(client, "RepositoryModelLoad", request, rules)
        if rules.tolerance is not None:
            _compare(client, metadata, config, name, rules, rules.tolerance)
    except InferenceError as error:
        if "explicit model load" in error.details:
            raise UsageError(
                f"{client.endpoint} loads no models on request: start it with "
                "--model-control-mode=explicit --load-model=*"
            ) from error
        raise RolloutError(f"the new version does not serve: {error}") from error
    finally:
        with contextlib.suppress(InferenceError):  # what went wrong is raised already
            unload = service_pb2.RepositoryModelUnloadRequest(model_name=name)
            _call(client, "RepositoryModelUnload", unload, rules.silent_s)


def _compare(client: Client, metadata: Any, config: Any, candidate: str, rules: Rules, tolerance: float) -> None:
    answers: list[list[dict[str, Any]]] = []
    for name in (metadata.name, candidate):
        metadata.name = name
        spec = ModelSpec.from_server(metadata, None, "")
        payloads = from_metadata(metadata, config, seed=0, count=EXAMPLES)
        answers.append(
            [codec.decode(spec, _call_patiently(client, "ModelInfer", payload, rules)) for payload in payloads]
        )
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


def _answers(client: Client, rules: Rules) -> bool:
    try:
        _call(client, "ServerLive", service_pb2.ServerLiveRequest(), rules.silent_s)
    except InferenceError as error:
        return not isinstance(error, Unreachable | DeadlineExceeded)
    return True


def _call_patiently(client: Client, method: str, request: Any, rules: Rules) -> Any:
    """A call that may take `load_s`, for as long as the server says anything. Raises InferenceError, RolloutError."""
    done: Future[Any] = Future()

    def call() -> None:
        try:
            done.set_result(_call(client, method, request, rules.load_s))
        except Exception as error:
            done.set_exception(error)

    threading.Thread(target=call, name="fathom-publish", daemon=True).start()
    while not wait([done], rules.silent_s).done:
        if not _answers(client, rules) and not done.done():
            raise RolloutError(f"{client.endpoint} does not answer any more ({method})")
    return done.result()


def _call(client: Client, method: str, request: Any, timeout_s: float) -> Any:
    return client.run(client.call(method, request, timeout_s=timeout_s, retry=False))
