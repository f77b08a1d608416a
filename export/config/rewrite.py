"""Edit the dims of a config.pbtxt, and nothing else, so that it fits another model's graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from export.config.config import Config
from export.config.contract import fits
from export.config.positions import Places
from export.errors import ContractError
from export.graph.signature import Signature


@dataclass(frozen=True)
class _Edit:
    field: str
    written: tuple[int, ...]
    wanted: tuple[int, ...]


def rewrite_dims(config: Config, signature: Signature) -> tuple[str, list[str]]:
    """The file's text with every dims that does not fit the graph replaced, and one line for a person per replacement.

    Covers inputs, outputs and the warm-up inputs. Everything else stays byte for byte. Raises ContractError for a
    different number of dims that is not written as one list.
    """
    edits = _edits(config, signature)
    text = config.text
    # From the end of the file to its beginning, so that earlier spans stay where they are.
    ordered = sorted(edits, key=lambda edit: config.places[f"{edit.field}[0]"].start, reverse=True)
    for edit in ordered:
        text = _replace(config, text, edit)
    notes = [f"{config.label}: {edit.field} {list(edit.written)} -> {list(edit.wanted)}" for edit in edits]
    return text, notes


def _edits(config: Config, signature: Signature) -> list[_Edit]:
    message = config.message
    batched = message.max_batch_size > 0
    graph = {spec.name: spec.dims[1:] if batched else spec.dims for spec in (*signature.inputs, *signature.outputs)}
    edits = []
    for kind, tensors in (("input", message.input), ("output", message.output)):
        for index, tensor in enumerate(tensors):
            if tensor.name in graph and not fits(tensor.dims, graph[tensor.name]):
                edits.append(_Edit(f"{kind}[{index}].dims", tuple(tensor.dims), graph[tensor.name]))
    for index, warmup in enumerate(message.model_warmup):
        for name, tensor in warmup.inputs.items():
            wanted = graph.get(name)
            if wanted is None or fits(tensor.dims, wanted):
                continue
            if -1 in wanted:
                raise ContractError(
                    f"{config.label}: the warm-up of '{name}' has dims {list(tensor.dims)}, the graph's are "
                    f"{list(wanted)}",
                    remedy="choose its dims by hand",
                    file=config.label,
                    field=f'model_warmup[{index}].inputs["{name}"].value.dims',
                    tensor=name,
                    found=list(tensor.dims),
                    expected=list(wanted),
                )
            edits.append(_Edit(f'model_warmup[{index}].inputs["{name}"].value.dims', tuple(tensor.dims), wanted))
    return edits


def _replace(config: Config, text: str, edit: _Edit) -> str:
    places: Places = config.places
    spans = [places[f"{edit.field}[{index}]"] for index in range(len(edit.written))]
    if len(edit.written) == len(edit.wanted):
        for span, number in zip(reversed(spans), reversed(edit.wanted), strict=True):
            text = f"{text[: span.start]}{number}{text[span.end :]}"
        return text
    between = text[spans[0].end : spans[-1].start]
    if "dims" in between or text[: spans[0].start].rstrip()[-1:] != "[":
        raise ContractError(
            f"{config.label}: {edit.field} is {list(edit.written)}, the graph's are {list(edit.wanted)}",
            remedy="write them as one list",
            file=config.label,
            field=edit.field,
            found=list(edit.written),
            expected=list(edit.wanted),
        )
    return f"{text[: spans[0].start]}{_list(edit.wanted)}{text[spans[-1].end :]}"


def _list(numbers: Sequence[int]) -> str:
    return ", ".join(str(number) for number in numbers)
