"""Build a TensorRT engine from an ONNX file, with one code path for TensorRT 10.13 and newer and for 11.

The network is strongly typed: every precision is what the ONNX graph says. Python has no other way in 11, and a flag
that asked for FP16 would be ignored there without a word.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export.engine import cache as engine_cache
from export.engine import library
from export.engine import progress as engine_progress
from export.engine.options import EngineOptions, configure
from export.engine.profiles import Profile
from export.errors import EngineError
from export.recipe.recipe import Progress, no_progress

if TYPE_CHECKING:
    import tensorrt as trt

SHOWN_ERRORS = 3


@dataclass(frozen=True)
class BuiltEngine:
    """What a build made: the plan's size in bytes, the seconds it took, and TensorRT's warnings."""

    plan_bytes: int
    seconds: float
    warnings: tuple[str, ...]


def build(
    trt: Any,
    onnx: Path,
    plan: Path,
    profiles: Sequence[Profile],
    options: EngineOptions,
    *,
    timing_cache: Path | None = None,
    on_progress: Progress = no_progress,
) -> BuiltEngine:
    """Build `plan` from `onnx` (external data is found beside it) with the module `tensorrt` given as `trt`.

    Raises EngineError for a graph that TensorRT cannot take, a profile it refuses or a build that fails, with
    TensorRT's reasons; EngineUnavailableError where it has no builder. An interrupt cancels the build and is raised
    again; no plan is written then.
    """
    began = time.monotonic()
    messages = library.Messages()
    log = library.logger(trt, messages)
    watching = engine_progress.monitor(trt)

    def work() -> Any:
        builder = library.new_builder(trt, log, messages)
        network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        parser = trt.OnnxParser(network, log)
        if not parser.parse_from_file(str(onnx)):
            raise EngineError(
                f"TensorRT {trt.__version__} cannot take {onnx.name}: {_parser_errors(parser, messages)}",
                file=onnx.name,
            )
        config = builder.create_builder_config()
        configure(trt, config, options)
        add_profiles(builder, network, config, profiles)
        config.progress_monitor = watching
        cache = engine_cache.attach(config, timing_cache) if timing_cache else None
        serialized = builder.build_serialized_network(network, config)
        if cache is not None and timing_cache is not None and serialized is not None:
            engine_cache.store(cache, timing_cache)
        return serialized

    serialized = engine_progress.run(work, watching, on_progress)
    if serialized is None:
        raise EngineError(
            f"TensorRT {trt.__version__} built no engine from {onnx.name}{messages.reasons}",
            remedy="give it more workspace, or serve the ONNX model",
            file=onnx.name,
        )
    with plan.open("wb") as file:
        file.write(serialized)
    return BuiltEngine(plan.stat().st_size, round(time.monotonic() - began, 1), tuple(messages.warnings))


def add_profiles(
    builder: trt.Builder,
    network: trt.INetworkDefinition,
    config: trt.IBuilderConfig,
    profiles: Sequence[Profile],
) -> None:
    """Give the configuration every profile, each with the shapes of every input that has an open axis.

    Raises EngineError for an open input that the profile does not name, or a profile that TensorRT refuses.
    """
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    shapes_of = {tensor.name: tuple(tensor.shape) for tensor in inputs}
    open_shapes = {name: shape for name, shape in shapes_of.items() if -1 in shape}
    if not open_shapes:
        return
    for number, profile in enumerate(profiles):
        made = builder.create_optimization_profile()
        for name, shape in open_shapes.items():
            shapes = profile.shapes.get(name)
            if shapes is None or len(shapes.optimum) != len(shape):
                found = "nothing" if shapes is None else list(shapes.optimum)
                raise EngineError(
                    f"input '{name}' is {list(shape)} in the graph, profile {number} has {found} for it",
                    remedy="make config.pbtxt and the graph agree (`fathom check`)",
                    tensor=name,
                    found=None if shapes is None else list(shapes.optimum),
                    expected=list(shape),
                )
            made.set_shape(name, shapes.minimum, shapes.optimum, shapes.maximum)
        if not made or config.add_optimization_profile(made) < 0:
            raise EngineError(
                f"TensorRT refused profile {number}, {profile.to_json()}",
                remedy="check the recipe's axis_ranges",
                field="axis_ranges",
                found=number,
            )


def _parser_errors(parser: trt.OnnxParser, messages: library.Messages) -> str:
    """The parser's errors as sentences, each with its node and operator; what the logger kept if it has none."""
    sentences = []
    for index in range(min(parser.num_errors, SHOWN_ERRORS)):
        error = parser.get_error(index)
        node, operator = error.node_name(), error.node_operator()
        where = f"node '{node}' ({operator}): " if operator else ""
        sentences.append(f"{where}{' '.join(error.desc().split())}")
    more = parser.num_errors - len(sentences)
    if more > 0:
        sentences.append(f"and {more} more")
    return "; ".join(sentences) or messages.reasons.removeprefix(": ") or "the parser gives no reason"
