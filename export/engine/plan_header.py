"""The header of a TensorRT plan, read without TensorRT, and which NGC Triton release can run it.

Layout of serialization version 0 (TensorRT's sampleEngines.cpp, what `trtexec --getPlanVersionOnly` reads): the tag
"ftrt" as a little-endian 32-bit number, the serialization version, and at byte 24 the TensorRT version as four bytes.
NVIDIA may change it, so another serialization version is reported as such and not guessed at.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from pathlib import Path

from export import files
from export.command import export_again
from export.errors import EngineError, FileError

TAG = 0x74727466
SERIALIZATION_VERSION = 0
HEADER_BYTES = 28

Version = tuple[int, ...]

TENSORRT_OF_TAG = {
    "25.12": "10.14.1.48",
    "26.02": "10.15.1",
    "26.05": "10.16.1.11",
    "26.06": "11.0.0",
    "26.08": "11.2.1.2",
}
"""TensorRT of `tritonserver:<tag>-py3`, as far as it could be established from public sources."""


@dataclass(frozen=True)
class PlanHeader:
    """The first bytes of a plan. `tensorrt` is (major, minor, patch, build); None in an unknown layout."""

    serialization_version: int
    tensorrt: Version | None


def read_header(path: Path) -> PlanHeader:
    """Read a plan's header. Raises EngineError when the file is missing, too short, or no plan."""
    again = export_again(path.parent.parent, "--engine", "--force")
    try:
        with files.open_file(path) as file:
            head = file.read(HEADER_BYTES)
    except FileError as error:
        raise EngineError(error.what, remedy=error.remedy or again, file=path) from None
    except FileNotFoundError:
        raise EngineError(f"{path} is missing", remedy=again, file=path) from None
    if len(head) < HEADER_BYTES:
        raise EngineError(
            f"{path.name} has {len(head)} bytes, a plan's header has {HEADER_BYTES}",
            remedy=again,
            file=path,
            found=len(head),
            expected=HEADER_BYTES,
        )
    tag, serialization = struct.unpack_from("<II", head)
    if tag != TAG:
        raise EngineError(
            f"{path.name} does not begin with TensorRT's tag 'ftrt' (found {head[:4]!r})",
            remedy=again,
            file=path,
            found=head[:4],
            expected=b"ftrt",
        )
    known = serialization == SERIALIZATION_VERSION
    return PlanHeader(serialization, tuple(head[24:28]) if known else None)


def tensorrt_of(tag: str) -> str | None:
    """The TensorRT version in a Triton release such as `26.05` or `26.05-py3`; None where it is not known."""
    release = re.match(r"\d\d\.\d\d", tag)
    return TENSORRT_OF_TAG.get(release[0]) if release else None


def obstacle(built_with: Version, tag: str, *, version_compatible: bool = False) -> str | None:
    """Why a plan of this TensorRT version cannot run in a Triton release, as a sentence; None where it can.

    A plan runs in exactly the TensorRT version it was built with; a version compatible one also in newer ones, never
    in older ones. An unknown release is no obstacle: see `tensorrt_of`.
    """
    serving = tensorrt_of(tag)
    if serving is None:
        return None
    wanted = parse(serving)
    length = min(len(wanted), len(built_with))
    built, runs = built_with[:length], wanted[:length]
    if built == runs or (version_compatible and built < runs):
        return None
    sentence = f"it was built with TensorRT {dotted(built_with)}, Triton {tag} has TensorRT {serving}"
    if version_compatible:
        return f"{sentence}: even a version compatible engine does not run in an older TensorRT"
    return f"{sentence}: an engine runs only in the version that built it"


def parse(version: str) -> Version:
    """`10.16.1.11` as (10, 16, 1, 11); a suffix such as `.post1` is left out."""
    return tuple(int(part) for part in re.match(r"\d+(\.\d+)*", version)[0].split("."))  # type: ignore[index]


def dotted(version: Version) -> str:
    """(10, 16, 1, 11) as `10.16.1.11`."""
    return ".".join(map(str, version))
