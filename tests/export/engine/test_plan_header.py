"""Plan headers, Triton releases, and what is said when they do not meet."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from export.engine import plan_header
from export.errors import EngineError


def header(version: tuple[int, int, int, int], tag: int = plan_header.TAG, serialization: int = 0) -> bytes:
    return struct.pack("<II16x4B", tag, serialization, *version) + b"engine"


def test_the_header_gives_the_tensorrt_version(tmp_path: Path) -> None:
    path = tmp_path / "model.plan"
    path.write_bytes(header((10, 16, 1, 11)))
    assert path.read_bytes()[:4] == b"ftrt"
    assert plan_header.read_header(path) == plan_header.PlanHeader(0, (10, 16, 1, 11))


def test_another_layout_is_not_guessed_at(tmp_path: Path) -> None:
    path = tmp_path / "model.plan"
    path.write_bytes(header((10, 16, 1, 11), serialization=1))
    assert plan_header.read_header(path) == plan_header.PlanHeader(1, None)


@pytest.mark.parametrize(
    ("content", "found", "expected"),
    [
        pytest.param(None, None, None, id="no file"),
        pytest.param(header((10, 0, 0, 1))[:20], 20, plan_header.HEADER_BYTES, id="cut short"),
        pytest.param(b"\x08\x0a" + bytes(60), b"\x08\x0a\0\0", b"ftrt", id="an ONNX file"),
    ],
)
def test_what_is_no_plan_is_refused(tmp_path: Path, content: bytes | None, found: object, expected: object) -> None:
    path = tmp_path / "model.plan"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(EngineError) as caught:
        plan_header.read_header(path)
    assert (caught.value.file, caught.value.found, caught.value.expected) == (str(path), found, expected)


@pytest.mark.parametrize(
    ("built", "tag", "compatible", "names"),
    [
        pytest.param((10, 16, 1, 11), "26.05-py3", False, None, id="the same version"),
        pytest.param((10, 15, 1, 29), "26.02", False, None, id="the same as far as the release's is known"),
        pytest.param((10, 16, 1, 11), "26.06", False, "11.0.0", id="newer server"),
        pytest.param((10, 16, 1, 11), "26.06", True, None, id="newer server, version compatible"),
        pytest.param((11, 0, 0, 114), "26.05", True, "10.16.1", id="older server, compatible"),
        pytest.param((11, 4, 0, 106), "26.09", False, None, id="a release whose version is not known"),
        pytest.param((11, 4, 0, 106), "99.01", False, None, id="a release not in the table"),
    ],
)
def test_whether_a_release_can_run_a_plan(
    built: tuple[int, ...], tag: str, compatible: bool, names: str | None
) -> None:
    sentence = plan_header.obstacle(built, tag, version_compatible=compatible)
    assert (sentence is None) if names is None else (names in (sentence or ""))
