"""The workload: one model, or several by weight, with the encoded requests of each.

Every percentile of a mix is known for each of its models and for all requests together.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from loadtests.errors import BadRequestError, InputFileError
from loadtests.records.point import SizePoint
from loadtests.records.record import Record
from loadtests.slo import Measure, Slo
from loadtests.target.access import Access
from loadtests.target.client import FROZEN_S, Target
from loadtests.target.sequences import Payload, flagged, requests_in
from loadtests.target.statistics import composing_models
from loadtests.workload import payloads as made_payloads
from loadtests.workload.mix import ModelMix
from loadtests.workload.schedule import Offsets
from loadtests.workload.sequences import Sequences, check_payloads, interval_s
from loadtests.workload.sizes import Sizes, by_size, input_bytes
from loadtests.workload.trace import Trace

logger = logging.getLogger("fathom")
_MADE = "made from the server's metadata"
_REQUESTS = 10
"""The number of requests in each sequence that is made up."""
_SHARE = re.compile(r"(?P<model>[^=\s]+?)(?:@(?P<priority>[1-9]\d{0,8}))?(?:=(?P<weight>[^=]+))?")


@dataclass(frozen=True)
class ModelWeight:
    """One model of the workload, or its requests of one priority. Without `payloads`, inputs are made from the server's
    metadata."""

    model: str
    weight: float = 1.0
    """Relative to the other models."""
    payloads: Sequence[Payload] | None = None
    """Serialised `ModelInferRequest`s of this model, used in turn in an order shuffled by the seed; of a model that
    keeps state sequences of them."""
    interval_s: float | None = None
    """Between two requests of a sequence."""
    source: str = ""
    """Where the payloads come from, for a person, as in `evaluation data`; of a file its name."""
    file: Path | None = None
    """Where they come from a file."""
    priority: int = 0
    """What the requests carry of it, 1 for the most urgent; 0 for none, which is the model's default."""

    @property
    def name(self) -> str:
        """`road_scene`, or `road_scene@1` for its requests of priority 1: what a report calls them."""
        return f"{self.model}@{self.priority}" if self.priority else self.model

    @classmethod
    def parse(cls, text: str) -> ModelWeight:
        """`image_classifier`, `image_classifier=0.7` or `road_scene@1=0.1`; BadRequestError quoting anything else."""
        found = _SHARE.fullmatch(text.strip())
        try:
            weight = float(found["weight"] or 1.0) if found else math.nan
        except ValueError:
            weight = math.nan
        if found is None or not (math.isfinite(weight) and weight > 0):
            raise BadRequestError(f"workload {text!r} is not understood: write MODEL[@PRIORITY][=WEIGHT]", field="mix")
        return cls(found["model"], weight, priority=int(found["priority"] or 0))


def name_of(shares: Sequence[ModelWeight]) -> str:
    """`image_classifier`, or `image_classifier+text_embedding` for a mix."""
    return "+".join(share.name for share in shares)


def scoped(slos: Sequence[Slo], models: Sequence[str]) -> tuple[Slo, ...]:
    """The SLOs of a mix: each one for all requests together and for each model, unless it names its model."""
    if unknown := [slo.model for slo in slos if slo.model and slo.model not in models]:
        raise BadRequestError(
            f"an SLO names {unknown[0]}, which is not in the workload: {', '.join(models)}", field="slos"
        )
    if len(models) < 2:
        return tuple(replace(slo, model="") for slo in slos)
    each = [replace(slo, model=model) for slo in slos if not slo.model for model in models]
    return tuple(dict.fromkeys([*slos, *each]))


def digest(parts: Sequence[bytes]) -> str:
    """SHA-256 of all parts in their order."""
    found = hashlib.sha256()
    for part in parts:
        found.update(len(part).to_bytes(8) + part)
    return found.hexdigest()


class Workload:
    """The models of one server that are asked, ready for load."""

    def __init__(
        self,
        server: str,
        shares: Sequence[ModelWeight],
        *,
        access: Access | None = None,
        seed: int = 0,
        interval_s: float | None = None,
        frozen_s: float = FROZEN_S,
    ) -> None:
        """`interval_s` is for the sequences of all models that keep state, instead of what their shares say."""
        self.models = tuple(share.name for share in shares)
        self._mix = ModelMix((1,) * len(shares), tuple(share.weight for share in shares))
        if doubled := {model for model in self.models if self.models.count(model) > 1}:
            raise BadRequestError(f"the workload names {min(doubled)} twice: add up its weights", field="mix")
        if any(share.payloads is not None and not share.payloads for share in shares):
            raise BadRequestError("the payload pool is empty; give at least one encoded request", field="payloads")
        self.weights = self._mix.shares
        self.targets = [Target(server, share.model, access=access, frozen_s=frozen_s) for share in shares]
        self._shares = tuple(shares)
        self._seed = seed
        self._interval_s = interval_s
        self._pools: list[list[Payload]] = []
        self.sequences: Sequences | None = None
        """What is asked where a model keeps state; known after `check`."""
        self._sizes: list[NDArray[np.int64]] = []
        self.assumed: list[str] = []
        """What made-up requests assume about the models; known after `check`, which also logs it."""

    def __enter__(self) -> Workload:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.ExitStack() as stack:
            for target in self.targets:
                stack.push(target)

    def check(self) -> None:
        """TargetError unless the server answers and has all models ready. Makes the payloads that were not given.

        BadRequestError where payloads or interval do not fit a model that keeps state, or one that keeps none.
        """
        for target in self.targets:
            target.check()
        self._pools, self.assumed = [], []
        for share, target in zip(self._shares, self.targets, strict=True):
            if share.priority:
                self._check_priority(share, target)
            payloads = share.payloads or self._made(target)
            check_payloads(target, payloads)
            whole = [payload if isinstance(payload, bytes) else flagged(payload) for payload in payloads]
            self._pools.append(_prioritised(whole, share.priority))
        self.sequences = self._sequences()
        self._sizes = list(map(input_bytes, self._pools))
        self._mix = replace(self._mix, sizes=tuple(map(len, self._pools)))

    def _made(self, target: Target) -> Sequence[Payload]:
        metadata, config = target.metadata(), target.config()
        assumed, made = made_payloads.assumptions(metadata, config), made_payloads.from_metadata
        if target.keeps_state:
            count = made_payloads.POOL_SIZE * _REQUESTS
            requests = made(metadata, config, seed=self._seed, count=count)
            assumed = "; ".join(filter(None, (assumed, f"sequences of {target.model} have {_REQUESTS} requests each")))
            payloads: list[Payload] = [
                tuple(requests[at : at + _REQUESTS]) for at in range(0, len(requests), _REQUESTS)
            ]
        else:
            payloads = list(made(metadata, config, seed=self._seed))
        if assumed:
            self.assumed.append(assumed)
            logger.warning(assumed)
        return payloads

    def _sequences(self) -> Sequences | None:
        intervals_s = []
        for share, target in zip(self._shares, self.targets, strict=True):
            given_s = self._interval_s if self._interval_s is not None else share.interval_s
            intervals_s.append(interval_s(target, given_s))
        if any(intervals_s):
            return Sequences.of(self._pools, intervals_s)
        if self._interval_s is not None:
            raise BadRequestError(
                f"{' and '.join(self.models)} keep no state between requests: leave out --sequence-interval",
                field="interval_s",
            )
        return None

    def _check_priority(self, share: ModelWeight, target: Target) -> None:
        """Raise BadRequestError for a priority that neither the model nor a step has: Triton would pass it over."""
        found = [target.config(name) for name in (share.model, *composing_models(share.model, target.config))]
        levels = max((config.dynamic_batching.priority_levels for config in found if config is not None), default=None)
        if levels is not None and levels < share.priority:
            raise BadRequestError(
                f"{share.name} has priority {share.priority}, but {share.model} has {levels} priority levels: set "
                "dynamic_batching.priority_levels in its config.pbtxt, or leave out the priority",
                field="mix",
            )

    @property
    def mix(self) -> ModelMix:
        """What each request carries; known after `check`."""
        return self._mix

    @property
    def streaming(self) -> dict[str, bool]:
        """Whether each model streams its answers; known after `check`."""
        return {name: target.streams for name, target in zip(self.models, self.targets, strict=True)}

    @property
    def measures(self) -> dict[str, tuple[Measure, ...]]:
        """What SLOs may be about, for each model; known after `check`."""
        return {
            name: get_args(Measure) if target.streams else ("", "gap") if target.keeps_state else ("",)
            for name, target in zip(self.models, self.targets, strict=True)
        }

    def payloads_of(self, model: str) -> tuple[int, int]:
        """The places of a model's payloads in `pool`: its first, and the one behind its last."""
        return self._mix.range_of(self.models.index(model))

    @property
    def streamed(self) -> list[tuple[int, int]]:
        """The places in `pool` of the payloads whose answers come in parts."""
        return [self.payloads_of(model) for model, streams in self.streaming.items() if streams]

    @property
    def pool(self) -> list[bytes]:
        """The requests of all models, one model after the other, and of a sequence in its order."""
        return [request for pool in self._pools for payload in pool for request in requests_in(payload)]

    @property
    def longest_s(self) -> float:
        """Of a sequence, from its first request to its last; 0 where no model keeps state."""
        return float(self.sequences.lengths_s.max()) if self.sequences else 0.0

    @property
    def mean_s(self) -> float:
        """Of the sequences of the model whose last longest; 0 where none keeps state."""
        if not self.sequences:
            return 0.0
        own = (slice(*self.payloads_of(model)) for model in self.models)
        return max(float(self.sequences.lengths_s[places].mean()) for places in own)

    @property
    def requests_each(self) -> float:
        """Of the mean arrival: more than 1 where sequences arrive."""
        each = [np.mean([len(requests_in(payload)) for payload in pool]) for pool in self._pools]
        return float(self.weights @ each)

    def ends(self, offsets_s: Offsets, choices: NDArray[np.int32]) -> tuple[Offsets, NDArray[np.int32]]:
        """When the last request of each arrival is due, and which payload that is, in this order."""
        return self.sequences.ends(offsets_s, choices) if self.sequences else (offsets_s, choices)

    @property
    def first_payloads(self) -> list[tuple[Target, list[Payload]]]:
        """Each model's target and payloads, for questions one at a time."""
        return list(zip(self.targets, self._pools, strict=True))

    def choices(self, count: int, *, seed: int) -> NDArray[np.int32]:
        """Which payload of `pool` each of `count` requests carries."""
        return self._mix.choices(count, seed=seed)

    def choices_of(self, trace: Trace, *, seed: int) -> NDArray[np.int32]:
        """The choices for a recorded trace, whose rows may name a model and number a payload (from 0)."""
        if not trace.models:
            owners = self._mix.owners(len(trace), seed=seed)
        else:
            known = {model: number for number, model in enumerate(self.models)}
            for line, model in zip(trace.lines, trace.models, strict=True):
                if model not in known:
                    asked = ", ".join(self.models)
                    raise InputFileError(trace.path, line, f"model {model!r} is not in the workload: {asked}")
            owners = np.asarray([known[model] for model in trace.models])
        if trace.payloads is not None:
            sizes = np.asarray(self._mix.sizes)[owners]
            if (beyond := np.flatnonzero(trace.payloads >= sizes)).size:
                row = int(beyond[0])
                raise InputFileError(
                    trace.path,
                    trace.lines[row],
                    f"there is no payload {trace.payloads[row]} of {self.models[owners[row]]}, which has "
                    f"{sizes[row]} (from 0)",
                )
        return self._mix.chosen(owners, trace.payloads, seed=seed)

    def marked(self, record: Record, choices: NDArray[np.int32]) -> Record:
        """The record with the model of each request, and with how long each sequence is."""
        choices = choices[: len(record)]
        if len(self.models) > 1:
            record = replace(record, model=self._mix.owners_of(choices))
        return self.sequences.marked(record, choices) if self.sequences else record

    @property
    def sizes(self) -> dict[str, Sizes]:
        """The sizes of each model's payloads; known after `check`."""
        return {model: Sizes.of(sizes) for model, sizes in zip(self.models, self._sizes, strict=True)}

    def latencies_by_size(self, record: Record, choices: NDArray[np.int32]) -> tuple[SizePoint, ...]:
        """Of a record in which each request carried the payload that `choices` numbers; of models that stream nothing,
        whose answers take as long as they are."""
        chosen = choices[: len(record)][record.attempted]
        owners, sizes = self._mix.owners_of(chosen), np.concatenate(self._sizes)[chosen]
        latencies_ms = record.latencies_ms()
        found: tuple[SizePoint, ...] = ()
        for number, (model, pool) in enumerate(self.sizes.items()):
            own = owners == number
            if not record.parts[record.attempted][own].any():
                found += by_size(model, latencies_ms[own], sizes[own], pool)
        return found

    def described(self) -> dict[str, Any]:
        """What results record of the requests; known after `check`."""
        pool, own = self.pool, ((model, self.payloads_of(model)) for model in self.models)
        sequences = {
            model: self.sequences.described(*places)
            for model, places in own
            if self.sequences and self.sequences.intervals_s[places[0]]
        }
        sources = [share.source or "given" if share.payloads else _MADE for share in self._shares]
        return {
            "payloads": len(pool),
            "payload_bytes_mean": sum(map(len, pool)) / len(pool),
            "payloads_sha256": digest(pool),
            "payload_source": "; ".join([*dict.fromkeys(sources), *self.assumed]),
            "inputs": {share.name: str(share.file) for share in self._shares if share.file},
            "payload_sizes": {model: asdict(sizes) for model, sizes in self.sizes.items()},
            **({"sequences": sequences} if sequences else {}),
            "mix": {model: float(weight) for model, weight in zip(self.models, self.weights, strict=True)},
        }

    def step_shares(self, record: Record) -> dict[str, float]:
        """Which part of a marked record's requests each model of the server works for; a shared step works for all its
        pipelines."""
        requests = np.maximum(record.requests, 1)[record.attempted]
        asked = np.bincount(record.model[record.attempted], requests, len(self.models)) / max(requests.sum(), 1)
        shares: dict[str, float] = {}
        for target, share in zip(self.targets, asked.tolist(), strict=True):
            for step in target.steps:
                shares[step] = shares.get(step, 0.0) + share
        return shares

    def configs(self) -> list[Any]:
        """The ModelConfig of each model and of its steps; empty where the server does not offer it."""
        config_of = self.targets[0].config
        models = dict.fromkeys(share.model for share in self._shares)
        asked = dict.fromkeys(name for model in models for name in (model, *composing_models(model, config_of)))
        return [config for config in map(config_of, asked) if config is not None]

    def statistics(self) -> list[Any]:
        """A snapshot for `server_stats.difference`; a step that two pipelines share is in it once."""
        found = {(stats.name, stats.version): stats for target in self.targets for stats in target.statistics()}
        return list(found.values())


def _prioritised(payloads: Sequence[Payload], priority: int) -> list[Payload]:
    """The requests with their priority behind them: protobuf reads two messages in a row as one."""
    if not priority:
        return list(payloads)
    from tritonclient.grpc import service_pb2

    behind: Any = service_pb2.ModelInferRequest()
    behind.parameters["priority"].int64_param = priority
    mark = behind.SerializeToString()
    return [
        payload + mark if isinstance(payload, bytes) else tuple(request + mark for request in payload)
        for payload in payloads
    ]
