"""The places of one request's tensors in shared memory."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from .datatypes import Array
from .shared_memory import Region


class Place(NamedTuple):
    """Where a tensor's bytes lie instead of in the message."""

    region: str
    byte_size: int
    offset: int = 0

    def refer(self, parameters: Any) -> None:
        """Tell the server, in the parameters of a tensor."""
        parameters["shared_memory_region"].string_param = self.region
        parameters["shared_memory_byte_size"].int64_param = self.byte_size
        parameters["shared_memory_offset"].int64_param = self.offset


@dataclass
class Placement:
    """The tensors of one request in shared memory: where the server reads inputs and writes outputs."""

    memory: Region
    inputs: dict[str, Place] = field(default_factory=dict)
    outputs: dict[str, Place] = field(default_factory=dict)

    def key(self) -> tuple[Any, ...]:
        """What a request says of it."""
        return (*self.inputs.items(), None, *self.outputs.items())

    def read(self, output: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Array:
        """A copy of an output that the server has written. Raises ValueError for one that cannot be there."""
        place = self.outputs[output]
        if dtype.itemsize * math.prod(shape) > place.byte_size:
            raise ValueError(f"output '{output}' is larger than the {place.byte_size} bytes set aside for it")
        return self.memory.read(place.offset, dtype, shape)
