"""Step 0: the models at every precision, as folders that Triton loads."""

from __future__ import annotations

import shutil

from fathom.proof import resnet50
from fathom.proof.context import Context
from fathom.proof.subject import Subject


def measure(context: Context) -> None:
    """Make ResNet-50 here; take the bundled models from the artefacts, at fp32 also from the model repository."""
    for precision in context.settings.precisions:
        for name in context.settings.models:
            subject = Subject(name, precision, context.room)
            if context.out_of_time(subject.name):
                continue
            try:
                if name == resnet50.NAME:
                    _make_resnet50(context, precision)
                else:
                    _take(context, subject)
            except Exception as error:
                shutil.rmtree(subject.folder, ignore_errors=True)
                context.fail(subject.name, error)
                continue
            if subject.onnx.is_file():
                context.add(model=name, precision=precision, bytes=subject.onnx.stat().st_size)


def _make_resnet50(context: Context, precision: str) -> None:
    subject = Subject(resnet50.NAME, precision, context.room)
    if precision == "fp32":
        resnet50.write(subject.repository, rows=min(resnet50.ROWS, context.settings.evaluated_rows))
        return
    full = Subject(resnet50.NAME, "fp32", context.room).folder
    if not full.is_dir():
        context.skip(subject.name, "there is no resnet50 fp32 to reduce")
        return
    resnet50.write_reduced(full, subject.repository, precision, context.room)


def _take(context: Context, subject: Subject) -> None:
    places = [] if context.artefacts is None else [context.artefacts / subject.precision]
    if subject.precision == "fp32":
        places.append(context.repository)
    for place in places:
        folder = place / subject.model
        if (folder / "1" / "model.onnx").is_file() and (folder / "1" / "reference.npz").is_file():
            shutil.copytree(folder, subject.folder, ignore=shutil.ignore_patterns("__pycache__", "*.plan*"))
            return
    remedy = f"python -m fathom.proof.artefacts DIR, then --artefacts DIR, makes {subject.precision}"
    context.skip(subject.name, f"{subject.model} was not exported at {subject.precision}: {remedy}")
