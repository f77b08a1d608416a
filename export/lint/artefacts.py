"""Lint rules for what lies beside a configuration: artefacts, labels, manifests, companions, named configurations."""

from __future__ import annotations

import codecs
import os
from collections.abc import Sequence
from functools import cache
from math import prod
from pathlib import Path
from typing import Any

from export import files, recipes
from export.added.recipe_file import FILE as RECIPE
from export.config import contract
from export.errors import ContractError, ExportError, FileError
from export.graph import signature
from export.graph.signature import Signature
from export.lint import batch, engine
from export.lint.finding import Finding, Findings, Subject
from export.precision import int8_form
from export.repository.manifest import FILE as MANIFEST
from export.repository.manifest import Manifest

DEFAULT_FILES = {
    "onnxruntime": "model.onnx",
    "onnxruntime_onnx": "model.onnx",
    "tensorrt": "model.plan",
    "tensorrt_plan": "model.plan",
    "python": "model.py",
}


def check(subject: Subject) -> Findings:
    """All rules about one configuration and the files it names."""
    yield from _artefact(subject)
    yield from _labels(subject)


def check_folder(folder: Path, subjects: Sequence[Subject], triton_tag: str | None = None) -> Findings:
    """All rules about a model folder as a whole: versions, manifest, graph, engines, companions, agreement of
    configurations."""
    if not _versions(folder):
        yield Finding(
            "error", folder.name, "", "there is no version folder, so Triton serves nothing", "make one: the folder `1`"
        )
    try:
        manifest = Manifest.read(folder)
    except ExportError as error:
        yield Finding(
            "error",
            f"{folder.name}/{MANIFEST}",
            "",
            error.what,
            _export(_main_model(folder.name), folder=folder),
        )
        manifest = None
    if manifest is not None:
        for changed in manifest.changed_files(folder):
            yield Finding(
                "error",
                f"{folder.name}/{changed.name}",
                "",
                changed.message,
                _export(manifest.of or folder.name, force=True, folder=folder),
            )
    yield from _graph(folder, subjects, manifest)
    for version in _versions(folder)[-1:]:
        yield from batch.check_folder(version, subjects)
    yield from _int8(folder, subjects)
    yield from engine.check_folder(folder, triton_tag)
    yield from _companion(folder, manifest)
    yield from _agreement(subjects)


def _artefact(subject: Subject) -> Findings:
    message = subject.message
    backend = message.backend or message.platform
    if backend not in DEFAULT_FILES or not _versions(subject.folder):
        return
    version = _versions(subject.folder)[-1]
    names = list(message.cc_model_filenames.values()) or [message.default_model_filename or DEFAULT_FILES[backend]]
    for name in names:
        if not (problem := files.problem(subject.folder, f"{version.name}/{name}")):
            continue
        field = "default_model_filename" if message.default_model_filename else ""
        text = f"{version.name}/{name} {problem}"
        if subject.variant is not None:
            # An engine for hardware that this machine does not have.
            yield subject.warning(
                field, f"{text}: this configuration cannot be served here", "build it where it is served"
            )
        elif backend == "python":
            yield subject.error(field, text, "write the python model there")
        else:
            yield subject.error(field, text, _export(subject.folder.name, folder=subject.folder))


def _labels(subject: Subject) -> Findings:
    for index, output in enumerate(subject.message.output):
        if not output.label_filename:
            continue
        path, field = subject.folder / output.label_filename, f"output[{index}].label_filename"
        if problem := files.problem(subject.folder, output.label_filename):
            yield subject.error(field, f"{output.label_filename} {problem}", _export(subject.folder.name))
            continue
        try:
            content = files.read(path)
        except FileError as error:
            yield subject.error(field, f"{output.label_filename} {error.why}", _export(subject.folder.name))
            continue
        if found := _beside_labels(content):
            yield subject.error(
                field,
                f"{output.label_filename} {found}, which Triton takes for a part of a label",
                "save it as UTF-8 without a byte-order mark, with \\n at the end of each line",
            )
        lines = len(content.removesuffix(b"\n").split(b"\n"))  # as Triton reads it
        if -1 not in output.dims and lines != prod(output.dims):
            yield subject.error(
                field,
                f"{output.label_filename} has {lines} lines, output '{output.name}' has dims {list(output.dims)}",
                "write one label a line for each number of the output",
            )


def _beside_labels(content: bytes) -> str:
    """What a file of labels holds that is none; empty where it is as it should be."""
    if content.startswith((codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "begins with a byte-order mark"
    for number, line in enumerate(content.split(b"\n"), start=1):
        if b"\r" in line:
            return f"line {number} has a carriage return"
        if "\N{REPLACEMENT CHARACTER}" in line.decode(errors="replace"):
            return f"line {number} is not UTF-8"
    return ""


def _graph(folder: Path, subjects: Sequence[Subject], manifest: Manifest | None) -> Findings:
    """Every configuration against the graph it serves, by the manifest's signature or by reading the file."""
    for subject in subjects:
        if not contract.serves_onnx(subject.message) or not _versions(folder):
            continue
        name = subject.message.default_model_filename or contract.ONNX_FILE
        path = _versions(folder)[-1] / name
        if files.problem(folder, path.relative_to(folder)):
            continue  # `_artefact` says so
        if manifest is None:
            yield subject.warning(
                "",
                f"{path.parent.name}/{name} has no manifest: where it comes from is not known",
                _export(folder.name, folder=folder),
            )
        try:
            graph = _signature(path, path.stat().st_mtime_ns)
        except ContractError as error:
            yield Finding(
                "error",
                f"{folder.name}/{path.parent.name}/{name}",
                "",
                str(error),
                _export(folder.name, force=True, folder=folder),
            )
            continue
        for breach in contract.mismatches(subject.config, graph, name):
            yield subject.error(breach.field, breach.message, breach.remedy)


@cache
def _signature(path: Path, modified_ns: int) -> Signature:
    """Read once for all configurations of a model; `modified_ns` makes a changed file another one."""
    del modified_ns
    return signature.from_onnx(path)[0]


def _int8(folder: Path, subjects: Sequence[Subject]) -> Findings:
    """An INT8 graph that only CPUs take must not be what TensorRT is to build an engine from."""
    path = folder / "1" / contract.ONNX_FILE
    wanting = [(subject, field) for subject in subjects if (field := _tensorrt_field(subject.message)) is not None]
    if not wanting or files.problem(folder, path.relative_to(folder)):
        return
    try:
        obstacle = int8_form.tensorrt_obstacle(path)
    except (FileError, OSError, ValueError):
        return  # `_graph` says that it is no ONNX file
    if obstacle is None:
        return
    for subject, field in wanting:
        yield subject.error(
            field,
            f"TensorRT takes INT8 with zero point 0 only, and in 1/{path.name} {obstacle}",
            f"run `fathom export {folder.name} --precision int8 --int8-for tensorrt`",
        )


def _tensorrt_field(message: Any) -> str | None:
    """The field by which a configuration asks for TensorRT, as backend or as ONNX Runtime's accelerator."""
    if message.backend == "tensorrt" or message.platform == "tensorrt_plan":
        return "backend" if message.backend else "platform"
    accelerators = message.optimization.execution_accelerators.gpu_execution_accelerator
    for index, accelerator in enumerate(accelerators):
        if accelerator.name == "tensorrt":
            return f"optimization.execution_accelerators.gpu_execution_accelerator[{index}].name"
    return None


def _companion(folder: Path, manifest: Manifest | None) -> Findings:
    """A python model whose files come from another model's export must have them, and of the same weights."""
    main = _main_model(folder.name)
    if main == folder.name:
        return
    place = f"{folder.name}/{MANIFEST}"
    if manifest is None:
        if not os.path.lexists(folder / MANIFEST):
            yield Finding("error", place, "", f"the files that come with {main} are missing", _export(main))
        return
    try:
        of = Manifest.read(folder.parent / main)
    except ExportError:
        return
    if of is not None and of.source_sha256 != manifest.source_sha256:
        yield Finding(
            "error",
            place,
            "source.sha256",
            f"its files are of other weights ({manifest.source_sha256[:12]}...) than those of {main} "
            f"({of.source_sha256[:12]}...)",
            _export(main, force=True),
        )


def _agreement(subjects: Sequence[Subject]) -> Findings:
    """A named configuration may tune, but a client must not be able to tell the difference.

    Names, types, dims, labels and decoupling must be those of config.pbtxt. max_batch_size may differ, since a client
    reads it from the server, but not between batching and none, which changes the shapes on the wire.
    """
    main = next((subject for subject in subjects if subject.variant is None), None)
    if main is None:
        return
    for subject in subjects:
        if subject.variant is None:
            continue
        for kind in ("input", "output"):
            yield from _same_tensors(subject, main, kind)
        batched, expected = subject.message.max_batch_size > 0, main.message.max_batch_size > 0
        if batched != expected:
            yield subject.error(
                "max_batch_size",
                f"max_batch_size is {subject.message.max_batch_size}, config.pbtxt has {main.message.max_batch_size}: "
                "one batches and the other does not",
                "batch in both or in none",
            )
        if subject.message.model_transaction_policy.decoupled != main.message.model_transaction_policy.decoupled:
            yield subject.error("model_transaction_policy.decoupled", "config.pbtxt has the other", "write what it has")


def _same_tensors(subject: Subject, main: Subject, kind: str) -> Findings:
    expected = {tensor.name: tensor for tensor in getattr(main.message, kind)}
    written = {tensor.name: (index, tensor) for index, tensor in enumerate(getattr(subject.message, kind))}
    for name in expected.keys() - written.keys():
        yield subject.error(kind, f"{kind} '{name}' of config.pbtxt is missing", f"add {kind} '{name}'")
    for name, (index, tensor) in written.items():
        field = f"{kind}[{index}]"
        if name not in expected:
            yield subject.error(f"{field}.name", f"config.pbtxt has no {kind} '{name}'", f"remove {kind} '{name}'")
            continue
        for part, label in (("data_type", "data_type"), ("dims", "dims"), ("label_filename", "label_filename")):
            have, want = _plain(tensor, part), _plain(expected[name], part)
            if have != want:
                yield subject.error(
                    f"{field}.{part}", f"{label} of '{name}' is {have}, config.pbtxt has {want}", "write what it has"
                )


def _plain(tensor: Any, part: str) -> Any:
    from tritonclient.grpc import model_config_pb2

    if part == "data_type":
        return model_config_pb2.DataType.Name(tensor.data_type)
    value = getattr(tensor, part, "")
    return list(value) if part == "dims" else value


def _versions(folder: Path) -> list[Path]:
    """The version folders that Triton would see, lowest first."""
    numbered = [path for path in folder.iterdir() if path.is_dir() and path.name.isdecimal() and path.name[0] != "0"]
    return sorted(numbered, key=lambda path: int(path.name))


def _main_model(name: str) -> str:
    """The model whose export provides a companion's files; the name itself for any other model."""
    for known in recipes.NAMES:
        pipeline = recipes.find(known).pipeline
        if pipeline is not None and name in pipeline.companions:
            return known
    return name


def _export(name: str, *, force: bool = False, folder: Path | None = None) -> str:
    if name not in recipes.NAMES and not (folder is not None and (folder / RECIPE).is_file()):
        return "put the model's file there"
    return f"run `fathom export {name}{' --force' if force else ''}`"
