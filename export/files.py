"""Files that somebody else wrote or named: regular files of one folder, read whole and up to a size.

A model repository may come from elsewhere. What its texts name must not lead out of the model's folder, also not by a
link, and a pipe or a device in the place of a file must not stop the reader.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import tomllib
from io import BufferedReader
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
from numpy.typing import NDArray

from export.errors import FileError

TEXT_BYTES = 16 << 20
"""The most of a configuration, a recipe, a manifest or a file of labels."""

ARRAYS_BYTES = 4 << 30
"""The most that the arrays of an .npz file may have together, unpacked."""


def find(folder: Path, name: str | Path, *others: Path, or_folder: bool = False) -> Path:
    """The regular file of a folder by its name in it, or by its whole path. Nothing outside this and the `others` is
    looked at.

    Raises FileNotFoundError where it is missing, and FileError where the name leads out of the folder, by itself or by
    a link, or where it is no regular file, nor a folder with `or_folder`.
    """
    path = folder / name if isinstance(name, str) else name
    try:
        whole = path.resolve()
        if not any(whole.is_relative_to(home.resolve()) for home in (folder, *others)):
            raise FileError(path, "leads out of its folder", remedy="put the file itself there")
        mode = whole.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(2, "is missing", str(path)) from None
    except (OSError, ValueError, RuntimeError) as error:  # a NUL in the name; a circle of links
        raise _unreadable(path, error) from None
    if not (stat.S_ISREG(mode) or (or_folder and stat.S_ISDIR(mode))):
        raise FileError(path, "is not a regular file", remedy="put a file there")
    return path


def problem(folder: Path, name: str | Path, *, or_folder: bool = False) -> str:
    """What is wrong with a file as the end of a sentence, such as `is missing`; empty where `find` returns it."""
    try:
        find(folder, name, or_folder=or_folder)
    except FileError as error:
        return error.why
    except FileNotFoundError:
        return "is missing"
    return ""


def open_file(path: Path) -> BufferedReader:
    """Open a regular file to read; a pipe does not block. Raises FileNotFoundError, and FileError for what is none or
    cannot be read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise FileError(path, "is not a regular file", remedy="put a file there")
    return os.fdopen(descriptor, "rb")


def read(path: Path, *, most_bytes: int = TEXT_BYTES) -> bytes:
    """A file's bytes. Raises FileNotFoundError, and FileError for a larger file than `most_bytes` or no regular one."""
    with open_file(path) as file:
        content = file.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise FileError(path, f"has more than {most_bytes:,} bytes", remedy="this is not what Fathom writes there")
    return content


def read_text(path: Path) -> str:
    """A UTF-8 text. Raises FileNotFoundError and FileError."""
    try:
        return read(path).decode()
    except UnicodeDecodeError as error:
        raise FileError(path, f"is not UTF-8 ({error.reason} at byte {error.start})") from None


def read_json(path: Path) -> Any:
    """A JSON document. Raises FileNotFoundError and FileError."""
    return _parsed(path, json.loads)


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML document. Raises FileNotFoundError and FileError."""
    found: dict[str, Any] = _parsed(path, tomllib.loads)
    return found


def read_npz(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of an .npz file, none of them a pickle. Raises FileNotFoundError, and FileError for any other file."""
    with open_file(path) as raw:
        try:
            with ZipFile(raw) as archive:
                if (size := sum(part.file_size for part in archive.infolist())) > ARRAYS_BYTES:
                    raise ValueError(f"its arrays have {size:,} bytes together, more than {ARRAYS_BYTES:,}")
            raw.seek(0)
            with np.load(raw, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            if wrong := [name for name, array in arrays.items() if not isinstance(array, np.ndarray)]:
                raise ValueError(f"{wrong[0]} is not an array")
        except Exception as error:  # zipfile, zlib, lzma and numpy raise some fifteen kinds between them
            lines = str(error).splitlines() or [type(error).__name__]
            raise FileError(path, f"is not an .npz file of plain arrays ({lines[0]})") from None
    return arrays


def sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hex. Raises FileNotFoundError, and FileError for no regular file."""
    with open_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _unreadable(path: Path, error: Exception) -> FileError:
    why = error.strerror if isinstance(error, OSError) else error
    return FileError(path, f"cannot be read ({why})")


def _parsed(path: Path, parse: Any) -> Any:
    try:
        return parse(read_text(path))
    except RecursionError:
        raise FileError(path, "cannot be read (it is nested too deeply)") from None
    except ValueError as error:
        raise FileError(path, f"cannot be read ({error})") from None
