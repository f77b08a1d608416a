"""Optimization profiles: the shapes a TensorRT engine is built for, derived from config.pbtxt and the recipe.

An engine refuses any shape outside its profile, and its kernels are chosen for the optimum, so both come from what
the server will really send: the batch axis from max_batch_size and preferred_batch_size, every other open axis from
the recipe.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from export.errors import EngineError
from export.recipe.recipe import Axes, AxisRange

UNSERVED_TYPES = ("TYPE_STRING", "TYPE_FP64", "TYPE_UINT16", "TYPE_UINT32", "TYPE_UINT64", "TYPE_INT16")
"""Triton types that no TensorRT tensor has."""


@dataclass(frozen=True)
class Shapes:
    """An input's smallest, optimal and largest whole shape."""

    minimum: tuple[int, ...]
    optimum: tuple[int, ...]
    maximum: tuple[int, ...]


@dataclass(frozen=True)
class Profile:
    """One optimization profile: the shapes of every input of config.pbtxt."""

    shapes: Mapping[str, Shapes]

    def takes(self, given: Mapping[str, Sequence[int]]) -> bool:
        """Whether whole shapes by input, those named at least, lie between the smallest and the largest."""
        for name, shape in given.items():
            low, high = self.shapes[name].minimum, self.shapes[name].maximum
            if len(shape) != len(low) or not all(a <= n <= b for a, n, b in zip(low, shape, high, strict=True)):
                return False
        return True

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary, for the engine's record and `--json`."""
        return {name: asdict(shapes) for name, shapes in self.shapes.items()}


def profiles(message: Any, axes: Axes, *, tuned_batch: int | None = None) -> list[Profile]:
    """The profiles of a parsed `inference.ModelConfig`, profile 0 first.

    The batch axis has min 1, max max_batch_size and as optimum `tuned_batch`, else the largest preferred_batch_size,
    else max_batch_size. Where instance_group lists several profiles, each takes every batch and the i-th is optimal
    for the i-th preferred_batch_size and the i-th range of an axis. Raises EngineError, naming the input and the
    axis, for an open axis without a range, for a range that config.pbtxt has no open axis for, and for a type that
    TensorRT has no tensor for.
    """
    _check_types(message)
    _check_axes(message, axes)
    count = _count(message)
    optima = _optimal_batches(message, count, tuned_batch)
    return [
        Profile({tensor.name: _shapes(message, tensor, axes, index, optima[index]) for tensor in message.input})
        for index in range(count)
    ]


def profile_names(message: Any) -> list[str]:
    """The profiles that the instance groups list, in order and without repetition."""
    return list(dict.fromkeys(name for group in message.instance_group for name in group.profile))


def whole_dims(message: Any, tensor: Any) -> tuple[int, ...]:
    """A tensor's dims as the graph has them: with the batch axis (-1) where the model batches, `reshape` applied."""
    dims = tuple(tensor.reshape.shape if tensor.HasField("reshape") else tensor.dims)
    return (-1, *dims) if message.max_batch_size > 0 else dims


def _count(message: Any) -> int:
    """How many profiles the instance groups need: one more than the highest index they list."""
    names = profile_names(message)
    for name in names:
        if not name.isdecimal():
            raise EngineError(
                f"instance_group lists the profile '{name}'",
                remedy='write an index such as "0"',
                field="instance_group.profile",
                found=name,
            )
    return max((int(name) for name in names), default=0) + 1


def _optimal_batches(message: Any, count: int, tuned_batch: int | None) -> list[int]:
    largest = message.max_batch_size
    if largest <= 0:
        return [0] * count
    if tuned_batch is not None and not 1 <= tuned_batch <= largest:
        raise EngineError(
            f"the tuned batch is {tuned_batch}, max_batch_size is {largest}",
            remedy=f"name one in 1 to {largest}",
            field="tuned_batch",
            found=tuned_batch,
            expected=largest,
        )
    preferred = list(message.dynamic_batching.preferred_batch_size)
    if count > 1 and len(preferred) == count:
        return preferred
    if count > 1 and len(preferred) > 1:
        raise EngineError(
            f"instance_group lists {count} profiles, preferred_batch_size has {len(preferred)} entries",
            remedy="write one batch size per profile, or one for all",
            field="dynamic_batching.preferred_batch_size",
            found=len(preferred),
            expected=count,
        )
    return [tuned_batch or max(preferred, default=largest)] * count


def _shapes(message: Any, tensor: Any, axes: Axes, index: int, optimal_batch: int) -> Shapes:
    ranges = []
    for axis, size in enumerate(whole_dims(message, tensor)):
        if axis == 0 and message.max_batch_size > 0:
            ranges.append(AxisRange(1, optimal_batch, message.max_batch_size))
        elif size == -1:
            ranges.append(_range(message, tensor.name, axis, axes, index))
        else:
            ranges.append(AxisRange(size, size, size))
    return Shapes(
        tuple(each.minimum for each in ranges),
        tuple(each.optimum for each in ranges),
        tuple(each.maximum for each in ranges),
    )


def _range(message: Any, name: str, axis: int, axes: Axes, index: int) -> AxisRange:
    given = axes.get(name, {}).get(axis, ())
    if not given:
        batch = " (axis 0 is the batch)" if message.max_batch_size > 0 else ""
        raise EngineError(
            f"axis {axis} of input '{name}' is open{batch} and has no range",
            remedy=f"give the recipe axis_ranges = {{'{name}': {{{axis}: (AxisRange(min, opt, max),)}}}}",
            field="axis_ranges",
            tensor=name,
            found=0,
            expected=1,
        )
    if len(given) == 1:
        return given[0]
    count = _count(message)
    if len(given) != count:
        raise EngineError(
            f"axis {axis} of input '{name}' has {len(given)} ranges for {count} profiles",
            remedy="give one, or one for each, and list the profiles in instance_group",
            field="axis_ranges",
            tensor=name,
            found=len(given),
            expected=count,
        )
    return given[index]


def _check_axes(message: Any, axes: Axes) -> None:
    open_axes = {
        tensor.name: {axis for axis, size in enumerate(whole_dims(message, tensor)) if size == -1}
        for tensor in message.input
    }
    batch = {0} if message.max_batch_size > 0 else set()
    for name, ranges in axes.items():
        if name not in open_axes:
            raise EngineError(
                f"axis_ranges names the input '{name}', config.pbtxt has {sorted(open_axes)}",
                field="axis_ranges",
                tensor=name,
                expected=sorted(open_axes),
            )
        for axis in sorted(ranges.keys() & batch):
            raise EngineError(
                f"axis_ranges gives axis {axis} of '{name}' a range: the batch comes from max_batch_size",
                field="max_batch_size",
                tensor=name,
            )


def _check_types(message: Any) -> None:
    from tritonclient.grpc import model_config_pb2

    for tensor in (*message.input, *message.output):
        kind = model_config_pb2.DataType.Name(tensor.data_type)
        if kind in UNSERVED_TYPES:
            raise EngineError(
                f"'{tensor.name}' is {kind}, which TensorRT has no tensor for",
                remedy="serve the ONNX model",
                field="data_type",
                tensor=tensor.name,
                found=kind,
            )
    for tensor in message.input:
        if tensor.is_shape_tensor:
            raise EngineError(
                f"input '{tensor.name}' is a shape tensor, for which no profile is derived",
                remedy="use trtexec",
                field="is_shape_tensor",
                tensor=tensor.name,
            )
