"""The commands that the documents show, run as they are typed, up to the container engine and the cluster.

`stand_ins` writes programs named docker, kubectl, fathom and git for a PATH. Each stops short of what is not here.
docker compose reads the file with .env and looks services, profiles and options up; kubectl renders what it would send,
or fails at a server that refuses connections; fathom reads its arguments.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import Any

import compose

ROOT = Path(__file__).parents[2]
DOCUMENTS = tuple(str(path.relative_to(ROOT)) for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))))
PLACES = (*DOCUMENTS, "docker-compose.yml", ".env.example", "deploy/kubernetes/base/kustomization.yaml")
# Compose 2's options of what the documents use: the value says whether another word follows.
OPTIONS: dict[str, dict[str, bool]] = {
    "build": {},
    "config": {"--resolve-image-digests": False},
    "down": {},
    "kill": {"--signal": True},
    "logs": {"--tail": True},
    "ps": {},
    "restart": {},
    "run": {"--rm": False, "--build": False},
    "stop": {},
    "up": {"--build": False, "--detach": False, "--wait": False, "--no-deps": False, "--scale": True},
}


class CommandError(Exception):
    """What the real program would refuse."""


def blocks(document: str) -> list[str]:
    """The indented blocks with a command for containers, without their comments at the ends of lines."""
    text = (ROOT / document).read_text()
    found = re.findall(r"(?:^    .*\n)+", text, re.MULTILINE)
    return [
        re.sub(r"^    ", "", block, flags=re.M) for block in found if re.search(r"^ +(docker|kubectl) ", block, re.M)
    ]


def commands() -> list[str]:
    """Every `docker compose ...` between backticks, and in the comments of the files for containers."""
    found: list[str] = []
    for place in PLACES:
        text = (ROOT / place).read_text()
        found += re.findall(r"`(docker compose [^`]+)`", text.replace("\n# ", " ").replace("\n", " "))
        found += re.findall(r"^#\s+(docker compose .*?)(?:   |$)", text, re.M)
    return list(dict.fromkeys(found))


def compose_command(words: list[str], folder: Path) -> list[str]:
    """The services that `docker compose WORDS` concerns. Raises CommandError, as Compose would fail."""
    top = argparse.ArgumentParser(exit_on_error=False, allow_abbrev=False)
    top.add_argument("--profile", action="append", default=[])
    top.add_argument("command", choices=OPTIONS)
    top.add_argument("rest", nargs=argparse.REMAINDER)
    try:
        given = top.parse_args(words)
    except argparse.ArgumentError as error:
        raise CommandError(str(error)) from None
    known, names, scaled = OPTIONS[given.command], [], []
    rest = list(given.rest)
    while rest:
        word = rest.pop(0)
        if not word.startswith("-"):
            names.append(word)
            if given.command == "run":
                break  # the rest is the container's own
        elif word not in known:
            raise CommandError(f"{given.command} has no option {word}")
        elif known[word]:
            scaled += [rest.pop(0)]
    try:
        services: dict[str, Any] = compose.read(variables(folder))["services"]
    except KeyError as complaint:
        raise CommandError(f"a variable is missing: {complaint}") from None
    profiles = {profile for service in services.values() for profile in service.get("profiles", [])}
    replicas = [text.partition("=")[0] for text in scaled if "=" in text]
    for name in {*names, *replicas} - services.keys():
        raise CommandError(f"there is no service {name}")
    for profile in {*given.profile} - profiles - {"*"}:
        raise CommandError(f"there is no profile {profile}")
    chosen = profiles if "*" in given.profile else {*given.profile}
    active = {n for n, s in services.items() if not s.get("profiles") or {*s["profiles"]} & chosen}
    for name in {*replicas} - active - {*names}:
        raise CommandError(f"{name} is scaled, and its profile is not active")
    return names or sorted(active)


def variables(folder: Path) -> dict[str, str]:
    """Those of .env in `folder`."""
    file = folder / ".env"
    return dict(re.findall(r"^(\w+)=(.*)$", file.read_text(), re.M)) if file.is_file() else {}


def tags(text: str) -> list[str]:
    """The releases of NVIDIA's images that a text names."""
    return re.findall(r"nvcr\.io/nvidia/\w+:([\w.-]+)", text)


def stand_ins(folder: Path, sent: Path) -> None:
    """Write the programs into `folder`. What kubectl would send to a cluster is appended to `sent`."""
    python = f"exec {sys.executable} {Path(__file__)}"
    programs = {
        "docker": f'{python} docker "$@"',
        "fathom": f'{python} fathom "$@"',
        "git": 'PATH=${PATH#*:} exec git -c "url.$CHECKOUT.insteadOf=https://git.example.com/you/fathom.git" "$@"',
        "chown": "true",
        "kubectl": f"""export PATH=${{PATH#*:}}
case "$1 $2" in
    "create secret") echo --- >>{sent}; exec kubectl "$@" --dry-run=client -o yaml >>{sent} ;;
    "apply -k") echo --- >>{sent}; exec kubectl kustomize "$3" >>{sent} ;;
    exec*) cat >/dev/null ;;
esac
kubectl --server=http://127.0.0.1:1 "$@" 2>&1 </dev/null | grep -q "was refused" """,
    }
    folder.mkdir()
    for name, text in programs.items():
        (folder / name).write_text(f"#!/bin/bash\n{text}\n")
        (folder / name).chmod(0o755)


def fathom(words: list[str]) -> None:
    """Read the arguments; write the patch that a plan would."""
    sys.path.insert(0, str(ROOT))
    from fathom import cli, kubernetes

    given = cli.parser(words[0]).parse_args(words)
    if words[0] == "plan":
        from cluster import PLAN

        given.kubernetes.write_text(kubernetes.patch(PLAN))


def main(program: str, *words: str) -> None:
    """Run as a stand-in."""
    if program == "fathom":
        fathom(list(words))
        return
    if words[0] != "compose":
        raise CommandError(f"docker {words[0]} has no stand-in")
    print(*compose_command(list(words[1:]), Path.cwd()))


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except CommandError as error:
        sys.exit(str(error))
