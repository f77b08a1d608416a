"""Compare a station's answers with the source's as a person would: same class, number or direction.

How far the numbers are apart is `measure.parity`'s, with limits by precision. This is the same question at every
precision, so that its figure can be read at each.
"""

from __future__ import annotations

import numpy as np

from export.recipe.measure import text
from export.recipe.recipe import Array, Arrays

CLOSE = 0.05
"""Of the spread of the source's answers: how far a single number may be off."""

COSINE = 0.95
"""Of what tells a vector from the mean of the source's answers."""

TIE = 1e-3
"""Of the largest score: classes that are nearer to the best than this are as good."""

CONSTANT = 100
"""Units in the last place of the largest answer: a smaller spread is the arithmetic's."""

SCORES = ("logits", "scores", "probabilities", "probability", "probs")
"""How names of class scores end."""


RELATIVE_TOLERANCE = 1e-3
"""Of the largest output: what FP32 arithmetic in another order may cost a deep network."""


def matching(outputs: Arrays, source: Arrays, *, noise: float = 0.0) -> float:
    """The fraction of rows whose every output is the source's. `noise` is what the source's own answers vary by."""
    with np.errstate(invalid="ignore"):  # NaN agrees with nothing
        rows = [_agreeing(name, np.asarray(outputs[name]), np.asarray(each), noise) for name, each in source.items()]
    if len({len(each) for each in rows}) != 1:  # answers of different shapes, laid end to end
        return float(all(each.all() for each in rows))
    return float(np.logical_and.reduce(rows).mean())


def extent(rows: Array) -> Array:
    """The range of the answers along the first axis, or their size where they are all the same."""
    size, spread = np.abs(rows).max(axis=0), np.ptp(rows, axis=0)
    return np.asarray(np.where(spread > CONSTANT * np.finfo(rows.dtype).eps * size, spread, np.where(size, size, 1.0)))


def are_scores(name: str, rows: Array) -> bool:
    """Whether an output scores classes: by its name, or since each vector is shares of one."""
    if rows.ndim < 2 or rows.shape[-1] < 2:
        return False
    shares = rows.min() >= 0 and np.allclose(rows.sum(axis=-1), 1, atol=1e-3)
    return bool(shares) or name.lower().endswith(SCORES)


def _agreeing(name: str, given: Array, wanted: Array, noise: float) -> Array:
    """Per row, whether the output agrees."""
    if given.shape != wanted.shape:
        return np.zeros(len(wanted), bool)
    if wanted.size == 0:
        return np.ones(len(wanted), bool)
    if wanted.dtype.kind in "OUS":
        pairs = zip(given.ravel(), wanted.ravel(), strict=True)
        return _by_row(np.array([text(one) == text(other) for one, other in pairs], bool), wanted)
    if wanted.dtype.kind != "f":
        return _by_row(given == wanted, wanted)
    if noise:
        return _by_row(np.abs(given - wanted) <= noise, wanted)
    if are_scores(name, wanted):
        return _by_row(_same_class(given, wanted), wanted)
    rows, others = wanted.reshape(len(wanted), -1), given.reshape(len(given), -1)
    if rows.shape[1] == 1:
        return _by_row(np.abs(others - rows.astype(np.float64)) <= CLOSE * extent(rows), rows)
    return _same_direction(others.astype(np.float64), rows.astype(np.float64), float(np.finfo(rows.dtype).eps))


def _by_row(each: Array, wanted: Array) -> Array:
    return np.asarray(each.reshape(len(wanted), -1).all(axis=1))


def _same_class(given: Array, wanted: Array) -> Array:
    """Per vector of scores, whether its best is the source's best, or as good."""
    chosen = np.take_along_axis(wanted, given.argmax(axis=-1)[..., None], axis=-1)[..., 0]
    return np.asarray(chosen >= wanted.max(axis=-1) - TIE * np.abs(wanted).max())


def _same_direction(given: Array, wanted: Array, precision: float) -> Array:
    """Per vector, whether it differs from the mean as the source's does, or is as near to it."""
    mean = wanted.mean(axis=0)
    size, spread = np.linalg.norm(wanted, axis=1).max() or 1.0, np.sqrt(((wanted - mean) ** 2).sum(axis=1).mean())
    if spread <= CONSTANT * precision * size:
        mean, spread = np.zeros_like(mean), size
    one, other = given - mean, wanted - mean
    norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    near = np.linalg.norm(given - wanted, axis=1) <= CLOSE * spread
    return np.asarray(((one * other).sum(axis=1) >= COSINE * norms) & (norms > 0) | near)


def same(one: Array, other: Array, *, scale: float = 0.0) -> bool:
    """Whether two answers agree as far as FP32 arithmetic in another order allows.

    `scale` is for small answers that are sums of numbers as large as that.
    """
    if one.shape != other.shape:
        return False
    if one.dtype.kind in "OUS":
        return [text(each) for each in one.ravel()] == [text(each) for each in other.ravel()]
    if one.dtype.kind != "f":
        return bool(np.array_equal(one, other))
    scale = max(scale, float(np.abs(other).max(initial=0.0)))
    limit = RELATIVE_TOLERANCE * (10 if one.dtype == np.float16 else 1) * scale
    return bool(np.allclose(one.astype(np.float64), other.astype(np.float64), rtol=0, atol=limit, equal_nan=True))
