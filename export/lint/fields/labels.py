"""Lint rules for files of labels: one a line for each number of an output, in a form that Triton reads."""

from __future__ import annotations

import codecs
from math import prod

from export import files
from export.errors import FileError
from export.lint.finding import Findings, Subject, rule
from export.lint.remedies import export


@rule
def labels(subject: Subject) -> Findings:
    """Every output's file of labels."""
    for index, output in enumerate(subject.message.output):
        if not output.label_filename:
            continue
        path, field = subject.folder / output.label_filename, f"output[{index}].label_filename"
        if problem := files.problem(subject.folder, output.label_filename):
            yield subject.error(field, f"{output.label_filename} {problem}", export(subject.folder))
            continue
        try:
            content = files.read(path)
        except FileError as error:
            yield subject.error(field, f"{output.label_filename} {error.why}", export(subject.folder))
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
