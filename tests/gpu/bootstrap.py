"""From carried parts to the proof, on a GPU machine without network: `python3 tests/gpu/bootstrap.py PARTS... -- ...`.

Joins the parts, installs the wheels among them into a virtual environment that also sees this machine's own packages
(torch with CUDA's libraries), says what is missing before anything is measured, and runs tests/gpu/proof.py with the
arguments behind `--`; without `--` it ends there. What an earlier call joined and installed stays.
Standard library only.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
CHECK = """
import ctypes, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from server.environment import find_installation
print("libpython:", find_installation().library_dirs[0])
import onnxruntime
print("onnxruntime", onnxruntime.__version__, "numpy", __import__("numpy").__version__)
for provider in Path(onnxruntime.__file__).parent.glob("capi/libonnxruntime_providers_cuda.so"):
    try:
        ctypes.CDLL(str(provider))  # before torch is there: inside Triton's stub, the search path alone has to do
    except OSError as error:
        said = str(error)
        if "libcuda.so" in said:
            print("no NVIDIA driver:", said)
        elif "Provider_" not in said:  # what ONNX Runtime's own library gives it
            print("warning: ONNX Runtime's CUDA provider cannot be loaded by itself:", said)
try:
    import torch
    print("torch", torch.__version__, "CUDA", torch.version.cuda, "usable:", torch.cuda.is_available())
except ImportError as error:
    print("no torch:", error)
"""

LOOK = """
import importlib.util
found = importlib.util.find_spec("nvidia")
print(*(found.submodule_search_locations if found else ()), sep="\\n")
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """The proof's exit status, or 2 with one line for what keeps it from running."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    own, rest = (words[: words.index("--")], words[words.index("--") + 1 :]) if "--" in words else (words, None)
    command = argparse.ArgumentParser(prog="bootstrap.py", description=__doc__)
    command.add_argument("parts", type=Path, nargs="*", metavar="PARTS", help="folders that parts.py split wrote")
    command.add_argument("--into", type=Path, default=ROOT / "results" / "gpu-machine", metavar="DIR")
    command.add_argument("--site", type=Path, action="append", default=[], metavar="DIR",
                         help="a site-packages folder to see as well, of a Python of the same version")  # fmt: skip
    given = command.parse_args(own)
    if sys.version_info[:2] != (3, 12):
        return _stop(f"the wheels are for Python 3.12, and this is {sys.version.split()[0]}: run it with python3.12")
    sys.path.insert(0, str(HERE))
    import parts

    given.into.mkdir(parents=True, exist_ok=True)
    try:
        joined = [name for source in given.parts for name in parts.join(source, given.into)]
    except parts.PartsError as error:
        return _stop(str(error))
    python = environment(given.into / "venv", given.site)
    if status := install(python, [str(given.into / name) for name in joined if name.endswith(".whl")]):
        return _stop(f"pip ended with status {status}: see its lines above")
    variables = os.environ | library_path(given.into, python)
    if subprocess.run([python, "-c", CHECK, str(ROOT)], env=variables, check=False).returncode:
        return _stop("the environment is not fit to serve: see the last line above")
    if rest is None:
        return 0
    artefacts = ["--artefacts", str(given.into / "artefacts")] if (given.into / "artefacts").is_dir() else []
    return subprocess.run([python, str(HERE / "proof.py"), *artefacts, *rest], env=variables, check=False).returncode


def environment(folder: Path, sites: Sequence[Path]) -> str:
    """The interpreter of a virtual environment that sees this machine's packages behind its own, made if need be."""
    python = folder / "bin" / "python"
    if (
        not python.exists()
    ):  # without pip: a Debian may lack ensurepip, and the machine's own pip can install from outside
        made = [sys.executable, "-m", "venv", "--system-site-packages", "--without-pip", str(folder)]
        subprocess.run(made, check=True)
    packages = next(folder.glob("lib/python3.*/site-packages"))
    seen = [*sites, *machine_packages()]
    (packages / "machine.pth").write_text("".join(f"{site.resolve()}\n" for site in seen))
    return str(python)


def machine_packages() -> list[Path]:
    """This interpreter's own packages where it is itself of a virtual environment, which another one would not see."""
    if sys.prefix == sys.base_prefix:
        return []
    return [Path(path) for path in dict.fromkeys((sysconfig.get_path("purelib"), sysconfig.get_path("platlib")))]


def install(python: str, wheels: Sequence[str]) -> int:
    """pip's status; nothing is resolved and nothing looked up: the list is complete."""
    if not wheels:
        return 0
    options = ["--no-index", "--no-deps", "--no-compile", "--no-cache-dir", "--ignore-installed"]
    pip = [sys.executable, "-m", "pip", "--python", python, "--quiet", "--disable-pip-version-check"]
    return subprocess.run([*pip, "install", *options, *wheels], check=False).returncode


def library_path(folder: Path, python: str) -> dict[str, str]:
    """LD_LIBRARY_PATH with CUDA's libraries and the driver's, where they have to be said."""
    found = [*cuda_libraries(python), *driver(folder)]
    if not found:
        return {}
    return {"LD_LIBRARY_PATH": os.pathsep.join([*found, *filter(None, [os.environ.get("LD_LIBRARY_PATH")])])}


def cuda_libraries(python: str) -> list[str]:
    """The folders of the nvidia-* packages: ONNX Runtime looks for them beside itself, and torch's lie elsewhere."""
    told = subprocess.run([python, "-c", LOOK], capture_output=True, text=True, check=True).stdout
    return [str(path) for root in told.splitlines() for path in sorted(Path(root).glob("*/lib"))]


def driver(folder: Path) -> list[str]:
    """A folder with a libcuda.so where only libcuda.so.1 is there: Triton's python backend wants the first."""
    try:
        ctypes.CDLL("libcuda.so")
    except OSError:
        try:
            ctypes.CDLL("libcuda.so.1")
        except OSError:
            return []  # no driver: the proof says so and runs dry
        links = folder / "driver"
        links.mkdir(exist_ok=True)
        (links / "libcuda.so").unlink(missing_ok=True)
        (links / "libcuda.so").symlink_to(_mapped("libcuda.so.1"))
        return [str(links)]
    return []


def _mapped(name: str) -> str:
    """The path of a library that this process has loaded."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return next(line.split(maxsplit=5)[5] for line in lines if f"/{name.removesuffix('.1')}" in line)


def _stop(why: str) -> int:
    print(f"error: {why}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
