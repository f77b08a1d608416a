"""`torch_outputs`: the tensors of a module's answer by name, and what is left out."""

from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from export.errors import RecipeError
from export.sources.torch_outputs import named, others

T = torch.zeros(2)
Normal = namedtuple("Normal", "mean spread")


@dataclass
class Answer:
    logits: Any
    extra: Any = None


ANSWERS = [
    (T, ["output"], "a tensor"),
    ((T,), ["output"], "a tuple of one"),
    ([T, T], ["output_0", "output_1"], "a list"),
    ((T, (T, [T])), ["output_0", "output_1.0", "output_1.1.0"], "a tuple in a tuple"),
    (((T, T),), ["output.0", "output.1"], "a pair in a tuple of one"),
    (
        {"logits": T, "aux": {"prob": T}, "features": [T, T]},
        ["logits", "aux.prob", "features.0", "features.1"],
        "nested",
    ),
    (Normal(T, {"low": T}), ["mean", "spread.low"], "a named tuple"),
    (Answer(T, [T]), ["logits", "extra.0"], "a dataclass"),
    (OrderedDict(a=Answer(T, Normal(T, None))), ["a.logits", "a.extra.mean"], "a dataclass in a mapping"),
    ({0: T, "": T}, ["0", "output"], "keys that are no names"),
    ({"y": T, "loss": None, "step": 3, "all": []}, ["y"], "what is no tensor"),
]


@pytest.mark.parametrize(("answer", "names", "why"), ANSWERS, ids=[row[-1] for row in ANSWERS])
def test_every_tensor_is_named_by_its_way_through_the_answer(answer, names, why):
    assert list(named(answer)) == names


def test_what_is_no_tensor_is_reported_by_name_and_kind():
    assert others({"y": T, "loss": None, "aux": [3, {"word": "a"}]}) == [
        "'loss' (None)",
        "'aux.0' (int)",
        "'aux.1.word' (str)",
    ]
    assert others((T, [T])) == []


@pytest.mark.parametrize("answer", [{"a.b": T, "a": {"b": T}}, {"a": None}, [], "text"])
def test_two_of_one_name_and_none_at_all_are_refused(answer):
    with pytest.raises(RecipeError):
        named(answer)
