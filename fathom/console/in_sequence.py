"""One whole sequence as one call: what a stateful model answers to every row, in order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from clients import Model
from clients.codec import Outputs


def in_sequence(model: Model, arrays: Mapping[str, Any], *, interval_s: float = 0.0) -> Outputs:
    """Send one request for each row of axis 0, and join the answers on axis 0; see `Sequence.each`."""
    with model.sequence() as ask:
        answers = list(ask.each(arrays, interval_s=interval_s))
    join = np.concatenate if model.spec.batched else np.stack
    return {name: join([answer[name] for answer in answers]) for name in answers[0]}
