"""Validate what `fathom add` is given; each error gives the reason and a way out."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

from export.errors import ContractError, LimitError, RecipeError
from export.graph import external_data, onnx_stream, runtime, triton_releases
from export.graph.edit import nodes
from export.graph.signature import spec, versions

PICKLES = frozenset((".pkl", ".pickle", ".joblib", ".sav", ".pt", ".pth", ".ckpt", ".bin", ".dill"))
PROTOBUF_LIMIT = 2**31 - 1
LONGEST_NAME, MOST_AXES = 1000, 30
DOMAINS = frozenset(("", "ai.onnx", "ai.onnx.ml", "ai.onnx.training", "ai.onnx.preview.training", "com.microsoft"))
"""Operator domains that ONNX Runtime brings along."""


def check_no_pickle(path: Path, remedy: str) -> None:
    """Raise RecipeError for a file that only unpickling could read."""
    if not path.is_file():
        return
    with path.open("rb") as file:
        head = file.read(4)
    pickled = len(head) > 1 and head[0] == 0x80 and 2 <= head[1] <= 5  # PROTO, then the protocol's number
    zipped = head == b"PK\x03\x04" and _holds_pickle(path)
    if path.suffix.lower() in PICKLES or pickled or zipped:
        raise RecipeError(
            f"{path.name} is a pickle, and loading a pickle runs whatever code was put into it", remedy=remedy
        )


def read_onnx(path: Path) -> Any:
    """Read an ONNX file without its external tensors; outputs get a type where one can be inferred.

    Raises RecipeError for a file that is not an ONNX model.
    """
    import onnx

    if not path.exists():
        raise RecipeError(f"there is no file {path}", remedy="name the model's .onnx file")
    if path.is_dir():
        raise RecipeError(f"{path} is a folder", remedy="name the .onnx file in it, or a transformers folder with --hf")
    if not path.is_file():
        raise RecipeError(f"{path} is not a regular file", remedy="name the model's .onnx file")
    check_no_pickle(
        path,
        "convert it to ONNX where it is trusted, or write a function that loads it and name it with "
        "--torch or --sklearn package.module:function",
    )
    size = path.stat().st_size
    if size > PROTOBUF_LIMIT:
        raise RecipeError(
            f"{path.name} has {size / 1e9:.1f} GB, and protobuf reads no message over 2 GB",
            remedy="save it with onnx.save(model, path, save_as_external_data=True)",
        )
    try:
        onnx_stream.check_parts(path)
        model = onnx.load(str(path), load_external_data=False)
    except LimitError:
        raise
    except Exception as error:  # protobuf's decode errors differ by implementation
        raise RecipeError(
            f"{path.name} is not an ONNX file ({type(error).__name__})",
            remedy="name a file that onnx.save or torch.onnx.export wrote",
        ) from None
    if not model.ir_version or not model.opset_import:
        raise RecipeError(f"{path.name} is not an ONNX file: it names neither an IR version nor an opset")
    _infer_types(model)
    return model


def check_graph(model: Any, path: Path, triton_tag: str | None) -> None:
    """Raise ContractError for a graph that cannot be served."""
    if not model.graph.node:
        raise ContractError(f"{path.name} has no operators", remedy="export the model itself, not an empty graph")
    external_data.check(model, path)
    _operators(model, path)
    _tensors(model, path)
    if triton_tag and (sentence := triton_releases.obstacle(versions(model), triton_tag)):
        raise ContractError(f"{path.name} cannot be served: {sentence}")


def _operators(model: Any, path: Path) -> None:
    """Operators of a domain that neither ONNX Runtime nor the model itself defines."""
    own = {(function.domain, function.name) for function in model.functions}
    foreign = sorted(
        {
            f"{node.domain}.{node.op_type}"
            for node in nodes(model.graph)
            if node.domain not in DOMAINS and (node.domain, node.op_type) not in own
        }
    )
    if foreign:
        raise ContractError(
            f"{path.name} uses {', '.join(foreign)}, which ONNX Runtime does not have",
            remedy="export without custom operators, or replace them by standard ones",
        )


def _tensors(model: Any, path: Path) -> None:
    """Inputs and outputs that Triton has no type, no shape or no single name for."""
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    if not inputs:
        raise ContractError(
            f"{path.name} has no inputs, so there is nothing to ask it", remedy="export the model itself"
        )
    for kind, values in (("input", inputs), ("output", list(model.graph.output))):
        names = [value.name for value in values]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ContractError(f"{path.name} has two {kind}s named '{twice[0]}'", remedy="give each its own name")
        for value in values:
            if len(value.name) > LONGEST_NAME:
                raise ContractError(
                    f"an {kind} of {path.name} has a name of {len(value.name)} characters",
                    remedy=f"give it one of at most {LONGEST_NAME}",
                )
            if not _typed(value):
                raise ContractError(
                    f"{kind} '{value.name}' has no type",
                    remedy="declare it with onnx.helper.make_tensor_value_info(name, type, shape)",
                )
            data_type = spec(value).data_type
            if len(_axes(value)) > MOST_AXES:
                raise ContractError(
                    f"{kind} '{value.name}' has {len(_axes(value))} axes, and numpy has {MOST_AXES} beside the batch's",
                    remedy="reshape it in the graph",
                )
            if kind == "input" and not value.type.tensor_type.HasField("shape"):
                raise ContractError(
                    f"input '{value.name}' has no shape, not even a number of axes", remedy="export it with a shape"
                )
            if kind == "input" and any(dim.HasField("dim_value") and dim.dim_value == 0 for dim in _axes(value)):
                raise ContractError(
                    f"input '{value.name}' has an axis of size 0, so no request could hold a value",
                    remedy="export it with that axis open",
                )
            if data_type == "TYPE_BF16":
                raise ContractError(
                    f"{kind} '{value.name}' is BFLOAT16, which numpy has no type for and ONNX Runtime's backend does "
                    "not take",
                    remedy="cast it to FLOAT at the graph's edge",
                )
    if not model.graph.output:
        raise ContractError(f"{path.name} has no outputs", remedy="export the model itself")
    both = {value.name for value in inputs} & {value.name for value in model.graph.output}
    if both:
        raise ContractError(
            f"'{sorted(both)[0]}' is an input and an output of {path.name}", remedy="give each its own name"
        )


def _axes(value: Any) -> Any:
    return value.type.tensor_type.shape.dim


def _typed(value: Any) -> bool:
    return value.type.WhichOneof("value") is not None and (
        not value.type.HasField("tensor_type") or value.type.tensor_type.elem_type != 0
    )


def _infer_types(model: Any) -> None:
    """Give outputs that are only named, as inner values are when somebody adds them, the type that they must have."""
    bare = [value for value in model.graph.output if not _typed(value)]
    if not bare:
        return
    try:
        inferred = runtime.infer_shapes(model).graph
    except RuntimeError:  # the outputs then stay as they are
        return
    found = {value.name: value for value in (*inferred.value_info, *inferred.output) if _typed(value)}
    for value in bare:
        if value.name in found:
            value.CopyFrom(found[value.name])


def _holds_pickle(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith(".pkl") for name in archive.namelist())
    except zipfile.BadZipFile:
        return False
