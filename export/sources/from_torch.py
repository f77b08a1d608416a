"""Import a torch module that a person's function returns."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np

from export.errors import ExportError, RecipeError
from export.graph.edit import BATCH, inputs, shape
from export.graph.interface import rename_outputs
from export.graph.labels import Labels
from export.graph.onnx_file import reason
from export.recipe.recipe import Array, Arrays
from export.sources import torch_outputs, user_code
from export.sources.base import ImportedModel

Axes = Mapping[str, Mapping[int, str]]
WANTED = (
    "return (module, example), where example is a tensor, a tuple of tensors or {input: tensor}, each with the batch "
    "axis in front"
)


def load(source: str, home: Path) -> ImportedModel:
    """Call the function and take what it returns: (module, example) or (module, example, {input: {axis: symbol}}).

    The third value opens further axes, such as {"input_ids": {1: "tokens"}}; the first is opened in any case.
    """
    import torch

    made = user_code.call(source, home, "--torch")
    module, example, axes = (*made, {})[:3] if isinstance(made, tuple) and len(made) in (2, 3) else (made, None, {})
    if not isinstance(module, torch.nn.Module):
        raise RecipeError(f"{source} returned a {type(module).__name__}, not a torch module", remedy=WANTED)
    if isinstance(module, torch.jit.ScriptModule):
        raise RecipeError(
            f"{source} returned a TorchScript module, which torch's ONNX exporter does not take",
            remedy="return the nn.Module that it was made from",
        )
    if example is None:
        example = getattr(module, "example_input_array", None)  # Lightning's name for it
    if example is None:
        raise RecipeError(f"{source} returned a module without an example of its input", remedy=WANTED)
    notes = ("the module was in training mode: it is exported in evaluation mode",) if module.training else ()
    named = _named(module, example, source)
    if left_out := _left_out(module, named):
        notes = (
            *notes,
            f"forward() also takes {', '.join(left_out)}: no example gives a value, so the default is served",
        )
    if not isinstance(axes, Mapping) or not all(isinstance(each, Mapping) for each in axes.values()):
        raise RecipeError(
            f"{source} returned {axes!r} as the axes to open", remedy="write them as {input: {axis: symbol}}"
        )
    if unknown := [name for name in axes if name not in named]:
        raise RecipeError(f"{source} opens axes of '{unknown[0]}', and the example has {', '.join(named)}")
    traced = Traced(module.eval(), named, axes, call=_by_name)
    return traced.imported(f"torch module of '{source}'", notes=notes)


@dataclass(frozen=True)
class Traced:
    """A torch module with named example tensors (the batch in front) and the axes that may vary beside the batch.

    `example_name` is what an error calls the example.
    """

    module: Any
    example: Mapping[str, Any]
    axes: Axes
    call: Any
    example_name: str = "its example"

    def imported(
        self,
        description: str,
        *,
        notes: tuple[str, ...] = (),
        sizes: Mapping[str, int] | None = None,
        longest: Mapping[str, int] | None = None,
        labels: Labels | None = None,
        made_up: bool = False,
    ) -> ImportedModel:
        """The module as an imported model. With `made_up`, only the example's shapes are meaningful."""
        example = {name: _array(name, tensor) for name, tensor in self.example.items()}
        chosen = None if made_up else example
        if others := torch_outputs.others(self._answer(self._row())):
            notes = (*notes, f"what the module returns beside its tensors is not served: {', '.join(others)}")
        return ImportedModel(
            description, self.predict, self.raw, chosen, sizes or {}, longest or {}, notes, labels or {}
        )

    def predict(self, arrays: Arrays) -> dict[str, Array]:
        """The module's outputs by name."""
        import torch

        tensors = {name: torch.from_numpy(np.ascontiguousarray(arrays[name])) for name in self.example}
        with torch.inference_mode():
            return {
                name: tensor.numpy() for name, tensor in torch_outputs.named(self.call(self.module, tensors)).items()
            }

    def raw(self, room: Path) -> Path:
        """The ONNX file, with the batch axis open where torch can trace it so, else of one row."""
        import torch

        path = room / "source" / f"{type(self.module).__name__}.onnx"
        path.parent.mkdir(exist_ok=True)
        row = self._row()
        names = list(torch_outputs.named(self._answer(row)))
        if taken := row.keys() & set(names):
            raise RecipeError(
                f"{type(self.module).__name__} takes '{min(taken)}' and returns a tensor of that name, which no ONNX "
                "graph can",
                remedy="return it under another name",
            )
        pair = {name: torch.cat([tensor, tensor]) for name, tensor in row.items()}  # torch takes 1 for a constant
        try:
            several = list(torch_outputs.named(self._answer(pair)))
        except RecipeError:  # the trace of one row is tried next
            several = names
        if several != names:
            raise RecipeError(
                f"{type(self.module).__name__} answers two rows with other tensors ({', '.join(several)}) than one row "
                f"({', '.join(names)}), and a graph always has the same",
                remedy="return tensors with the batch axis in front",
            )
        try:
            self._export(path, pair, {name: {0: BATCH, **self.axes.get(name, {})} for name in row}, names)
        except Exception as error:  # torch.export's kinds; a second try tells whether the batch was the trouble
            if any(self.axes.values()):
                raise _failed(error) from error
            try:
                self._export(path, row, {}, names)
            except Exception as again:
                raise _failed(again) from again
        return path

    def _row(self) -> dict[str, Any]:
        return {name: tensor[:1] for name, tensor in self.example.items()}

    def _answer(self, tensors: Mapping[str, Any]) -> Any:
        """Call the module. Raises RecipeError where it fails."""
        import torch

        try:
            with torch.inference_mode():
                return self.call(self.module, tensors)
        except RecipeError:
            raise
        except Exception as error:  # whatever the module's own code raises
            words = f"{type(error).__name__}: {reason(error)}"
            raise RecipeError(
                f"{type(self.module).__name__} does not answer one row of {self.example_name} ({words})",
                remedy="write a "
                "function that returns (module, example), which does, and add it with --torch package.module:function",
            ) from error

    def _export(self, path: Path, tensors: Mapping[str, Any], axes: Axes, names: Sequence[str]) -> None:
        import onnx
        import torch

        from export.graph.onnx_file import OPSET, quiet

        symbols = {symbol: torch.export.Dim(symbol) for each in axes.values() for symbol in each.values()}
        shapes = [{axis: symbols[symbol] for axis, symbol in axes.get(name, {}).items()} for name in tensors]
        plain = [f"fathom_output_{index}" for index in range(len(names))]
        # torch prints the whole graph to stderr where a trace fails on data
        with quiet(), redirect_stderr(StringIO()):
            program = torch.onnx.export(
                _adapter(self.module, list(tensors), self.call),
                tuple(tensors.values()),
                input_names=list(tensors),
                output_names=plain,
                dynamic_shapes=(tuple(shapes),),
                opset_version=OPSET,
                dynamo=True,
                external_data=False,
                verbose=False,
            )
            large = sum(tensor.numel() * tensor.element_size() for tensor in self.module.state_dict().values()) > 1.5e9
            program.save(str(path), external_data=large)
        model = onnx.load(str(path), load_external_data=False)
        for holder in (model, model.graph, *model.graph.node, *model.graph.input, *model.graph.output):
            del holder.metadata_props[:]  # stack traces with this machine's paths
            holder.doc_string = ""
        rename_outputs(model, dict(zip(plain, names, strict=True)))
        for value in inputs(model):
            for axis in axes.get(value.name, {}):
                if isinstance((shape(value) or (None,))[axis], int):
                    raise ExportError(f"the trace holds on to the size of axis {axis} of '{value.name}'")
        onnx.save(model, str(path))


def _by_name(module: Any, tensors: Mapping[str, Any]) -> Any:
    return module(**tensors)


def _adapter(module: Any, names: Sequence[str], call: Any) -> Any:
    """The module with its inputs in a row and its outputs in a tuple; made here because its base needs torch."""
    import torch

    class Adapter(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.module = module

        def forward(self, *tensors: Any) -> Any:
            return tuple(torch_outputs.named(call(self.module, dict(zip(names, tensors, strict=True)))).values())

    return Adapter().eval()


def _named(module: Any, example: Any, source: str) -> dict[str, Any]:
    """The example tensors by the name of the argument of forward() that takes them."""
    import torch

    if isinstance(example, Mapping):
        named = {str(name): value for name, value in example.items()}
    else:
        values = list(example) if isinstance(example, tuple | list) else [example]
        parameters = list(inspect.signature(module.forward).parameters)
        if len(values) > len(parameters):
            raise RecipeError(
                f"{source} returned {len(values)} example tensors, forward() takes {len(parameters)}", remedy=WANTED
            )
        named = dict(zip(parameters, values, strict=False))
    for name, value in named.items():
        if not isinstance(value, torch.Tensor) or value.ndim == 0:
            kind = "a scalar" if isinstance(value, torch.Tensor) else f"a {type(value).__name__}"
            raise RecipeError(f"{source} returned {kind} as the example of '{name}'", remedy=WANTED)
    lengths = {len(value) for value in named.values()}
    if len(lengths) != 1 or 0 in lengths:
        shapes = ", ".join(f"'{name}' {list(value.shape)}" for name, value in named.items())
        raise RecipeError(f"{source} returned examples whose first axes differ or are empty ({shapes})", remedy=WANTED)
    return named


def _left_out(module: Any, named: Mapping[str, Any]) -> list[str]:
    """The optional arguments of forward() that the example leaves out."""
    optional = inspect.signature(module.forward).parameters.values()
    return [
        f"'{each.name}' ({str(each.default)[:20]})"
        for each in optional
        if each.default is not each.empty and each.name not in named
    ]


def _array(name: str, tensor: Any) -> Array:
    try:
        return np.asarray(tensor.detach().cpu().numpy())
    except TypeError:
        raise RecipeError(
            f"the example of '{name}' is {tensor.dtype}, which numpy has no type for",
            remedy="let the module take float32 and cast inside",
        ) from None


def _failed(error: Exception) -> ExportError:
    """The error as one line; torch's own says little, and has what was wrong as its cause."""
    while error.__cause__ is not None and isinstance(error.__cause__, Exception):
        error = error.__cause__
    return ExportError(
        f"torch could not trace the module for ONNX ({type(error).__name__}: {reason(error)})",
        remedy="export it to ONNX yourself and add the file with --onnx",
    )
