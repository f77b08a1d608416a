"""The real TensorRT Python bindings on a machine without TensorRT: the wheel over three stub libraries made here.

The bindings need three shared libraries and nine C symbols of them to be imported. Stubs that return nothing are
enough to read every name and signature; a builder cannot be made with them.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

VERSIONS = ("10.16.1.11", "11.4.0.106")
CACHE = Path(sys.prefix) / "cache" / "tensorrt-bindings"
SURFACE_SCRIPT = Path(__file__).with_name("tensorrt_surface.py")

STUBS = {
    "nvinfer": "".join(
        f"void *{name}(void) {{ return 0; }}\n"
        for name in (
            "createInferBuilder_INTERNAL",
            "createInferRefitter_INTERNAL",
            "createInferRuntime_INTERNAL",
            "getBuilderPluginRegistry",
            "getPluginRegistry",
        )
    ),
    "nvinfer_plugin": "int initLibNvInferPlugins(void *logger, const char *name) { return 1; }\n",
    "nvonnxparser": "void *createNvOnnxParser_INTERNAL(void) { return 0; }\n"
    "void *createNvOnnxParserRefitter_INTERNAL(void) { return 0; }\n"
    "int getNvOnnxParserVersion(void) { return 0; }\n",
}


class BindingsError(Exception):
    """The bindings cannot be had here, for want of `missing`; the message says what to do."""

    def __init__(self, message: str, *, missing: str) -> None:
        super().__init__(message)
        self.missing = missing


def environment(version: str, cache: Path = CACHE) -> dict[str, str]:
    """An environment in which `import tensorrt` gives the real bindings of that version. Raises BindingsError."""
    folder = cache / version
    if not (folder / "complete").is_file():
        _lay_out(version, folder)
    return {**os.environ, "PYTHONPATH": str(folder / "imp"), "LD_LIBRARY_PATH": str(folder / "stub")}


@functools.cache
def surface(version: str) -> dict[str, Any]:
    """Every class, member, signature and enum of the real module, read in a process of its own."""
    done = subprocess.run(
        [sys.executable, str(SURFACE_SCRIPT)], env=environment(version), capture_output=True, text=True, timeout=120
    )
    if done.returncode != 0:
        raise BindingsError(
            f"the real bindings {version} could not be imported: {done.stderr.strip()[-500:]}", missing="tensorrt"
        )
    read: dict[str, Any] = json.loads(done.stdout)
    return read


def _lay_out(version: str, folder: Path) -> None:
    """Download, compile and lay out one version, then put it in place by rename."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    room = Path(tempfile.mkdtemp(prefix=f"{version}-", dir=folder.parent))
    try:
        wheel = _download(version, room)
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(room / "wheel")
        (room / "imp").mkdir()
        (room / "wheel" / "tensorrt_bindings").rename(room / "imp" / "tensorrt")
        _compile(version.split(".")[0], room / "stub")
        (room / "complete").touch()
        shutil.rmtree(folder, ignore_errors=True)
        room.rename(folder)
    finally:
        shutil.rmtree(room, ignore_errors=True)


def _download(version: str, folder: Path) -> Path:
    wanted = f"tensorrt-cu13-bindings=={version}"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    done = subprocess.run([*command, "--dest", str(folder), wanted], capture_output=True, text=True, timeout=600)
    wheels = list(folder.glob("*.whl"))
    if done.returncode != 0 or not wheels:
        raise BindingsError(
            f"pip cannot download {wanted}, which this test reads: {done.stderr.strip()[-300:]}", missing=wanted
        )
    return wheels[0]


def _compile(major: str, folder: Path) -> None:
    folder.mkdir()
    if shutil.which("gcc") is None:
        raise BindingsError(
            "gcc is missing, which compiles the stub libraries of this test: install gcc", missing="gcc"
        )
    for name, source in STUBS.items():
        library = f"lib{name}.so.{major}"
        (folder / f"{name}.c").write_text(source)
        subprocess.run(
            ["gcc", "-shared", "-fPIC", "-o", library, f"-Wl,-soname,{library}", f"{name}.c"], cwd=folder, check=True
        )
