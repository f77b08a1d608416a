"""Download wheels for Python 3.12: `python tests/gpu/wheels.py DIR LIST...`, of the lists in tests/gpu/wheels/.

`needed` is what a machine with torch and the usual libraries lacks, `minilm` its weights, `common` the usual libraries.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

LISTS = Path(__file__).with_name("wheels")
# pip takes a platform's tag literally: every older manylinux that a wheel may name has to be said.
PLATFORMS = [f"manylinux_2_{minor}_x86_64" for minor in (35, 34, 31, 28, 27, 26, 24, 17, 12, 5)]
PLATFORMS += ["manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64"]


def command(target: Path, names: Sequence[str]) -> list[str]:
    """The one pip command for these lists: nothing is resolved, they name every wheel."""
    platforms = [word for platform in PLATFORMS for word in ("--platform", platform)]
    return [
        sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
        "--only-binary=:all:", "--python-version=3.12", "--implementation=cp", "--abi=cp312", "--abi=abi3",
        "--abi=none", *platforms, f"--dest={target}",
        *(f"--requirement={LISTS / name}.txt" for name in names),
    ]  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """pip's status."""
    parser = argparse.ArgumentParser(prog="wheels.py", description=__doc__)
    parser.add_argument("target", type=Path, metavar="DIR")
    known = sorted(path.stem for path in LISTS.glob("*.txt"))
    parser.add_argument("lists", nargs="+", choices=known, metavar="LIST", help=f"of {', '.join(known)}")
    given = parser.parse_args(arguments)
    given.target.mkdir(parents=True, exist_ok=True)
    status = subprocess.run(command(given.target, given.lists), check=False).returncode
    if status == 0:
        for wheel in sorted(given.target.glob("*.whl")):
            print(f"{wheel.stat().st_size / 1e6:7.1f} MB  {wheel.name}")
    return status


if __name__ == "__main__":
    sys.exit(main())
