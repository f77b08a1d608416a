"""Which models of a repository Triton loads: those named and what they need, else every one that is exported.

The container runs this file in front of tritonserver, `loading.py tritonserver ...`: where its command has
--model-control-mode=explicit and names no model, it names those. Standard library only.

A folder that an export fills has a committed `1/.gitkeep`, or a recipe.toml: the model waits while its version folders
hold nothing but python and labels. A model also waits for every model that its configuration names: the steps of an
ensemble, and those that it calls or whose files it opens, as a value of its `parameters`.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

EXPLICIT = "--model-control-mode=explicit"
_COMMENT = re.compile(r"""#.*|("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')""")
_NAMED = re.compile(r"""\b(?:model_name|string_value)\s*:\s*["']([^"']+)["']""")
_MARK, _RECIPE = ".gitkeep", "recipe.toml"


def config_text(folder: Path, config_name: str | None = None) -> str:
    """The configuration that Triton serves a model with, without comments; empty where there is none."""
    named = folder / "configs" / f"{config_name}.pbtxt"
    path = named if config_name and named.is_file() else folder / "config.pbtxt"
    return _COMMENT.sub(r"\1", path.read_text(errors="replace")) if path.is_file() else ""


def models(repository: Path) -> list[str]:
    """The folders in which Triton looks for models."""
    return sorted(path.name for path in repository.iterdir() if path.is_dir() and not path.name.startswith("."))


def needed(repository: Path, names: Iterable[str], config_name: str | None = None) -> list[str]:
    """Those models, and every one that they name, directly or through others; each behind what it needs.

    A folder without a configuration is none that is served: its files are opened by others.
    """
    present = {name for name in models(repository) if (repository / name / "config.pbtxt").is_file()}
    found: dict[str, None] = {}
    begun: set[str] = set()

    def visit(name: str) -> None:
        if name in begun:
            return
        begun.add(name)
        for other in _NAMED.findall(config_text(repository / name, config_name)):
            if other in present:
                visit(other)
        found[name] = None

    for name in names:
        visit(name)
    return list(found)


def waiting(repository: Path, config_name: str | None = None) -> dict[str, list[str]]:
    """The models that cannot be loaded yet, each with those that must be exported for it.

    A step of python alone, which needs no files, is not loaded for itself: it waits with all the models that name it.
    """
    needs = {name: needed(repository, [name], config_name) for name in models(repository)}
    empty = {name for name in needs if _is_empty(repository / name, config_name)}
    left = {name: [each for each in which if each in empty] for name, which in needs.items()}
    for name in [name for name in needs if not left[name] and _is_code(repository / name, config_name)]:
        users = [user for user, which in needs.items() if name in which and user != name]
        if users and all(left[user] for user in users):
            left[name] = left[users[0]]
    return {name: which for name, which in left.items() if which}


def _is_empty(folder: Path, config_name: str | None) -> bool:
    """Whether the files that an export puts there are missing."""
    filled = _MARK in _files(folder) or (folder / _RECIPE).is_file()
    return filled and _is_code(folder, config_name)


def _is_code(folder: Path, config_name: str | None) -> bool:
    """Whether a version of it, which is no ensemble, holds nothing but python, and labels at most."""
    if "ensemble_scheduling" in config_text(folder, config_name):
        return False
    return all(name.endswith((".py", ".txt")) or name in (_MARK, "__pycache__") for name in _files(folder))


def _files(folder: Path) -> list[str]:
    """What lies in its version folders."""
    versions = [path for path in folder.iterdir() if path.is_dir() and path.name.isdecimal()]
    return [path.name for version in versions for path in version.iterdir()]


def flags(names: Sequence[str]) -> list[str]:
    """The options with which tritonserver loads these models alone."""
    return [EXPLICIT, *(f"--load-model={name}" for name in names)]


def completed(command: Sequence[str]) -> tuple[list[str], Mapping[str, Sequence[str]]]:
    """The command with the models that it loads, and those that wait for an export.

    It stays as it is where it is not explicit, names models itself, or serves no local folder. Raises SystemExit where
    no model is exported: Triton would start, and be ready, without one.
    """
    options = dict(word.partition("=")[::2] for word in command if word.startswith("--"))
    repository = Path(options.get("--model-repository", ""))
    asks = EXPLICIT in command and "--load-model" not in options
    if not asks or "--model-repository" not in options or not repository.is_dir():
        return [*command], {}
    left = waiting(repository, options.get("--model-config-name"))
    names = [name for name in models(repository) if name not in left]
    if not names:
        raise SystemExit(f"no model of '{repository}' is exported: export one first")
    return [*command, *flags(names)[1:]], left


def main() -> None:
    """Become the command, with the models that it loads."""
    command, left = completed(sys.argv[1:])
    if left:
        print(f"not exported, and so not loaded: {', '.join(left)}", file=sys.stderr, flush=True)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
