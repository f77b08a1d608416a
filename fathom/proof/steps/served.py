"""Step c: what the server makes of the bare loop: throughput by transport and batch, and certified capacity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from clients.cuda_memory import CudaRegion
from clients.shared_memory import SharedMemoryUnavailable
from fathom.proof.context import Context, Row
from fathom.proof.deploy import request, saturate, served
from fathom.proof.subject import Subject
from loadtests.capacity import CapacityRequest, find
from loadtests.slo import Slo
from server import TritonServer

STEP = "roofline"


def measure(context: Context) -> None:
    """At fp32: every transport and request batch, and a certified capacity of single rows for each SLO.

    Tensors in CUDA shared memory go to a server that hands them over on the device.
    """
    settings = context.settings
    for subject in context.subjects("fp32"):
        for on_device in (False, True):
            transports = [each for each in settings.transports if (each == "cuda") == on_device]
            what = f"{subject.name} over {' and '.join(transports)}"
            if not transports or context.out_of_time(what, 3 * settings.seconds):
                continue
            try:
                if on_device:
                    CudaRegion(1).discard()
            except SharedMemoryUnavailable as error:
                context.skip(what, error)
                continue
            try:
                with served(subject, settings.device, device_tensors=on_device) as server:
                    for transport in transports:
                        _over(context, subject, server, transport)
            except Exception as error:
                context.fail(what, error)


def _over(context: Context, subject: Subject, server: TritonServer, transport: str) -> None:
    try:
        _throughput(context, subject, server, transport)
        _capacity(context, subject, server, transport)
    except Exception as error:
        context.fail(f"{subject.name} over {transport}", error)


def best_bare(rows: Sequence[Row], model: str, precision: str = "fp32") -> Mapping[str, float] | None:
    """The bare loop's best rows/s of a model over its batches: on the device, and from host memory."""
    own = [row for row in rows if row.get("model") == model and row.get("precision") == precision]
    if not own:
        return None
    return {key: max(row[key] for row in own) for key in ("rows_per_s", "from_host_rows_per_s")}


def ratios(rows_per_s: float, bare: Mapping[str, float] | None) -> dict[str, float | None]:
    """Shares of the bare loop at its best batch."""
    return {
        "of_bare": rows_per_s / bare["rows_per_s"] if bare else None,
        "of_bare_from_host": rows_per_s / bare["from_host_rows_per_s"] if bare else None,
    }


def _throughput(context: Context, subject: Subject, server: TritonServer, transport: str) -> None:
    settings = context.settings
    bare = best_bare(context.before.get(STEP, ()), subject.model)
    for batch in settings.request_batches:
        what = f"{subject.name} over {transport}, {batch} a request"
        if context.out_of_time(what, 2 * settings.seconds):
            continue
        with request(server, subject, batch, transport) as asked:
            done = saturate(server, asked, settings, rows=batch, seconds=settings.seconds * settings.rounds)
        context.add(
            model=subject.model,
            precision=subject.precision,
            transport=transport,
            batch=batch,
            in_flight=done["in_flight"],
            rows_per_s=done["rows_per_s"],
            client_cpu_us=done["cpu_us"],
            **ratios(done["rows_per_s"], bare),
        )


def _capacity(context: Context, subject: Subject, server: TritonServer, transport: str) -> None:
    settings = context.settings
    bare = best_bare(context.before.get(STEP, ()), subject.model)
    if settings.dry_run and transport != settings.transports[0]:
        context.skip(f"capacity of {subject.name} over {transport}", "a dry run searches over one transport")
        return
    for text in settings.slos:
        what = f"capacity of {subject.name} over {transport} at {text}"
        if context.out_of_time(what, settings.capacity_seconds + 3):
            continue
        try:
            with request(server, subject, 1, transport) as asked:
                result = find(
                    CapacityRequest(
                        server=server.grpc_url,
                        model=subject.model,
                        slos=(Slo.parse(text),),
                        budget_s=settings.capacity_seconds,
                        tolerance=0.05,
                        payloads=[asked],
                        workers=settings.clients,
                    )
                )
        except Exception as error:
            context.fail(what, error)
            continue
        context.add(
            model=subject.model,
            precision=subject.precision,
            transport=transport,
            slo=text,
            capacity_per_s=result.capacity_per_s,
            estimate_per_s=result.capacity_estimate_per_s,
            verdict=result.verdict,
            reason=result.reason,
            seeds=list(result.seeds),
            **(ratios(result.capacity_per_s, bare) if result.capacity_per_s else {}),
        )
