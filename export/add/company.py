"""Send a graph the same rows alone and together: no answer may depend on the other rows of its batch."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from itertools import permutations

import numpy as np

from export.added.input_generators import InputRule
from export.graph.onnx_file import reason
from export.recipe.agreement import same
from export.recipe.recipe import Array, Arrays, Predict

LARGE = 100.0
"""How much larger than the example a large row is."""

LARGEST_POOL = 1 << 28
"""Bytes of rows that are tried."""

BUDGET_S = 1.0
"""Time for a slow graph: LEAST rows, together in both orders, are always sent; more only as long as time is left."""

LEAST = 3


def unlike(example: Arrays, rules: Mapping[str, InputRule]) -> dict[str, Array]:
    """The example's rows and, before them, four that differ as much as the inputs allow: the lowest values (zeros, of
    fractions), large ones, large negative ones, and the first row turned round."""
    row_bytes = sum(rows[:1].nbytes for rows in example.values())
    have = len(next(iter(example.values())))
    more = max(0, min(4, LARGEST_POOL // max(1, row_bytes) - have))
    return {name: np.concatenate([_extremes(rows, rules[name])[:more], rows]) for name, rows in example.items()}


def _extremes(rows: Array, rule: InputRule) -> Array:
    turned = rows[0].ravel()[::-1].reshape(rows[0].shape)
    if rows.dtype.kind == "f":
        large = LARGE * (np.abs(rows[1].astype(np.float64)) + 1)
        return np.asarray(np.stack([np.zeros_like(large), large, -large, turned]), rows.dtype)
    if rows.dtype.kind in "iu":
        known = rule.generator.kind == "integers"
        lowest = min(int(rows.min()), rule.generator.low) if known else int(rows.min())
        highest = max(int(rows.max()), rule.generator.high) if known else int(rows.max())
    else:
        values = sorted(rows.ravel().tolist())
        lowest, highest = values[0], values[-1]
    low, high = (np.full_like(rows[0], value) for value in (lowest, highest))
    return np.stack([low, high, turned, rows[1][::-1] if rows[1].ndim else rows[1]])


def disagreement(predict: Predict, rows: Arrays, *, budget_s: float = BUDGET_S) -> str | None:
    """Why rows cannot share a batch, as a sentence; None where each is answered as alone in every batch that was tried.

    Rows that the graph does not answer alone are left out, and what a row with an answer that is not finite gets is not
    judged; such a row is company all the same. `budget_s` bounds what is tried of a slow graph.
    """
    pool: list[Arrays] = []
    alone: list[Arrays] = []
    began = time.perf_counter()
    for index in range(len(next(iter(rows.values())))):
        if len(pool) >= LEAST and time.perf_counter() - began > budget_s:
            break
        row = {name: array[index : index + 1] for name, array in rows.items()}
        try:
            answer = predict(row)
        except Exception:  # ONNX Runtime's kinds: a value that the graph does not take
            continue
        for name, value in answer.items():
            if value.shape[:1] != (1,):
                return f"output '{name}' has no batch axis (its shape is {list(value.shape)} for one row)"
        pool.append(row)
        alone.append(answer)
    scales = {name: _scale([answer[name] for answer in alone]) for name in alone[0]} if alone else {}
    for tried, company in enumerate(_companies(len(pool))):
        if tried >= 2 and time.perf_counter() - began > budget_s:
            break
        together = {name: np.concatenate([pool[index][name] for index in company]) for name in rows}
        try:
            answers = predict(together)
        except Exception as error:  # ONNX Runtime's kinds
            return f"{len(company)} rows at once fail in ONNX Runtime ({reason(error)})"
        for name, values in answers.items():
            if values.shape[:1] != (len(company),):
                return f"output '{name}' has no batch axis (its shape is {list(values.shape)} for {len(company)} rows)"
            for place, index in enumerate(company):
                wanted = alone[index][name]
                if wanted.dtype.kind == "f" and not np.isfinite(wanted).all():
                    continue
                if not same(values[place : place + 1], wanted, scale=scales[name]):
                    return f"rows together get other answers than alone (output '{name}', {len(company)} rows)"
    return None


def _companies(count: int) -> Iterator[tuple[int, ...]]:
    """Batches to try, as indices of rows: all rows, in both orders; each pair in both orders; a row twice; threes."""
    if count < 1:
        return
    everyone = tuple(range(count))
    yield everyone
    yield everyone[::-1]
    yield from permutations(everyone, 2)
    yield from ((index, index) for index in everyone)
    yield from permutations(everyone[:4], 3)


def _scale(answers: list[Array]) -> float:
    """What is large for an output: half the rows have a value of that size or more."""
    if answers[0].dtype.kind != "f":
        return 0.0
    largest = [float(np.abs(answer).max(initial=0.0)) for answer in answers]
    finite = sorted(value for value in largest if np.isfinite(value))
    return finite[len(finite) // 2] if finite else 0.0
