"""Text files that a person wrote or a program exported: read as UTF-8, or refused with file and line."""

from __future__ import annotations

import codecs
from pathlib import Path

from loadtests.errors import InputFileError

_OTHER_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}


def read_text(path: Path) -> str:
    """The text without a byte-order mark; line ends stay as they are. Raises InputFileError."""
    try:
        return decode(path.read_bytes(), path)
    except OSError as error:
        raise InputFileError(path, None, f"cannot be read: {error.strerror or error}") from error


def decode(data: bytes, path: Path) -> str:
    """The text of a file that was read. Raises InputFileError."""
    for mark, name in _OTHER_MARKS.items():
        if data.startswith(mark):
            raise InputFileError(path, None, f"is a {name} file; save it as UTF-8")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        bad = data[error.start]
        raise InputFileError(path, line, f"byte 0x{bad:02x} is not UTF-8; save the file as UTF-8") from error
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise InputFileError(path, line, "there is a NUL character; save the file as UTF-8 text")
    return text


def read_lines(path: Path) -> list[tuple[int, str]]:
    r"""The lines that are not blank, each with its number from 1. A line ends at \n or \r\n and at nothing else.

    U+2028 and its like are ordinary characters of a JSON text. Raises InputFileError.
    """
    lines = (line.removesuffix("\r") for line in read_text(path).split("\n"))
    return [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
