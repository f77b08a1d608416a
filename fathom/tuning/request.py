"""The request for a tuning run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fathom.tuning.models import TunedModel
from loadtests.capacity import CapacityRequest
from loadtests.tuning.objective import Objective
from loadtests.tuning.space import Space


@dataclass(frozen=True)
class TuneRequest:
    """What to tune, for how long, and where the results go."""

    tuned: TunedModel
    space: Space
    objective: Objective
    objective_text: str
    capacity: CapacityRequest
    """How to measure: model, SLOs, seed, generators. The server and the payloads are those of each configuration."""
    folder: Path
    tritonserver: Path | None = None
    inputs: Sequence[str] = ()
    """As of `--inputs`."""

    def identity(self) -> dict[str, Any]:
        """What must be the same for a run to go on."""
        return {
            "model": self.tuned.model,
            "slos": [str(slo) for slo in self.capacity.slos],
            "objective": self.objective_text,
            "seed": self.capacity.seed,
            "budget_s": self.capacity.budget_s,
            "inputs": list(self.inputs),
            "space": [[each.name, list(each.values)] for each in self.space.dimensions],
            "committed": {step.model: dict(step.committed) for step in self.space.steps},
        }
