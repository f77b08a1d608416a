"""The precision of an export, and which nodes of its graph stay in FP32."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from export.errors import NotOfferedError, RecipeError, did_you_mean
from export.recipe.limits import Reduced
from export.recipe.recipe import Recipe

FP32, FP16, INT8 = "fp32", "fp16", "int8"
PRECISIONS = (FP32, FP16, INT8)
CPU, TENSORRT = "cpu", "tensorrt"
RUNTIMES = (CPU, TENSORRT)
"""What an INT8 graph is made for: x86 multiplies UINT8 activations with a zero point by INT8 weights natively, TensorRT
takes INT8 without zero points only."""


@dataclass(frozen=True)
class Target:
    """The precision that one export makes: what it may cost (None for FP32), the nodes and operator types that a
    person keeps in FP32, and what an INT8 graph is made for."""

    precision: str = FP32
    allowed: Reduced | None = None
    excluded: tuple[str, ...] = ()
    runtime: str = CPU


def choose(recipe: Recipe, precision: str, excluded: Sequence[str] = (), runtime: str = CPU) -> Target:
    """The target of an export. Raises NotOfferedError when the recipe does not offer the precision."""
    return Target(precision, rule(recipe, precision), tuple(sorted(set(excluded))), runtime)


def rule(recipe: Recipe, precision: str) -> Reduced | None:
    """The recipe's limits for a precision; None for FP32. Raises NotOfferedError when it does not offer it."""
    if precision == FP32:
        return None
    if precision not in recipe.reduced:
        raise NotOfferedError(recipe.name, precision, recipe.why_not_reduced, (FP32, *recipe.reduced))
    return recipe.reduced[precision]


def kept_float(model: Any, keep: Iterable[str], excluded: Sequence[str]) -> frozenset[str]:
    """The names of the graph's nodes that stay in FP32.

    `keep` are the recipe's, which another graph may lack; `excluded` are a person's: names of nodes or operator
    types, and RecipeError is raised for one that the graph does not have.
    """
    names = {node.name for node in model.graph.node}
    kept = names & set(keep)
    for word in excluded:
        chosen = {node.name for node in model.graph.node if word in (node.name, node.op_type)}
        if not chosen:
            known = sorted(names | {node.op_type for node in model.graph.node})
            raise RecipeError(
                f"--exclude {word}: the graph has no such node or operator type{did_you_mean(word, known, most=3)}",
                field="exclude",
                found=word,
            )
        kept |= chosen
    return frozenset(kept)
