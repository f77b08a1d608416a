"""Step b: bare ONNX Runtime by batch, against what this device's memory and arithmetic allow."""

from __future__ import annotations

from fathom.proof import ceilings, graph_cost
from fathom.proof.bare import Bare, nodes_by_provider, rate_per_s
from fathom.proof.context import Context
from fathom.proof.subject import Subject


def measure(context: Context) -> None:
    """One row of ceilings, then a row for each model, precision and batch."""
    found: ceilings.Ceilings | None = None
    try:
        found = ceilings.measure(context.settings)
        context.add(ceilings=found.to_json())
    except ImportError as error:
        context.skip("the ceilings", f"{error}: torch measures them")
    except Exception as error:
        context.fail("the ceilings", error)
    for subject in context.subjects():
        if context.out_of_time(subject.name):
            continue
        try:
            _measure(context, subject, found)
        except Exception as error:
            context.fail(subject.name, error)


def _measure(context: Context, subject: Subject, found: ceilings.Ceilings | None) -> None:
    settings = context.settings
    cost = graph_cost.count(subject.onnx, subject.rows(1))
    ran = nodes_by_provider(subject.onnx, settings.device, subject.rows(1), context.room)
    bare = Bare(subject.onnx, settings.device)
    for batch in settings.batches:
        if context.out_of_time(f"{subject.name}, batch {batch}", 3 * settings.seconds):
            return
        rows = subject.rows(batch)
        on_device = batch * rate_per_s(bare.on_device(rows), settings.seconds)
        from_host = batch * rate_per_s(bare.from_host(rows), settings.seconds)
        least_s = by_memory = None
        if found is not None:
            least_s, by_memory = cost.seconds(batch, found.bytes_per_s, found.macs_per_s)
        context.add(
            model=subject.model,
            precision=subject.precision,
            batch=batch,
            device=settings.device,
            rows_per_s=on_device,
            from_host_rows_per_s=from_host,
            roofline_rows_per_s=batch / least_s if least_s else None,
            roofline_share=on_device * least_s / batch if least_s else None,
            limited_by_memory=by_memory,
            gmacs_per_row=cost.macs / 1e9,
            mbytes=cost.bytes(batch) / 1e6,
            nodes_by_provider=ran,
        )
