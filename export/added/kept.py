"""Keep what a model was added from in the `source/` of its folder, so that any machine can export it.

What is too large to commit, or lies elsewhere, is named instead: another machine needs a copy of it. What is put into
`source/` later is found there, before the place that recipe.toml names.
"""

from __future__ import annotations

import ast
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from export import sources
from export.added import packages, recipe_file
from export.command import fathom
from export.files import find
from export.sources.base import HF, ONNX
from export.sources.trace import Trace, is_installed

FOLDER = "source"
LIMIT_BYTES = 100_000_000
"""Of all that is kept of one model. GitHub takes no larger file."""

LONGEST_NAME = 200
SHOWN = 5
IGNORE = ".gitignore"
IGNORED = """\
# What this folder's artefacts are built from is committed, whatever is ignored elsewhere; the artefacts are not.
!*
/1/*
!/1/model.py
__pycache__/
/.fathom-scratch/
"""
_CACHES = frozenset({"huggingface", "torch"})
"""Hidden folders whose files a model may need; others hold settings and what libraries remember."""


@dataclass(frozen=True)
class Kept:
    """The kept files of a source, and what else it needs.

    `source` and `home` are as recipe.toml writes them. `files` are in `source/`, each with its size; `needs` is what
    another machine needs beside the folder, in words.
    """

    source: str
    home: str = FOLDER
    files: Mapping[str, int] = field(default_factory=dict)
    needs: tuple[str, ...] = ()

    def notes(self, folder: Path) -> tuple[str, ...]:
        """Notes for a person, one line each."""
        lines = []
        if self.files:
            names = sorted(self.files, key=lambda name: (name.endswith(".py"), name.count("/"), name))  # data first
            shown = ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
            lines.append(
                f"kept in {folder / FOLDER}: {shown} ({size(sum(self.files.values()))}); commit {folder}, and "
                f"`{fathom('export', folder.name, repository=folder.parent)}` builds the model on any machine"
            )
        return (*lines, *(f"not kept, but needed on another machine: {need}" for need in self.needs))


def keep(
    kind: str, source: str, home: Path, folder: Path, staged: Path, trace: Trace, *, limit_bytes: int = LIMIT_BYTES
) -> Kept:
    """Copy what the source is made from into the staged model folder, which will be `folder`.

    `trace` is that of the call where the source is a function of somebody's. `limit_bytes` is for all that is kept.
    """
    (staged / IGNORE).write_text(IGNORED, encoding="utf-8")
    if kind == ONNX:
        return _files(kind, source, folder, staged, limit_bytes)
    if kind == HF:
        if Path(source).expanduser().is_dir():
            return _files(kind, source, folder, staged, limit_bytes)
        return Kept(source, needs=(f"'{source}' of the Hugging Face hub, or a copy of it as {place(folder, source)}",))
    return _code(source, home, folder, staged, trace, limit_bytes)


def place(folder: Path, source: str) -> Path:
    """The place of a kept file or folder in a model's folder; a person may also put one there later."""
    return folder / FOLDER / Path(source).name


def files(folder: Path) -> dict[str, Path]:
    """Every file in a model's `source/`, by its path in that folder. Raises FileError for a link that leads out of the
    model's folder, and for what is no regular file."""
    home = folder / FOLDER
    found = sorted(path for path in home.rglob("*") if not path.is_dir() and "__pycache__" not in path.parts)
    return {path.relative_to(home).as_posix(): find(folder, path) for path in found}


def size(count: int) -> str:
    """A number of bytes in words: 1.5 GB, 3.2 MB, 77 bytes."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count} bytes"


def _files(kind: str, source: str, folder: Path, staged: Path, limit_bytes: int) -> Kept:
    """An ONNX file with its external data, or a transformers folder: whole or not at all."""
    path = Path(source).expanduser()
    name = path.name if kind == ONNX else path.resolve().name
    inside = "" if kind == ONNX else f"{name}/"
    found = {f"{inside}{key}": each for key, each in sources.files(kind, source, Path.cwd()).items()}
    sizes = _sizes(found)
    outside = any(".." in Path(key).parts for key in found)  # data of a linked model, in another folder
    if outside or sum(sizes.values()) > limit_bytes:
        what = f"{path.absolute()}{' with its external data' if kind == ONNX and len(found) > 1 else ''}"
        needs = f"{what} ({size(sum(sizes.values()))}), as {place(folder, name)}"
        return Kept(recipe_file.relative(path, folder, folder.parent), needs=(needs,))
    _copy(found, staged)
    return Kept(f"{'' if kind == ONNX else './'}{FOLDER}/{name}", files=sizes)


def _code(source: str, home: Path, folder: Path, staged: Path, trace: Trace, limit_bytes: int) -> Kept:
    """The modules that the function imported, and the data beside them that it read."""
    roots = [home]
    found: dict[str, Path] = {}
    for name, path in trace.modules.items():
        parts = [*name.split("."), path.name] if path.stem == "__init__" else [*name.split(".")[:-1], path.name]
        found["/".join(parts)] = path
        root = path.parents[len(parts) - 1]
        if root not in roots:
            roots.append(root)
    needs, left = [], limit_bytes - sum(_sizes(found).values())
    elsewhere: list[Path] = []
    unseen = [*_weights(trace.opened), *_named(trace.modules.values(), home)]
    for path in dict.fromkeys((*trace.opened, *(path for path in unseen if path not in trace.written))):
        home_of = next((root for root in roots if path.is_relative_to(root)), None)
        inner = path.relative_to(home_of) if home_of is not None else path
        hidden = any(part.startswith(".") for part in inner.parts)
        if home_of is None:
            if not _of_the_system(path) and (not hidden or _CACHES & {*path.parts}):
                elsewhere.append(path)
        elif hidden:
            needs.append(f"{path}, which {source} reads (hidden files are never kept: they may hold secrets)")
        elif (count := path.stat().st_size) > left:
            needs.append(f"{path} ({size(count)}), as {folder / FOLDER / inner}")
        else:
            found.setdefault(inner.as_posix(), path)
            left -= count
    several = Counter(path.parent for path in elsewhere)
    places = dict.fromkeys(path.parent if several[path.parent] > 1 else path for path in elsewhere)
    needs += [f"{place}, which {source} reads" for place in places]
    if not trace.modules:
        needs.insert(0, f"the package '{source.split('.')[0].split(':')[0]}', which is installed here")
    needs += [f"the package {package}" for package in packages.beyond_ours(trace.modules.values())]
    _copy(found, staged)
    return Kept(source, files=_sizes(found), needs=tuple(needs))


def _weights(opened: Iterable[Path]) -> Iterator[Path]:
    """The weights of the transformers folders that were read: safetensors opens them where Python does not see it."""
    for path in opened:
        if path.name == "config.json":
            yield from sorted(path.parent.glob("*.safetensors"))


def _named(modules: Iterable[Path], home: Path) -> Iterator[Path]:
    """The files that texts in the modules name, beside the module or in the home folder: some libraries open a file
    where Python does not see it."""
    for module in modules:
        if module.suffix != ".py":
            continue
        for node in ast.walk(ast.parse(module.read_bytes())):
            text = node.value if isinstance(node, ast.Constant) else None
            if not isinstance(text, str) or not 0 < len(text) < LONGEST_NAME or not text.isprintable():
                continue
            for base in (home, module.parent):
                path = Path(os.path.normpath(base / text))
                if path.is_relative_to(base) and path.is_file() and not is_installed(path):
                    yield path


def _of_the_system(path: Path) -> bool:
    return len(path.parts) > 1 and path.parts[1] in ("bin", "dev", "etc", "lib", "lib64", "proc", "sys", "usr")


def _sizes(found: Mapping[str, Path]) -> dict[str, int]:
    return {name: path.stat().st_size for name, path in found.items()}


def _copy(found: Mapping[str, Path], staged: Path) -> None:
    for name, path in found.items():
        target = staged / FOLDER / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
