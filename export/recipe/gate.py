"""The accuracy gate: what every station must pass before anything of it is published."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from export.errors import AccuracyError
from export.recipe.limits import Limits
from export.recipe.measure import Measurement
from export.recipe.recipe import Recipe

ROUNDING = 1e-9
"""Added to what a figure may lose, so that 19 of 20 rows are 5 % fewer than all."""


def gate(
    recipe: Recipe,
    station: str,
    baseline: Measurement,
    measured: Measurement,
    limits: Limits | None = None,
    *,
    against: str = "source",
    remedy: Callable[[], str | None] | None = None,
) -> None:
    """Raise AccuracyError where a station exceeds its limits, by default those of the recipe.

    `baseline` holds the figures of the station `against`, from which the parity of `measured` is the distance.
    `remedy` is called only for the error, since it may take seconds to find one.
    """
    limits = limits or Limits(recipe.tolerance)
    for field, found, limit, words in _breaches(recipe, station, baseline, measured, limits, against):
        raise AccuracyError(
            f"{recipe.name}: {words}; nothing was published",
            remedy=None if remedy is None else remedy(),
            field=field,
            found=found,
            expected=limit,
        )


def _breaches(
    recipe: Recipe, station: str, baseline: Measurement, measured: Measurement, limits: Limits, against: str
) -> Iterator[tuple[str, float, float, str]]:
    """Every limit that is exceeded, figures first: the figure or distance, its value, the limit, both in words. A NaN
    exceeds all."""
    for name, value in baseline.accuracy.items():
        figure, now = recipe.figure(name), measured.accuracy[name]
        loss, limit = figure.loss(value, now), limits.losses.get(name, figure.tolerance)
        if not loss <= limit + ROUNDING:
            words = f"{name} is {now:.6g} at the {station} station against {value:.6g} at the {against}, a loss of "
            yield name, loss, limit, f"{words}{loss:.3g} where {limit:.3g} is tolerated"
    if measured.parity is None:
        return
    outputs, tolerance = f"the {station} station's outputs", limits.tolerance
    for name, differ in (("max_abs", ""), ("max_relative", " of the largest number")):
        found, limit = getattr(measured.parity, name), getattr(tolerance, name)
        if not found <= limit:
            words = f"{outputs} differ by up to {found:.3g}{differ} from those of the {against}, where "
            yield name, found, limit, f"{words}{limit:.3g} is tolerated"
    found, limit = measured.parity.min_cosine, tolerance.min_cosine
    if not found >= limit:
        words = f"the smallest cosine of {outputs} with those of the {against} is {found:.6f}, where "
        yield "min_cosine", found, limit, f"{words}{limit:.6f} is required"
