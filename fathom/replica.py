"""One server during a roll-out: the calls to it, and how long it may stay silent."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import wait
from dataclasses import dataclass
from typing import Any

from tritonclient.grpc import service_pb2

from clients import Client, DeadlineExceededError, InferenceError, UnreachableError
from clients.background import in_thread

Outcomes = tuple[int, int]  # requests that were answered, and that failed


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
            call_patiently(self._client, "RepositoryModelLoad", request, self._rules)
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
            (statistics,) = call(self._client, "ModelStatistics", request, self._rules.silent_s).model_stats
        except InferenceError as error:
            raise RolloutError(f"{self.endpoint} no longer serves the new version: {error}") from error
        return statistics.inference_stats.success.count, statistics.inference_stats.fail.count


def _answers(client: Client, rules: Rules) -> bool:
    try:
        call(client, "ServerLive", service_pb2.ServerLiveRequest(), rules.silent_s)
    except InferenceError as error:
        return not isinstance(error, UnreachableError | DeadlineExceededError)
    return True


def call_patiently(client: Client, method: str, request: Any, rules: Rules) -> Any:
    """A call that may take `load_s`, for as long as the server says anything. Raises InferenceError, RolloutError."""
    done = in_thread("fathom-publish", call, client, method, request, rules.load_s)
    while not wait([done], rules.silent_s).done:
        if not _answers(client, rules) and not done.done():
            raise RolloutError(f"{client.endpoint} does not answer any more ({method})")
    return done.result()


def call(client: Client, method: str, request: Any, timeout_s: float) -> Any:
    return client.run(client.call(method, request, timeout_s=timeout_s, retry=False))
