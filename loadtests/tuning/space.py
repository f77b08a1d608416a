"""The space of `fathom tune`: the knobs of each step with their values, and the configurations that they span.

A knob is a field of `config.pbtxt` or one of its parameters. `default_space` derives the values from the machine and
the graph; `--space FILE.toml` names them instead.
"""

from __future__ import annotations

import itertools
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from loadtests.errors import BadRequestError

Value = int | float | str

INSTANCES, MAX_BATCH, PREFERRED, DELAY = "instances", "max_batch", "preferred", "delay_ms"
POLICY, INTRA, INTER, ROWS = "queue_policy", "intra_threads", "inter_threads", "rows_per_run"
ACCELERATOR, GRAPHS = "accelerator", "cuda_graphs"
KNOBS = (INSTANCES, MAX_BATCH, PREFERRED, DELAY, POLICY, INTRA, INTER, ROWS, ACCELERATOR, GRAPHS)
"""Knobs of Triton and ONNX Runtime; any other one is a parameter of a python step."""
BOUNDED, NONE = "bounded", "none"
"""Values of `queue_policy`: the committed one, or no bound at all."""
OFF, AUTO = "off", "auto"
"""Values of `rows_per_run` besides a number."""

_DELAYS_MS = (0, 2)
_ROWS = (AUTO, 1, 4, OFF)
_STEP_PARAMETERS: Mapping[str, tuple[Value, ...]] = {"pad_to_multiple_of": (8, 16, 32)}
"""Parameters of the project's python steps that decide how fast the steps behind them are."""
_MEMORY_SHARE = 0.5
"""Of the machine's memory that all instances of a step may take."""
_MEMORY_PER_WEIGHTS = 2.5
"""Memory of an ONNX Runtime session, as a multiple of its weights."""


@dataclass(frozen=True)
class Machine:
    """Where it is served."""

    cores: int
    memory_mib: float
    gpus: int = 0


@dataclass(frozen=True)
class Step:
    """One model of the pipeline as it is committed."""

    model: str
    backend: str
    committed: Mapping[str, Value]
    """The value of each knob that it has."""
    on_gpu: bool = False
    largest_batch: int | None = None
    """The graph's; None where its batch axis is open."""
    weights_mib: float = 0.0
    fixed_sizes: bool = True
    """Whether all inputs have fixed sizes besides the batch."""


@dataclass(frozen=True)
class Dimension:
    """One knob of one step."""

    model: str
    knob: str
    values: tuple[Value, ...]
    committed: Value

    @property
    def name(self) -> str:
        return f"{self.model}.{self.knob}"


@dataclass(frozen=True)
class Configuration:
    """What differs from the committed configuration: (model, knob, value), sorted; nothing for the committed one."""

    changes: tuple[tuple[str, str, Value], ...] = ()

    def with_value(self, dimension: Dimension, value: Value) -> Configuration:
        """The configuration with another value of one knob."""
        kept = [change for change in self.changes if change[:2] != (dimension.model, dimension.knob)]
        own = [] if value == dimension.committed else [(dimension.model, dimension.knob, value)]
        return Configuration(tuple(sorted([*kept, *own], key=lambda change: change[:2])))

    def of(self, step: Step) -> dict[str, Value]:
        """Every knob of a step."""
        return {**step.committed, **{knob: value for model, knob, value in self.changes if model == step.model}}

    def models(self) -> dict[str, dict[str, Value]]:
        """The changes of each model that has any."""
        found: dict[str, dict[str, Value]] = {}
        for model, knob, value in self.changes:
            found.setdefault(model, {})[knob] = value
        return found

    def __str__(self) -> str:
        if not self.changes:
            return "committed"
        return "; ".join(
            f"{model} {', '.join(f'{knob}={value}' for knob, value in knobs.items())}"
            for model, knobs in self.models().items()
        )

    def to_json(self) -> dict[str, dict[str, Value]]:
        return self.models()

    @classmethod
    def from_json(cls, document: Mapping[str, Mapping[str, Value]]) -> Configuration:
        return cls(
            tuple(sorted((model, knob, value) for model, knobs in document.items() for knob, value in knobs.items()))
        )


COMMITTED = Configuration()


@dataclass(frozen=True)
class Space:
    """All configurations of the steps' dimensions that fit the machine."""

    steps: tuple[Step, ...]
    dimensions: tuple[Dimension, ...]
    machine: Machine
    left_out: tuple[tuple[str, str], ...] = ()
    """What is not tried, and why."""

    def step(self, model: str) -> Step:
        """The step of that name."""
        return next(step for step in self.steps if step.model == model)

    def vary(self, model: str, base: Configuration = COMMITTED) -> Iterator[Configuration]:
        """`base` with each combination of one step's values."""
        own = [dimension for dimension in self.dimensions if dimension.model == model]
        for values in itertools.product(*(dimension.values for dimension in own)):
            found = base
            for dimension, value in zip(own, values, strict=True):
                found = found.with_value(dimension, value)
            if found == base or self._fits(self.step(model), found):
                yield found

    def all(self) -> Iterator[Configuration]:
        """Every configuration, the committed one among them."""
        found: list[Configuration] = [COMMITTED]
        for step in self.steps:
            found = [each for base in found for each in self.vary(step.model, base)]
        return iter(dict.fromkeys([COMMITTED, *found]))

    def __len__(self) -> int:
        return sum(1 for _ in self.all())

    def _fits(self, step: Step, configuration: Configuration) -> bool:
        knobs = configuration.of(step)
        if int(knobs.get(PREFERRED, 0)) > int(knobs.get(MAX_BATCH, 0)):
            return False
        if knobs == dict(step.committed) or step.on_gpu:
            return True
        threads = int(knobs.get(INSTANCES, 1)) * int(knobs.get(INTRA, 1))
        return INTRA not in knobs or threads <= self.machine.cores


def default_space(steps: Sequence[Step], machine: Machine) -> Space:
    """The values that this machine and these models leave room for. Raises BadRequestError for a space of one point."""
    dimensions: list[Dimension] = []
    left_out: list[tuple[str, str]] = []
    for step in steps:
        for knob, values in _values(step, machine, left_out).items():
            committed = step.committed[knob]
            dimensions.append(Dimension(step.model, knob, tuple(dict.fromkeys((committed, *values))), committed))
    return _checked(Space(tuple(steps), tuple(dimensions), machine, tuple(left_out)))


def _values(step: Step, machine: Machine, left_out: list[tuple[str, str]]) -> dict[str, Sequence[Value]]:
    most = _most_instances(step, machine, left_out)
    found: dict[str, Sequence[Value]] = {INSTANCES: range(1, most + 1) if most <= 4 else _powers(most)}
    if PREFERRED in step.committed:
        batch = int(step.committed[MAX_BATCH])
        found[PREFERRED] = (0, *(size for size in _powers(min(batch - 1, step.largest_batch or batch)) if size > 1))
        found[DELAY] = _DELAYS_MS
        if step.committed[POLICY] == BOUNDED:
            found[POLICY] = (BOUNDED, NONE)
        left_out.append((f"{step.model}.{MAX_BATCH}", "a smaller one refuses requests that clients may send today; "
                         "preferred sizes bound the batch as well. Name it in --space to try it"))  # fmt: skip
    if INTRA in step.committed and not step.on_gpu:
        found[INTRA] = _powers(machine.cores)
        left_out.append((f"{step.model}.{INTER}", "graphs run node after node, so more inter-op threads stay idle; "
                         "name it in --space to try it"))  # fmt: skip
    if ROWS in step.committed:
        found[ROWS] = _ROWS if step.fixed_sizes else (OFF, 1, 4)
    if step.on_gpu and GRAPHS in step.committed:
        found[GRAPHS] = ("off", "on")
    if step.on_gpu and ACCELERATOR in step.committed:
        found[ACCELERATOR] = ("cuda", "tensorrt")
    for knob, values in _STEP_PARAMETERS.items():
        if knob in step.committed:
            found[knob] = values
    return found


def _most_instances(step: Step, machine: Machine, left_out: list[tuple[str, str]]) -> int:
    most = 4 * max(machine.gpus, 1) if step.on_gpu else max(machine.cores, 2)
    fitting = int(_MEMORY_SHARE * machine.memory_mib / max(_MEMORY_PER_WEIGHTS * step.weights_mib, 1.0))
    if fitting < most:
        left_out.append(
            (f"{step.model}.{INSTANCES}", f"more than {max(fitting, 1)} would take over half of the memory")
        )
    return max(min(most, fitting), 1)


def _powers(most: int) -> tuple[int, ...]:
    """1, 2, 4, ... up to `most`."""
    return tuple(1 << power for power in range(max(most, 1).bit_length()))


def read_space(text: str, steps: Sequence[Step], machine: Machine, source: str) -> Space:
    """The space that a TOML file names: a table for each model, in it a list of values for each knob. What it does not
    name keeps its committed value.

    Raises BadRequestError, with the name of the file (`source`), for what the models or the graph do not have.
    """
    try:
        document: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadRequestError(f"{source} is not TOML: {error}", field="space") from None
    known = {step.model: step for step in steps}
    dimensions = []
    for model, knobs in document.items():
        if model not in known:
            raise BadRequestError(f"{source}: '{model}' is not a step; there are {', '.join(known)}", field="space")
        if not isinstance(knobs, dict):
            raise BadRequestError(f"{source}: write [{model}] and below it knob = [values]", field="space")
        for knob, values in knobs.items():
            dimensions.append(_named(known[model], knob, values, source))
    return _checked(Space(tuple(steps), tuple(dimensions), machine))


def _named(step: Step, knob: str, values: Any, source: str) -> Dimension:
    where = f"{source}: {step.model}.{knob}"
    if knob not in step.committed:
        raise BadRequestError(f"{where} is not a knob of this step; it has {', '.join(step.committed)}", field="space")
    committed = step.committed[knob]
    if not (isinstance(values, list) and values and all(type(value) in (int, float, str) for value in values)):
        raise BadRequestError(f"{where} is {values!r}, not a list of values such as [{committed!r}]", field="space")
    for value in values:
        _check(step, knob, value, where)
    return Dimension(step.model, knob, tuple(dict.fromkeys((committed, *values))), committed)


def _check(step: Step, knob: str, value: Value, where: str) -> None:
    """Raises BadRequestError for a value that no server would load."""
    words = {POLICY: (BOUNDED, NONE), ROWS: (AUTO, OFF), GRAPHS: ("on", "off"), ACCELERATOR: ("cuda", "tensorrt")}
    least = 0 if knob in (PREFERRED, DELAY) else 1
    if isinstance(value, str):
        allowed = words.get(knob, ())
        if knob in KNOBS and value not in allowed:
            raise BadRequestError(
                f"{where} cannot be {value!r}; it takes {' or '.join(allowed) or 'numbers'}", field="space"
            )
        return
    if knob in (POLICY, GRAPHS, ACCELERATOR):
        raise BadRequestError(f"{where} cannot be {value}; it takes {' or '.join(words[knob])}", field="space")
    if not value >= least or (knob in KNOBS and knob != DELAY and value != int(value)):
        raise BadRequestError(f"{where} cannot be {value}; it takes whole numbers from {least}", field="space")
    largest = step.largest_batch
    if knob in (MAX_BATCH, PREFERRED) and largest is not None and value > largest:
        raise BadRequestError(f"{where} is {value}, and the graph takes batches of at most {largest}", field="space")
    if knob == PREFERRED and value > int(step.committed[MAX_BATCH]):
        raise BadRequestError(f"{where} is {value}, more than its max_batch {step.committed[MAX_BATCH]}", field="space")


def _checked(space: Space) -> Space:
    if all(len(dimension.values) < 2 for dimension in space.dimensions):
        raise BadRequestError(
            "the space has one point, the committed configuration, and nothing to compare it with: name a knob with "
            "two values in --space",
            field="space",
        )
    return space
