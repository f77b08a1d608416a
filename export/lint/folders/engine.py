"""Lint rules for TensorRT engines: whether each plan can run in the configured Triton release and on this GPU.

The plan's header says what built it and the record beside it the rest, so neither TensorRT nor a GPU is needed.
"""

from __future__ import annotations

from pathlib import Path

from export import files
from export.engine import gpu, plan_header
from export.engine import record as engine_record
from export.engine.gpu import Gpu
from export.engine.record import EngineRecord
from export.errors import EngineError
from export.lint.finding import Finding, Findings, Severity
from export.lint.remedies import export

ONNX = "1/model.onnx"


def check_folder(folder: Path, triton_tag: str | None) -> Findings:
    """All rules about the plans of one model. `triton_tag` (`26.05-py3`) is the release that is to run them."""
    for path in engine_record.plans(folder):
        try:
            header = plan_header.read_header(path)
            record = engine_record.read(path)
        except EngineError as error:
            yield _finding("error", folder, path, error.what, _build(folder))
            continue
        if record is None:
            yield _finding(
                "warning", folder, path, "has no record: what it was built from is not known", _build(folder)
            )
        yield from _version(folder, path, header, record, triton_tag)
        if record is not None:
            yield from _origin(folder, path, record)
    yield from _hardware(folder)


def _version(
    folder: Path, path: Path, header: plan_header.PlanHeader, record: EngineRecord | None, tag: str | None
) -> Findings:
    """The plan's TensorRT against the one of the release that will serve it."""
    if header.tensorrt is None:
        text = f"has serialization version {header.serialization_version}, whose layout is not known here"
        yield _finding("warning", folder, path, text, "compare TensorRT's versions by hand")
        return
    if tag is None:
        return
    built, compatible = header.tensorrt, record is not None and record.version_compatible
    serving = plan_header.tensorrt_of(tag)
    if serving is None:
        yield _finding(
            "warning",
            folder,
            path,
            f"was built with TensorRT {plan_header.dotted(built)}, and that of Triton {tag} is not known here",
            "compare with `dpkg -l | grep libnvinfer` in the server's image",
        )
    elif sentence := plan_header.obstacle(built, tag, version_compatible=compatible):
        remedy = f"build it in nvcr.io/nvidia/tensorrt:{tag[:5]}-py3, or serve with the release that it was built for"
        yield _finding("error", folder, path, f"cannot run: {sentence}", remedy)
    elif compatible:
        yield _finding(
            "warning",
            folder,
            path,
            "is version compatible, which Triton refuses to load by default",
            "serve with --backend-config=tensorrt,version-compatible=true",
        )


def _origin(folder: Path, path: Path, record: EngineRecord) -> Findings:
    """Whether the plan is what was published, and of the ONNX file that lies beside it."""
    for changed in record.changed_files(folder):
        yield Finding("error", f"{folder.name}/{changed.name}", "", changed.message, _build(folder, "--force"))
    onnx = folder / ONNX
    if not files.problem(folder, ONNX) and files.sha256(onnx) != record.onnx_sha256:
        text = f"was built from another model.onnx (SHA-256 {record.onnx_sha256[:12]}...) than the one beside it"
        yield _finding("error", folder, path, text, _build(folder))


def _hardware(folder: Path) -> Findings:
    """Whether one of the plans is for this machine's GPU; nothing is said where there is none."""
    card, records = gpu.find(), engine_record.records(folder)
    if card is None:
        return
    fitting = [record for record in records if _runs(record, card)]
    for record in fitting:
        if record.options.get("hardware_compatibility") == "none" and record.gpu.name != card.name:
            text = f"was built on {record.gpu.name}, this is {card.name}: TensorRT advises against it"
            yield _finding("warning", folder, folder / "1" / record.plan, text, f"{_build(folder)} here")
    for record in records if not fitting else ():
        yield _finding(
            "error",
            folder,
            folder / "1" / record.plan,
            f"cannot run: it was built for compute capability {record.gpu.compute_capability} ({record.gpu.name}), "
            f"this GPU has {card.compute_capability} ({card.name})",
            f"{_build(folder)} here",
        )


def _runs(record: EngineRecord, card: Gpu) -> bool:
    if record.gpu.compute_capability == card.compute_capability:
        return True
    if record.options.get("hardware_compatibility") != "ampere-plus":
        return False
    return min(_numbers(card), _numbers(record.gpu)) >= (8, 0)


def _numbers(card: Gpu) -> tuple[int, ...]:
    return tuple(map(int, card.compute_capability.split(".")))


def _finding(severity: Severity, folder: Path, path: Path, message: str, remedy: str) -> Finding:
    return Finding(severity, f"{folder.name}/1/{path.name}", "", message, remedy)


def _build(folder: Path, *options: str) -> str:
    return export(folder, "--engine", *options, otherwise="build it again from the ONNX file")
