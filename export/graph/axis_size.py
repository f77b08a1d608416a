"""The size of an axis whose name is a formula of others: exporters write `past_sequence_length + sequence_length`."""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Callable, Mapping
from fractions import Fraction

LONGEST_FORMULA = 300
LARGEST_POWER = 8


def _power(base: Fraction, exponent: Fraction) -> Fraction:
    if not 0 <= exponent <= LARGEST_POWER or exponent.denominator != 1:
        raise OverflowError
    return base ** int(exponent)


OPERATORS: Mapping[type[ast.operator], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.Div: lambda a, b: a / b,
    ast.FloorDiv: lambda a, b: Fraction(a // b),
    ast.Mod: lambda a, b: a % b,
    ast.Pow: _power,
}
FUNCTIONS: Mapping[str, Callable[..., Fraction]] = {
    "floor": lambda a: Fraction(math.floor(a)),
    "ceil": lambda a: Fraction(math.ceil(a)),
    "ceiling": lambda a: Fraction(math.ceil(a)),
    "min": min,
    "max": max,
    "floordiv": OPERATORS[ast.FloorDiv],
    "mod": OPERATORS[ast.Mod],
}
"""By name in small letters: sympy, torch and ONNX Runtime write the same ones as Max and max."""


def parts(name: str) -> frozenset[str]:
    """The axes that a formula is made of; none for a plain name."""
    formula = _formula(name)
    if formula is None:
        return frozenset()
    called = {id(node.func) for node in ast.walk(formula) if isinstance(node, ast.Call)}
    return frozenset(node.id for node in ast.walk(formula) if isinstance(node, ast.Name) and id(node) not in called)


def size(name: str, sizes: Mapping[str, int]) -> int | None:
    """What a formula makes of the sizes of its parts: 0 where that is no size; None for a plain name, and where a part
    is not among `sizes`."""
    formula = _formula(name)
    if formula is None or not parts(name) <= sizes.keys():
        return None
    try:
        made = _value(formula, sizes)
    except (ArithmeticError, TypeError):  # division by zero, or another number of arguments
        return 0
    return int(made) if made.denominator == 1 and made > 0 else 0


def _formula(name: str) -> ast.expr | None:
    """The parsed formula, or None for a plain name. A hyphen between letters without spaces is part of a name."""
    if len(name) > LONGEST_FORMULA or re.search(r"[^\W\d]-[^\W\d]", name):
        return None
    try:
        tree = ast.parse(name.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    return None if isinstance(tree, ast.Name) or not _known(tree) else tree


def _known(node: ast.expr) -> bool:
    match node:
        case ast.Name():
            return True
        case ast.Constant(value=value):
            return type(value) in (int, float)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return _known(operand)
        case ast.BinOp(left=left, op=operator, right=right):
            return type(operator) in OPERATORS and _known(left) and _known(right)
        case ast.Call(func=ast.Name(id=function), args=arguments, keywords=[]):
            return function.lower() in FUNCTIONS and all(map(_known, arguments))
    return False


def _value(node: ast.expr, sizes: Mapping[str, int]) -> Fraction:
    match node:
        case ast.Name(id=name):
            return Fraction(sizes[name])
        case ast.Constant(value=int() | float() as number):
            return Fraction(str(number))
        case ast.UnaryOp(operand=operand):
            return -_value(operand, sizes)
        case ast.BinOp(left=left, op=operator, right=right):
            return OPERATORS[type(operator)](_value(left, sizes), _value(right, sizes))
        case ast.Call(func=ast.Name(id=function), args=arguments):
            return FUNCTIONS[function.lower()](*(_value(each, sizes) for each in arguments))
    raise AssertionError("`_known` lets no other through")
