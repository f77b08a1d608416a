"""ONNX files: written from a torch module, read for their signature, run in ONNX Runtime."""

from __future__ import annotations

import logging
import os
import re
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from export.errors import NotLoadedError
from export.graph import onnx_stream, runtime

OPSET = 20
"""Old enough for every supported Triton container and TensorRT, new enough for what torch emits."""

IR_VERSION = 10


def write_torch(
    module: Any, inputs: Mapping[str, Any], dynamic: Mapping[str, Mapping[int, str]], output: str, path: Path
) -> None:
    """Export a torch module to one ONNX file.

    `inputs` are example tensors by name, in the order of `forward`; `dynamic` names the axes that may vary, as
    {input: {axis: symbol}}. `output` is the name of the one output, which no inner value may have.
    """
    import onnx
    import torch

    symbols = {symbol: torch.export.Dim(symbol) for axes in dynamic.values() for symbol in axes.values()}
    shapes = {name: {axis: symbols[symbol] for axis, symbol in dynamic.get(name, {}).items()} for name in inputs}
    room = path.with_name(f"{path.name}.parts")
    room.mkdir()
    written = room / "graph.onnx"
    with quiet():
        program = torch.onnx.export(
            module,
            tuple(inputs.values()),
            input_names=list(inputs),
            output_names=[output],
            dynamic_shapes=tuple(shapes.values()),
            opset_version=OPSET,
            dynamo=True,
            external_data=True,
            verbose=False,
        )
        program.save(str(written), external_data=True)  # weight by weight, never the whole file in memory
        forget_weights(program)
        del program
    finish(onnx.load(str(written), load_external_data=False), room, path)
    shutil.rmtree(room)


def finish(model: Any, room: Path, path: Path) -> None:
    """Write a model whose large weights lie in files of `room`, cleaned and checked, as one file."""
    import onnx

    clean(model)
    checked = room / f"{path.name}.checked"
    onnx.save(model, str(checked))
    onnx.checker.check_model(str(checked))
    checked.unlink()
    onnx_stream.write(model, room, path)


def forget_weights(program: Any) -> None:
    """Take the weights out of a torch ONNXProgram that was saved and is needed no more.

    torch 2.13 does not free the graphs of its exporter: fx nodes refer to each other where Python's garbage collector
    does not look. What they hold, the weights among it, would stay until the process ends.
    """
    graph = program.model.graph
    for value in (*graph.initializers.values(), *getattr(graph.inputs, "_ref_counter", ())):
        value.const_value = None


def clean(model: Any) -> None:
    """Remove what does not belong to the model: stack traces with this machine's paths, doc strings, exporter notes."""
    graph = model.graph
    for holder in (model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        if hasattr(holder, "metadata_props"):
            del holder.metadata_props[:]
        holder.doc_string = ""
    for function in model.functions:
        for holder in (function, *function.node):
            del holder.metadata_props[:]
            holder.doc_string = ""
    model.ir_version = min(model.ir_version, IR_VERSION)


def session(
    model: Path | bytes, *, threads: int = 0, frugal: bool = False, limits: runtime.Limits | None = None
) -> runtime.Session:
    """An ONNX file, or the bytes of one, as a station in ONNX Runtime on the CPU; `threads` 0 takes all cores.

    A `frugal` one keeps no packed copies of the weights, no memory laid out for every shape of input that it has seen,
    and reduces each value as soon as it can. Raises NotLoadedError when ONNX Runtime does not load it, and LimitError.
    """
    try:
        return runtime.open_session(model, threads=threads, frugal=frugal, limits=limits)
    except RuntimeError as error:
        name = "the graph" if isinstance(model, bytes) else model.name
        words = re.sub(r"^.*Load model from .*? failed: *", "", " ".join(str(error).split()))  # its path is of scratch
        raise NotLoadedError(f"ONNX Runtime cannot load {name}: {words}", file=name) from error


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the warnings, log lines and progress bars of torch, transformers and skl2onnx from the terminal.

    Exceptions pass; they are how these libraries report what matters.
    """
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    bars = os.environ.get("TQDM_DISABLE")
    os.environ["TQDM_DISABLE"] = "1"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logging.disable(before)
            if bars is None:
                del os.environ["TQDM_DISABLE"]
            else:
                os.environ["TQDM_DISABLE"] = bars


def reason(error: Exception) -> str:
    """What a library's exception says, in at most one line."""
    if match := re.search(r"running (\w+) node\. Name:'([^']*)'", str(error)):
        return f"at the operator {match[1]}{f' {match[2]}' if match[2] else ''}"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:300]
