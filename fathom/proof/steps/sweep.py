"""Step d: instances x batch x queue delay: which configuration wins, and by how much over the committed one."""

from __future__ import annotations

import itertools
import statistics

from fathom.bench import closed_loop
from fathom.proof.context import Context
from fathom.proof.deploy import Variant, request, served
from fathom.proof.subject import Subject


def measure(context: Context) -> None:
    """For each model a row per configuration, then the winner against the default, in turn."""
    for subject in context.subjects("fp32"):
        if context.out_of_time(subject.name, 5):
            continue
        tried: dict[Variant, float] = {}
        for variant in variants(context):
            what = f"{subject.name}, {describe(variant)}"
            if context.out_of_time(what, 2 * context.settings.seconds + 10 * (not context.settings.dry_run)):
                break
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
    """Every configuration; on a GPU each also with tensors handed over on the device."""
    settings = context.settings
    return [
        Variant(instances, batch, delay, on_device)
        for on_device, batch, delay, instances in itertools.product(
            (False, True), settings.max_batches, settings.queue_delays_us, settings.instances
        )
    ]


def describe(variant: Variant | None) -> str:
    """For a person."""
    if variant is None:
        return "the committed configuration"
    where = "on the device" if variant.device_tensors else "in host memory"
    return (
        f"{variant.instances} instances, batches of {variant.max_batch_size}, delay {variant.queue_delay_us} us, "
        f"tensors {where}"
    )


def _rate(context: Context, subject: Subject, variant: Variant | None) -> float:
    settings = context.settings
    with (
        served(subject, settings.device, variant) as server,
        request(server, subject, 1, "grpc") as asked,
    ):
        done = closed_loop.drive(server.grpc_url, asked, in_flight=settings.in_flight, seconds=settings.seconds)
    return done["rate_per_s"]


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
