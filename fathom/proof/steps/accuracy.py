"""Step a: is the answer on the device the source's answer, at every precision?"""

from __future__ import annotations

from dataclasses import asdict

from export.measure import answers, parity
from fathom.proof.bare import Bare
from fathom.proof.context import Context

BATCH = 8


def measure(context: Context) -> None:
    """Parity with the source and the recipe's figures, a row for each model and precision."""
    for subject in context.subjects():
        if context.out_of_time(subject.name):
            continue
        try:
            evaluation, source = subject.judged_on(context.settings.evaluated_rows)
            given = answers(Bare(subject.onnx, context.settings.device), evaluation, batch=BATCH)
            context.add(
                model=subject.model,
                precision=subject.precision,
                device=context.settings.device,
                rows=len(evaluation),
                figures=dict(subject.score(given, evaluation, source)),
                at_source=dict(subject.score(source, evaluation, source)),
                parity=asdict(parity(given, source)),
            )
        except Exception as error:
            context.fail(subject.name, error)
