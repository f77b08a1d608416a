"""recipe.toml beside a config.pbtxt: where an added model comes from, and what it is judged and measured on."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from export import files
from export.added.input_generators import LARGEST, NUMPY, InputGenerator, InputRule
from export.errors import FileError, RecipeError
from export.recipe.limits import Tolerance
from export.recipe.recipe import AxisRange
from export.sources.base import HF, KINDS, ONNX

FILE, EXAMPLE = "recipe.toml", "example.npz"
MOST_AXES = 30
"""numpy has 32, two of which are the batch's and a text's."""
OWN, OPENED, NONE = BATCHES = ("own", "opened", "none")
"""Where the batch axis comes from: it is the graph's own, or was opened from 1, or there is none."""


@dataclass(frozen=True)
class RecipeFile:
    """The content of recipe.toml.

    `source` is a path, a hub id or `package.module:function` (see `export.sources`); `home` is the folder to import
    from. `needs` lists what another machine needs beside the folder (see `export.added.kept`).
    `widened` are tensors given an axis of size 1. `inputs` is None where example.npz holds real requests.
    `axes` gives an engine the range of each open axis but the batch, by input.
    """

    kind: str
    source: str
    home: str
    batch: str
    widened: tuple[str, ...]
    tolerance: Tolerance
    rows: int
    seed: int
    inputs: Mapping[str, InputRule] | None
    axes: Mapping[str, Mapping[int, AxisRange]]
    needs: tuple[str, ...] = ()

    def text(self, name: str) -> str:
        """The file, with a comment for whoever edits it."""
        lines = [
            f"# How `fathom export {name}` makes this model, and what it is judged and measured on.",
            "# Paths are relative to this folder. `fathom capacity` and `fathom infer --example` ask what stands here.",
            "",
            "[source]",
            f"kind = {_quoted(self.kind)}",
            f"from = {_quoted(self.source)}",
        ]
        if self.kind not in (ONNX, HF):
            lines.append(f"home = {_quoted(self.home)}")
        lines.append("# What lies in source/ is used before anything else. For a new version, replace the files there.")
        if self.needs:
            lines += ["# Not in source/, and needed on every machine that exports this model:", "needs = ["]
            lines += [f"  {_quoted(need)}," for need in self.needs]
            lines.append("]")
        lines += [
            "",
            "[graph]",
            f"batch = {_quoted(self.batch)}".ljust(24) + f"# {_BATCH_WORDS[self.batch]}",
        ]
        if self.widened:
            lines.append(f"widened = {_list(self.widened)}  # had no axis beside the batch, now one of size 1")
        lines += [
            "",
            "[tolerance]                # of every station's outputs, against the source's",
            f"max_abs = {self.tolerance.max_abs!r}",
            f"min_cosine = {self.tolerance.min_cosine!r}",
            f"max_relative = {self.tolerance.max_relative!r}     # of each output's largest number",
            "",
            "[example]",
        ]
        if self.inputs is None:
            lines.append(f"file = {_quoted(EXAMPLE)}        # real requests: one row each, by input")
        else:
            lines += [
                f"rows = {self.rows}".ljust(24)
                + "# made up: put real requests into example.npz (one row each, by input)",
                f"seed = {self.seed}".ljust(24) + f'# and write file = "{EXAMPLE}" instead of these two',
            ]
        for key, rule in (self.inputs or {}).items():
            lines += ["", f"[example.inputs.{_quoted(key)}]", f"data_type = {_quoted(rule.data_type)}"]
            lines += [f"shape = {list(rule.shape)}", f"values = {_quoted(rule.generator.kind)}"]
            if rule.generator.kind == "integers":
                lines += [f"low = {rule.generator.low}", f"high = {rule.generator.high}"]
            if rule.generator.kind == "texts":
                lines.append(f"texts = {_list(rule.generator.texts)}")
        for key, ranges in self.axes.items():
            lines += ["", f"[axes.{_quoted(key)}]          # what a TensorRT engine is built for: [min, opt, max]"]
            lines += [f"{axis} = {[each.minimum, each.optimum, each.maximum]}" for axis, each in ranges.items()]
        return "\n".join(lines) + "\n"


_BATCH_WORDS = {
    OWN: "the graph's own first axis",
    OPENED: "the source is fixed at one row; its first axis was opened",
    NONE: "no batch axis: max_batch_size is 0, and dims are whole shapes",
}


def read(folder: Path) -> RecipeFile:
    """Read the recipe.toml of a model folder. Raises RecipeError, naming the key, when it cannot be understood."""
    file, see = f"{folder.name}/{FILE}", "see docs/guides/add-a-model.md"
    try:
        record = files.read_toml(files.find(folder, FILE))
    except FileError as error:
        raise RecipeError(f"{file} {error.why}", file=file) from None
    try:
        source, graph, tolerance, example = (record[key] for key in ("source", "graph", "tolerance", "example"))
        kind, batch = _one_of(source["kind"], KINDS), _one_of(graph["batch"], BATCHES)
        made_up = None if "file" in example else {key: _rule(rule) for key, rule in example["inputs"].items()}
        return RecipeFile(
            kind=kind,
            source=str(source["from"]),
            home=str(source.get("home", ".")),
            batch=batch,
            widened=tuple(graph.get("widened", ())),
            tolerance=Tolerance(
                float(tolerance["max_abs"]),
                float(tolerance["min_cosine"]),
                float(tolerance.get("max_relative", math.inf)),
            ),
            rows=_rows(int(example.get("rows", 1)), made_up or {}),
            seed=abs(int(example.get("seed", 0))),
            inputs=made_up,
            axes={
                key: {int(axis): AxisRange(*map(int, each)) for axis, each in ranges.items()}
                for key, ranges in record.get("axes", {}).items()
            },
            needs=tuple(str(need) for need in source.get("needs", ())),
        )
    except KeyError as error:
        raise RecipeError(f"{file} lacks the key {error}", remedy=see, file=file, field=str(error.args[0])) from None
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        raise RecipeError(f"{file}: {error}", remedy=see, file=file) from None


def relative(path: Path, folder: Path, model_repository: Path) -> str:
    """A path as recipe.toml writes it: relative to the model's folder within the project (what holds the repository),
    else absolute. A link stays a link: what lies beside it may not lie beside the file that it names."""
    whole = path.parent.resolve() / path.name if path.is_symlink() else path.resolve()
    if whole.is_relative_to(model_repository.resolve().parent):
        return os.path.relpath(whole, folder.resolve())
    return str(whole)


def _rule(record: Mapping[str, Any]) -> InputRule:
    generator = InputGenerator(
        _one_of(record["values"], ("normal", "integers", "booleans", "texts", "masks")),
        int(record.get("low", 0)),
        int(record.get("high", 1)),
        tuple(str(text) for text in record.get("texts", ())),
    )
    data_type = _one_of(record["data_type"], (*NUMPY, "TYPE_STRING"))
    rule = InputRule(data_type, tuple(int(size) for size in record["shape"]), generator)
    if min(rule.shape, default=1) < 1 or len(rule.shape) > MOST_AXES:
        raise ValueError(f"shape {list(rule.shape)} is invalid: write up to {MOST_AXES} sizes of 1 or more")
    if (data_type == "TYPE_STRING") != (generator.kind == "texts"):
        raise ValueError(f"an input of {data_type} cannot have the values {generator.kind!r}")
    if generator.kind == "texts" and not generator.texts:
        raise ValueError("an input of texts needs a list: texts = [...]")
    if generator.kind == "integers" and not (
        generator.low <= generator.high and all(_fits(each, data_type) for each in (generator.low, generator.high))
    ):
        raise ValueError(f"low = {generator.low} and high = {generator.high} are not a range of {data_type}")
    return rule


def _fits(value: int, data_type: str) -> bool:
    dtype = NUMPY[data_type]
    if dtype.kind not in "iu":
        return abs(value) < 2**53
    return bool(np.iinfo(dtype).min <= value <= min(np.iinfo(dtype).max, 2**63 - 1))


def _rows(count: int, rules: Mapping[str, InputRule]) -> int:
    if (size := count * sum(rule.bytes for rule in rules.values())) > LARGEST:
        raise ValueError(f"rows = {count} are {size:,} bytes of requests, more than {LARGEST:,}")
    return max(1, count)


def _one_of(value: Any, known: tuple[str, ...]) -> str:
    if value not in known:
        raise ValueError(f"{value!r} is not one of {', '.join(known)}")
    return str(value)


def _quoted(text: str) -> str:
    """A TOML basic string; its escapes are those of JSON."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _list(texts: tuple[str, ...]) -> str:
    return f"[{', '.join(map(_quoted, texts))}]"
