"""Find the tritonserver of the nvidia-pytriton wheel, and refuse environments in which it would answer wrongly."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from server.errors import EnvironmentNotFitError


@dataclass(frozen=True)
class Installation:
    """Where the embedded server's parts lie on this machine."""

    tritonserver: Path
    python_backend: Path
    stub: Path
    library_dirs: tuple[Path, ...]

    def environment(self) -> dict[str, str]:
        """The variables tritonserver and its python stubs run with."""
        inherited = os.environ.get("LD_LIBRARY_PATH", "")
        libraries = [str(path) for path in self.library_dirs] + ([inherited] if inherited else [])
        # The stub embeds Python and finds this environment's packages through the first python3 on PATH.
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
        return os.environ | {
            "LD_LIBRARY_PATH": os.pathsep.join(libraries),
            "PATH": path,
        }


def find_installation() -> Installation:
    """Locate the embedded Triton for the running interpreter.

    Raises EnvironmentNotFitError with what to install when a part is missing, when numpy is 2 or newer (the python
    backend of Triton 2.51 then returns empty outputs without an error), or when no libpython fits this interpreter.
    """
    package = _package_dir("pytriton")
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = package / "tritonserver" / "python_backend_stubs" / version / "triton_python_backend_stub"
    if not stub.is_file():
        supported = ", ".join(sorted(p.name for p in stub.parent.parent.iterdir()))
        raise EnvironmentNotFitError(
            f"the embedded Triton has no python backend for Python {version} (it has {supported}): "
            "use Python 3.11 or 3.12",
            needs="python",
            found=[version],
        )
    _require_numpy_1()
    libraries = package.parent / "nvidia_pytriton.libs"
    return Installation(
        tritonserver=package / "tritonserver" / "bin" / "tritonserver",
        python_backend=package / "tritonserver" / "backends" / "python",
        stub=stub,
        library_dirs=(find_libpython().parent, libraries),
    )


def find_libpython() -> Path:
    """The shared libpython that belongs to the running interpreter.

    The stub links libpython by name; another patch release's library under this interpreter's standard library breaks
    in odd places. Raises EnvironmentNotFitError where no library of exactly this release is found.
    """
    name = f"libpython{sys.version_info.major}.{sys.version_info.minor}.so.1.0"
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
        f"libpython{sys.version_info.major}.{sys.version_info.minor} on Debian or Ubuntu; rebuild with "
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
