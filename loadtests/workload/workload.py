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

from loadtests.errors import BadRequestError
from loadtests.records.point import SizePoint
from loadtests.records.record import Record
from loadtests.slo import Measure, Slo
from loadtests.target.access import Access
from loadtests.target.client import FROZEN_S, Target
from loadtests.target.parameters import Payload, marked, requests_in
from loadtests.target.priorities import check_priority
from loadtests.target.statistics import composing_models
from loadtests.workload.mix import ModelMix
from loadtests.workload.payloads import made_for
from loadtests.workload.schedule import Offsets
from loadtests.workload.sequences import Sequences, check_payloads, sequences_of
from loadtests.workload.sizes import Sizes, by_size, input_bytes
from loadtests.workload.trace import Trace, choices_of

logger = logging.getLogger("fathom")
_MADE = "made from the server's metadata"
_SHARE = re.compile(r"(?P<model>[^=\s]+?)(?:@(?P<priority>-?\d+))?(?:=(?P<weight>[^=]+))?")


MOST_PRIORITY = (1 << 32) - 1
"""The least urgent that Triton's API can carry."""


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
        priority = int(found["priority"]) if found["priority"] else 0
        if found["priority"] and not 1 <= priority <= MOST_PRIORITY:
            raise BadRequestError(
                f"workload {text!r} has priority {priority}: write 1, the most urgent, to {MOST_PRIORITY}",
                field="mix",
            )
        return cls(found["model"], weight, priority=priority)


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
            payloads = share.payloads or self._made(target)
            if share.priority:
                check_priority(target, share.priority)
            check_payloads(target, payloads)
            self._pools.append([marked(payload, target.streams, share.priority) for payload in payloads])
        given_s = [self._interval_s if self._interval_s is not None else share.interval_s for share in self._shares]
        self.sequences = sequences_of(self.targets, self._pools, given_s, strict=self._interval_s is not None)
        self._sizes = list(map(input_bytes, self._pools))
        self._mix = replace(self._mix, sizes=tuple(map(len, self._pools)))

    def refuse_sequences(self, instead: str) -> None:
        """BadRequestError where a model keeps state; for what sends single requests, `instead` of which to use another.

        Raises what `check` raises of the server.
        """
        for target in self.targets:
            target.check()
            if target.keeps_state:
                raise BadRequestError(
                    f"{target.model} keeps state between the requests of a sequence, and only single requests are sent "
                    f"here: use {instead}",
                    field="model",
                )

    def _made(self, target: Target) -> Sequence[Payload]:
        payloads, assumed = made_for(target, seed=self._seed)
        if assumed:
            self.assumed.append(assumed)
            logger.warning(assumed)
        return payloads

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
        """The choices for a recorded trace. Raises InputFileError."""
        return choices_of(trace, self.models, self._mix, seed=seed)

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
