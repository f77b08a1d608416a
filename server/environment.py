"""Find tritonserver, and refuse environments in which it would answer wrongly.

An installed Triton (/opt/tritonserver, as in the official container) runs with its own backends. Elsewhere the server
is that of the nvidia-pytriton wheel, which has the python backend alone.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import re
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from server.errors import EnvironmentNotFitError

VARIABLE = "FATHOM_TRITONSERVER"
INSTALLED = Path("/opt/tritonserver")
NUMPY_2_SINCE = (2, 53)
"""Triton whose python backend takes numpy 2; an older one returns empty outputs without an error."""


@dataclass(frozen=True)
class Installation:
    """Where the parts of a Triton lie on this machine.

    `stub` is the python backend's process where it does not lie in `backends/python`. With `own_python` the stubs run
    in this interpreter's environment; otherwise in that of the first python3 on PATH, as they were installed.
    """

    tritonserver: Path
    backends: Path
    stub: Path | None
    own_python: bool
    library_dirs: tuple[Path, ...]

    @property
    def caches(self) -> Path:
        """The folder of its response caches."""
        return self.tritonserver.parents[1] / "caches"

    def has(self, backend: str) -> bool:
        """Whether it brings a backend of this name."""
        return (self.backends / backend).is_dir()

    def environment(self) -> dict[str, str]:
        """The variables tritonserver and its python stubs run with."""
        inherited = os.environ.get("LD_LIBRARY_PATH", "")
        libraries = [str(path) for path in self.library_dirs] + ([inherited] if inherited else [])
        # The stub embeds Python and finds this environment's packages through the first python3 on PATH.
        own = [str(Path(sys.executable).parent)] if self.own_python else []
        return os.environ | {
            "LD_LIBRARY_PATH": os.pathsep.join(libraries),
            "PATH": os.pathsep.join([*own, os.environ.get("PATH", os.defpath)]),
        }


def find_installation(path: str | os.PathLike[str] | None = None) -> Installation:
    """The Triton at `path` (the program, or the folder with bin/tritonserver), by default of `folder`.

    Raises EnvironmentNotFitError with what to install when a part is missing, when numpy is 2 or newer and the python
    backend is too old for it, or when no libpython fits this interpreter.
    """
    root = folder(path)
    program, backends = root / "bin" / "tritonserver", root / "backends"
    if not (program.is_file() and backends.is_dir()):
        raise EnvironmentNotFitError(
            f"there is no Triton in '{root}': name the program tritonserver, or the folder with bin/tritonserver and "
            "backends/",
            needs="tritonserver",
        )
    if (stubs := root / "python_backend_stubs").is_dir():
        return _of_the_wheel(program, backends, stubs)
    python = _python_of(backends / "python" / "triton_python_backend_stub")
    libraries, own = [root / "lib"], False
    if python == _python():
        try:
            libraries.insert(0, find_libpython().parent)
            own = True
        except EnvironmentNotFitError:
            pass  # then the stubs run as they were installed
    if own and _release(root) < NUMPY_2_SINCE:
        _require_numpy_1()
    return Installation(program, backends, None, own, tuple(libraries))


def folder(path: str | os.PathLike[str] | None = None) -> Path:
    """Where Triton lies: at `path`, else at FATHOM_TRITONSERVER, else in /opt/tritonserver, else in the wheel."""
    if chosen := path or os.environ.get(VARIABLE):
        resolved = Path(chosen).resolve()
        return resolved.parents[1] if resolved.is_file() else resolved
    if (INSTALLED / "bin" / "tritonserver").is_file():
        return INSTALLED
    return _package_dir("pytriton") / "tritonserver"


def runs_engines(path: str | os.PathLike[str] | None = None) -> bool:
    """Whether the Triton at `path` has the TensorRT backend."""
    return has_backend("tensorrt", path)


def has_backend(name: str, path: str | os.PathLike[str] | None = None) -> bool:
    """Whether the Triton at `path` brings a backend of this name."""
    return (folder(path) / "backends" / name).is_dir()


def _of_the_wheel(program: Path, backends: Path, stubs: Path) -> Installation:
    stub = stubs / _python() / "triton_python_backend_stub"
    if not stub.is_file():
        supported = ", ".join(sorted(path.name for path in stubs.iterdir()))
        raise EnvironmentNotFitError(
            f"the embedded Triton has no python backend for Python {_python()} (it has {supported}): "
            "use Python 3.11 or 3.12",
            needs="python",
            found=[_python()],
        )
    _require_numpy_1()
    libraries = (stubs.parent / "lib", stubs.parents[2] / "nvidia_pytriton.libs")
    return Installation(program, backends, stub, True, (find_libpython().parent, *libraries))


def _python() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def _python_of(stub: Path) -> str | None:
    """The Python that a stub is linked with, such as `3.12`."""
    found = re.search(rb"libpython(3\.\d+)\.so", stub.read_bytes()) if stub.is_file() else None
    return found[1].decode() if found else None


def _release(root: Path) -> tuple[int, ...]:
    """The release named by a file of the official image; empty without it."""
    try:
        return tuple(map(int, re.findall(r"\d+", (root / "TRITON_VERSION").read_text())[:2]))
    except OSError:
        return ()


def find_libpython() -> Path:
    """The shared libpython that belongs to the running interpreter.

    The stub links libpython by name; another patch release's library under this interpreter's standard library breaks
    in odd places. Raises EnvironmentNotFitError where no library of exactly this release is found.
    """
    name = f"libpython{_python()}.so.1.0"
    directories = [sysconfig.get_config_var("LIBDIR"), f"{sys.base_prefix}/lib"]
    if multiarch := sysconfig.get_config_var("MULTIARCH"):
        directories += [f"{directories[0]}/{multiarch}", f"/usr/lib/{multiarch}"]
    found: dict[str, str] = {}
    for directory in filter(None, directories):
        candidate = Path(directory) / name
        if candidate.is_file():
            release = _libpython_release(candidate)
            if release == sys.version.split()[0]:
                return candidate
            found[str(candidate)] = release
    others = "; ".join(f"{path} is {release}" for path, release in found.items())
    problem = f"found only another release ({others})" if found else "there is none"
    raise EnvironmentNotFitError(
        f"Triton's python backend needs {name} of Python {sys.version.split()[0]}, and {problem}: install "
        f"libpython{_python()} on Debian or Ubuntu; rebuild with "
        'PYTHON_CONFIGURE_OPTS="--enable-shared" with pyenv; the Pythons of uv and conda bring it',
        needs=name,
        found=list(found.values()),
    )


def _libpython_release(path: Path) -> str:
    library = ctypes.CDLL(str(path))
    library.Py_GetVersion.restype = ctypes.c_char_p
    text: bytes = library.Py_GetVersion()
    return text.decode().split()[0]


def _require_numpy_1() -> None:
    # The stub takes packages from this interpreter's site directories and does not read PYTHONPATH: look as it does.
    look = [sys.executable, "-E", "-c", "import importlib.metadata as m; print(m.version('numpy'))"]
    version = subprocess.run(look, capture_output=True, text=True, check=False).stdout.strip()
    if version.split(".")[0] != "1":
        state = f"numpy {version} is installed" if version else "numpy is not installed"
        raise EnvironmentNotFitError(
            f"{state}, and with anything but numpy 1 the embedded Triton returns empty outputs without an error: "
            "run `pip install 'numpy<2'` in the environment that the server runs in",
            needs="numpy<2",
            found=[version] if version else [],
        )


def _package_dir(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise EnvironmentNotFitError(
            "the embedded Triton is not installed: run `pip install 'fathom-serving[server]'` with Python 3.11 or 3.12",
            needs=name,
        )
    return Path(next(iter(spec.submodule_search_locations)))
