"""Download the wheels of wheels.txt for Python 3.12: `python tests/gpu/wheels.py DIR`; pip's arguments are all here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

LIST = Path(__file__).with_name("wheels.txt")
# pip takes a platform's tag literally: every older manylinux that a wheel may name has to be said.
PLATFORMS = [f"manylinux_2_{minor}_x86_64" for minor in (35, 34, 31, 28, 27, 26, 24, 17, 12, 5)]
PLATFORMS += ["manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64"]


def command(target: Path, requirements: Path = LIST) -> list[str]:
    """The one pip command."""
    platforms = [word for platform in PLATFORMS for word in ("--platform", platform)]
    return [
        sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
        "--only-binary=:all:", "--python-version=3.12", "--implementation=cp", "--abi=cp312", "--abi=abi3",
        "--abi=none", *platforms, f"--dest={target}", f"--requirement={requirements}",
    ]  # fmt: skip


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python tests/gpu/wheels.py DIR")
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    status = subprocess.run(command(folder), check=False).returncode
    if status == 0:
        for wheel in sorted(folder.glob("*.whl")):
            print(f"{wheel.stat().st_size / 1e6:7.1f} MB  {wheel.name}")
    sys.exit(status)
