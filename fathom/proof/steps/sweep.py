"""Step d: instances x batch x queue delay: which configuration wins, and by how much over the committed one."""

from __future__ import annotations

import itertools
import statistics

from fathom.proof.context import Context
from fathom.proof.deploy import Variant, request, saturate, served
from fathom.proof.steps.hand_over import where
from fathom.proof.subject import Subject

FOR_THE_WINNER = 0.3
"""Of a model's time, the share that holding the winner against the default may take."""


def measure(context: Context) -> None:
    """For each model a row per configuration, then the winner against the default, in turn."""
    subjects = context.spread("sweeps one model")
    for number, subject in enumerate(subjects):
        if context.out_of_time(subject.name, 5):
            continue
        until_s = context.left_s * (1 - (1 - FOR_THE_WINNER) / (len(subjects) - number))
        tried: dict[Variant, float] = {}
        for variant in variants(context):
            what = f"{subject.name}, {describe(variant)}"
            if context.left_s < until_s:
                context.skip(what, "the model's share of the time was over")
                continue
            try:
                tried[variant] = _rate(context, subject, variant)
            except Exception as error:
                context.fail(what, error)
                continue
            context.add(
                model=subject.model, precision=subject.precision, **variant.to_json(), rows_per_s=tried[variant]
            )
        if tried:
            _against_default(context, subject, max(tried, key=lambda each: tried[each]))


def variants(context: Context) -> list[Variant]:
    """Every configuration, tensors handed over in host memory and on the device; what matters least varies last."""
    settings = context.settings
    return [
        Variant(instances, batch, delay, on_device)
        for delay, batch, on_device, instances in itertools.product(
            settings.queue_delays_us, settings.max_batches, (False, True), settings.instances
        )
    ]


def describe(variant: Variant | None) -> str:
    """For a person."""
    if variant is None:
        return "the committed configuration"
    return (
        f"{variant.instances} instances, batches of {variant.max_batch_size}, delay {variant.queue_delay_us} us, "
        f"tensors {where(variant.device_tensors)}"
    )


def _rate(context: Context, subject: Subject, variant: Variant | None) -> float:
    settings = context.settings
    with (
        served(subject, settings.device, variant) as server,
        request(server, subject, 1, "grpc") as asked,
    ):
        return saturate(server, asked, settings, rows=1, seconds=settings.seconds)["rows_per_s"]


def _against_default(context: Context, subject: Subject, winner: Variant) -> None:
    """Both again, round by round in turn, so that the ratio is not of two moments."""
    rounds: list[tuple[float, float]] = []
    for _ in range(context.settings.rounds):
        if rounds and context.out_of_time(f"{subject.name}, another round of the winner", 10):
            break
        try:
            rounds.append((_rate(context, subject, None), _rate(context, subject, winner)))
        except Exception as error:
            context.fail(f"{subject.name}, the winner against the default", error)
            return
    shares = [won / default for default, won in rounds]
    context.add(
        model=subject.model,
        precision=subject.precision,
        winner=winner.to_json(),
        default_rows_per_s=statistics.median(default for default, _ in rounds),
        winner_rows_per_s=statistics.median(won for _, won in rounds),
        over_default=statistics.median(shares),
        over_default_range=[min(shares), max(shares)],
    )
