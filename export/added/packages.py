"""Find the installed packages that a person's own modules import and that Fathom does not require itself."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path

_OURS, _EXTRA = "fathom-serving", "export"


def beyond_ours(modules: Iterable[Path]) -> list[str]:
    """The packages beyond Fathom's own, each as pip installs it: name==version."""
    imported = {name for module in modules if module.suffix == ".py" for name in _imports(module)}
    distributions = metadata.packages_distributions()
    wanted = {each for name in imported - sys.stdlib_module_names for each in distributions.get(name, ())}
    have = _with_ours()
    return sorted(f"{each}=={metadata.version(each)}" for each in wanted if _plain(each) not in have)


def _imports(module: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(module.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.split(".")[0]


def _with_ours() -> set[str]:
    """What an installation of Fathom that exports has: its requirements, theirs, and so on."""
    found, new = {_OURS}, [_OURS]
    while new:
        name = new.pop()
        try:
            requires = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        for text in requires:
            extra = re.search(r"extra\s*==\s*[\"']([\w.-]+)", text)
            needed = re.match(r"[\w.-]+", text)
            if needed is None or (extra and (name, extra[1]) != (_OURS, _EXTRA)):
                continue
            if _plain(needed[0]) not in found:
                found.add(_plain(needed[0]))
                new.append(_plain(needed[0]))
    return found


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
