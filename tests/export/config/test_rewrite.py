"""Editing dims for another model's graph."""

from __future__ import annotations

import difflib
from pathlib import Path

import pytest
from scale_model import replace

from export.config import config, contract
from export.config.rewrite import rewrite_dims
from export.errors import ContractError
from export.graph.signature import Signature, TensorSpec


def graph(inputs: tuple[int, ...], outputs: tuple[int, ...]) -> Signature:
    return Signature((TensorSpec("x", "TYPE_FP32", inputs),), (TensorSpec("y", "TYPE_FP32", outputs),))


def test_only_the_numbers_change(repository: Path) -> None:
    path = repository / "scale" / "config.pbtxt"
    before = config.load(path)
    wanted = graph((-1, 224), (-1, 1001))

    text, notes = rewrite_dims(before, wanted)

    changed = [line for line in difflib.ndiff(before.text.splitlines(), text.splitlines()) if line[0] in "+-"]
    assert [line.split("dims: ")[1].split("]")[0] + "]" for line in changed] == [
        *("[ 3 ]", "[ 224 ]"),
        *("[ 3 ]", "[ 1001 ]"),
        *("[ 3 ]", "[ 224 ]"),
    ]
    named = ("input[0].dims", "output[0].dims", 'model_warmup[0].inputs["x"].value.dims')
    assert [field in note for field, note in zip(named, notes, strict=True)] == [True] * 3
    path.write_text(text)
    contract.check(config.load(path), wanted)


def test_nothing_changes_where_it_fits(repository: Path) -> None:
    before = config.load(repository / "scale" / "config.pbtxt")

    assert rewrite_dims(before, graph((-1, 3), (-1, 3))) == (before.text, [])


def test_another_number_of_dims(repository: Path) -> None:
    path = repository / "scale" / "config.pbtxt"

    text, _ = rewrite_dims(config.load(path), graph((-1, 2, 5, 3), (-1, 3)))

    assert text.count("dims: [ 2, 5, 3 ]") == 2  # the input and its warm-up
    path.write_text(text)
    contract.check(config.load(path), graph((-1, 2, 5, 3), (-1, 3)))


def test_what_cannot_be_rewritten_is_reported(repository: Path) -> None:
    path = repository / "scale" / "config.pbtxt"
    with pytest.raises(ContractError) as caught:
        rewrite_dims(config.load(path), graph((-1, -1, 3), (-1, 3)))
    assert caught.value.field == 'model_warmup[0].inputs["x"].value.dims'
    assert (caught.value.tensor, caught.value.found, caught.value.expected) == ("x", [3], [-1, 3])

    replace(path, "dims: [ 3 ]\n    label_filename", "dims: 3\n    label_filename")
    with pytest.raises(ContractError) as caught:
        rewrite_dims(config.load(path), graph((-1, 3), (-1, 3, 1)))
    assert (caught.value.field, caught.value.found, caught.value.expected) == ("output[0].dims", [3], [3, 1])
