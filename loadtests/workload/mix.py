"""Which model and payload each request carries: pure functions of a seed.

A mix is one schedule: each request is of a model drawn from the seed, so two models meet at the server as they would in
service. All payloads lie in one pool, one model's after the other's, and each model's are used equally often.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadtests.errors import BadRequestError
from loadtests.workload.schedule import payload_choices

_STREAM = 4
MOST_MODELS = 255


@dataclass(frozen=True)
class ModelMix:
    """How many payloads each model has, and its weight relative to the others."""

    sizes: tuple[int, ...]
    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        if not 1 <= len(self.sizes) <= MOST_MODELS:
            raise BadRequestError(f"{len(self.sizes)} models in the workload: give 1 to {MOST_MODELS}", field="mix")

    @property
    def shares(self) -> NDArray[np.float64]:
        """Each model's share of all requests."""
        weights: NDArray[np.float64] = np.asarray(self.weights, np.float64)
        return np.asarray(weights / weights.sum())

    def choices(self, count: int, *, seed: int) -> NDArray[np.int32]:
        """The place in the pool of the payload that each of `count` requests carries."""
        if len(self.sizes) == 1:
            return payload_choices(count, self.sizes[0], seed=seed)
        return self.chosen(self.owners(count, seed=seed), None, seed=seed)

    def owners(self, count: int, *, seed: int) -> NDArray[Any]:
        """The number of the model that each of `count` requests asks."""
        return np.random.default_rng([seed, _STREAM]).choice(len(self.sizes), count, p=self.shares)

    def chosen(self, owners: NDArray[Any], numbers: NDArray[np.int32] | None, *, seed: int) -> NDArray[np.int32]:
        """The choices for these models; `numbers` says which of the model's payloads, where that is not drawn."""
        chosen = np.zeros(len(owners), np.int32)
        for model, (first, size) in enumerate(zip(self._firsts(), self.sizes, strict=True)):
            own = np.flatnonzero(owners == model)
            chosen[own] = first + (
                numbers[own] if numbers is not None else payload_choices(len(own), size, seed=seed + model)
            )
        return chosen

    def owners_of(self, choices: NDArray[np.int32]) -> NDArray[np.uint8]:
        """The models that these choices ask."""
        return (np.searchsorted(self._firsts(), choices, side="right") - 1).astype(np.uint8)

    def range_of(self, model: int) -> tuple[int, int]:
        """The places of a model's payloads in the pool: its first, and the one behind its last."""
        first = self._firsts()[model]
        return first, first + self.sizes[model]

    def _firsts(self) -> Sequence[int]:
        """Where each model's payloads begin in the pool."""
        return [sum(self.sizes[:model]) for model in range(len(self.sizes))]
