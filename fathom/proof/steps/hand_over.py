"""Step c: a model behind another in an ensemble: tensors handed over through host memory, and on the device."""

from __future__ import annotations

from dataclasses import asdict

from clients import Client
from export.measure import answers, parity
from fathom.proof import chain
from fathom.proof.context import Context
from fathom.proof.deploy import request, saturate, served
from fathom.proof.subject import Subject

JUDGED_ROWS = 8


def measure(context: Context) -> None:
    """At fp32: rows/s and parity of each model behind one that changes nothing, both ways of handing over."""
    for subject in context.spread("hands over one model"):
        for on_device in (False, True):
            what = f"{subject.name}, {where(on_device)}"
            if context.out_of_time(what, 5 + context.settings.seconds):
                continue
            try:
                _measure(context, subject, on_device)
            except Exception as error:
                context.fail(what, error)


def where(on_device: bool) -> str:
    """For a person."""
    return "on the device" if on_device else "in host memory"


def _measure(context: Context, subject: Subject, on_device: bool) -> None:
    settings = context.settings
    batch = max(settings.request_batches)
    with (
        served(subject, settings.device, device_tensors=on_device, behind_identity=True) as server,
        request(server, subject, batch, "grpc", model=chain.NAME) as asked,
    ):
        done = saturate(server, asked, settings, rows=batch, seconds=settings.seconds)
        with Client(server.grpc_url) as client:
            evaluation, source = subject.judged_on(JUDGED_ROWS)
            distance = parity(answers(client.model(chain.NAME).__call__, evaluation), source)
    context.add(
        model=subject.model,
        precision=subject.precision,
        hand_over="device" if on_device else "host",
        rows=batch,
        rows_per_s=done["rows_per_s"],
        parity=asdict(distance),
    )
