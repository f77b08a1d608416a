"""Write the digests of the images that docker-compose.yml is built from into .env: `python -m deploy.digests`.

A tag can be moved to another image, a digest cannot. Docker takes both, `haproxy:2.8.25@sha256:...`, and goes by the
digest. Needs docker with buildx, and the registries; images whose digest cannot be had keep their line.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
IMAGE = re.compile(r"(?P<name>[\w./-]+):\$\{(?P<tag>\w+):-(?P<default>[^}]+)\}\$\{(?P<digest>\w+_DIGEST):-\}")
LINE = re.compile(r"^(?P<name>\w+)=(?P<value>.*)$", re.MULTILINE)


def images(compose: str, values: Mapping[str, str]) -> dict[str, str]:
    """The images with a digest, as name:tag by the variable of their digest."""
    return {
        found["digest"]: f"{found['name']}:{values.get(found['tag']) or found['default']}"
        for found in IMAGE.finditer(compose)
    }


def with_digests(text: str, digests: Mapping[str, str]) -> str:
    """The text of a .env file with these variables set: in the place where it sets them, or at its end."""
    for name, digest in digests.items():
        line = f"{name}=@{digest}"
        text, count = re.subn(rf"^{name}=.*$", line, text, flags=re.MULTILINE)
        if not count:
            text = f"{text.rstrip()}\n{line}\n".lstrip()
    return text


def ask_docker(image: str) -> str:
    """The digest of an image for all its platforms. Raises OSError or SubprocessError."""
    command = ["docker", "buildx", "imagetools", "inspect", "--format", "{{.Manifest.Digest}}", image]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip()


def main(folder: Path = ROOT, look_up: Callable[[str], str] = ask_docker) -> int:
    """Look up all digests and write them; 1 where one could not be had."""
    environment = folder / ".env"
    text = environment.read_text(encoding="utf-8") if environment.is_file() else ""
    compose = (folder / "docker-compose.yml").read_text(encoding="utf-8")
    digests, failed = {}, 0
    for name, image in images(compose, dict(LINE.findall(text))).items():
        try:
            digest = look_up(image)
            if not re.fullmatch(r"sha256:[0-9a-f]{64}", digest):
                raise ValueError(f"docker answered {digest!r}")
            digests[name] = digest
            print(f"{image}@{digest}")
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            why = (getattr(error, "stderr", "") or str(error)).strip().splitlines()[-1]
            print(f"{image}: its digest could not be had ({why})", file=sys.stderr)
            failed = 1
    new = environment.with_name(".env.new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(with_digests(text, digests))
    new.replace(environment)
    return failed


if __name__ == "__main__":
    sys.exit(main())
