"""`axis_size`: what an axis's name is made of, and the size that it comes to."""

import pytest

from export.graph.axis_size import parts, size

KNOWN = {"past": 5, "now": 3, "s0": 16, "h": 224, "seq_len": 7}
FORMULAS = [
    ("past + now", {"past", "now"}, 8, "the axis of a mask beside a cache"),
    ("past+now", {"past", "now"}, 8, "without spaces"),
    ("s0 - now", {"s0", "now"}, 13, "a difference"),
    ("2*s0 + 1", {"s0"}, 33, "torch's and sympy's way of writing a multiple"),
    ("((s0 - 1)//2) + 1", {"s0"}, 8, "a strided convolution, as torch writes it"),
    ("floor(h/32)", {"h"}, 7, "a grid of a picture, as sympy writes it"),
    ("floor(s0/2 - 1/2) + 1", {"s0"}, 8, "fractions that come out whole"),
    ("ceiling(now/2)", {"now"}, 2, "rounded up"),
    ("0.5*s0", {"s0"}, 8, "a decimal factor"),
    ("Max(1, now)", {"now"}, 3, "sympy's name of a function"),
    ("FloorDiv(s0, 5)", {"s0"}, 3, "torch's name of a function"),
    ("Mod(s0, 5)", {"s0"}, 1, "a remainder"),
    ("now**2", {"now"}, 9, "a power"),
    ("16", set(), 16, "a number in place of a name"),
    ("past - past", {"past"}, 0, "nothing left"),
    ("now - s0", {"now", "s0"}, 0, "less than nothing"),
    ("now/2", {"now"}, 0, "half a value"),
    ("s0/(past - past)", {"s0", "past"}, 0, "a division by zero"),
    ("floor(s0, 2)", {"s0"}, 0, "too many arguments"),
    ("9**9**9", set(), 0, "a power that takes long"),
    ("absent + now", {"absent", "now"}, None, "a part of unknown size"),
]


@pytest.mark.parametrize(("name", "made_of", "comes_to", "why"), FORMULAS, ids=[row[-1] for row in FORMULAS])
def test_a_formula_is_made_of_parts_and_comes_to_a_size(name, made_of, comes_to, why):
    assert parts(name) == made_of
    assert size(name, KNOWN) == comes_to


PLAIN = [
    "past",
    "seq-len",
    "batch size",
    "DynamicDimension.0",
    "unk__12",
    "in",
    "a[0]",
    "f(x)",
    "a if b else c",
    "x+" * 200,
]


@pytest.mark.parametrize("name", PLAIN)
def test_a_plain_name_is_no_formula(name):
    assert parts(name) == frozenset()
    assert size(name, KNOWN) is None
