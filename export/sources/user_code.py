"""Call a function of the user's own code, named as `package.module:function`.

It runs in its home folder, the first that is imported from. Modules that an earlier call imported are forgotten before
the next one: two models may each have a module of the same name.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager, nullcontext, redirect_stdout
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any

from export.errors import RecipeError
from export.sources import validation
from export.sources.trace import Trace, tracing

NAMED = re.compile(r"(?P<module>[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):(?P<function>[A-Za-z_]\w*)")


_last = Trace()


def last_call() -> Trace:
    """The trace of the last call: its modules, the files it read, its time."""
    return _last


def call(source: str, home: Path, option: str) -> Any:
    """Call the function and return its result.

    Imports search `home` before the current folder, and the function runs there. What it prints goes to stderr.

    Raises RecipeError for a name that is none, and with the place in the user's file where their code failed.
    """
    global _last
    module_name, function_name = _parts(source, option)
    for name in _last.modules:
        sys.modules.pop(name, None)
    where = chdir(home) if home.is_dir() else nullcontext()
    with _importable(home), where, redirect_stdout(sys.stderr), tracing() as _last:
        module = _run(source, lambda: importlib.import_module(module_name))
        function = getattr(module, function_name, None)
        if not callable(function):
            own = [
                value
                for value in vars(module).values()
                if inspect.isfunction(value) and value.__module__ == module_name
            ]
            known = [value.__name__ for value in own if not value.__name__.startswith("_")]
            raise RecipeError(
                f"{module_name} has no function '{function_name}': it has {', '.join(sorted(known)) or 'none'}"
            )
        return _run(source, function)


def module_file(source: str, home: Path) -> Path:
    """The file of the module that a `package.module:function` is in, found without running any code.

    Raises RecipeError where there is none.
    """
    module_name, _ = _parts(source, "--weights")
    with _importable(home):
        found = _spec(module_name, sys.path) or _installed(module_name)
    if found is None or not found.origin or not Path(found.origin).is_file():
        raise RecipeError(
            f"the module {module_name} of '{source}' cannot be found",
            remedy="run this in the folder that has it, or where it is installed",
        )
    return Path(found.origin)


def is_in(source: str, home: Path) -> bool:
    """Whether a folder has the module of a `package.module:function`."""
    match = NAMED.fullmatch(source)
    return match is not None and _spec(match["module"], [str(home)]) is not None


def _spec(module_name: str, path: list[str]) -> ModuleSpec | None:
    """Where a module would be imported from; `importlib.util.find_spec` would run the packages that it is in, and
    answers with what is imported already."""
    importlib.invalidate_caches()
    places: Any = path
    found: ModuleSpec | None = None
    parts = module_name.split(".")
    for count in range(1, len(parts) + 1):
        found = PathFinder.find_spec(".".join(parts[:count]), places) if places is not None else None
        if found is None:
            return None
        places = found.submodule_search_locations
    return found


def _installed(module_name: str) -> ModuleSpec | None:
    """Where a module lies that only an import hook finds, such as that of an editable installation."""
    try:
        return importlib.util.find_spec(module_name)
    except (ImportError, ValueError):
        return None


def _parts(source: str, option: str) -> tuple[str, str]:
    validation.check_no_pickle(
        Path(source),
        f"write a function that builds the model and loads its weights from safetensors, or unpickles it where you "
        f"trust it, and name it as {option} package.module:function",
    )
    match = NAMED.fullmatch(source)
    if match is None:
        raise RecipeError(f"{option} {source}", remedy="name a function without arguments as package.module:function")
    return match["module"], match["function"]


def _run(source: str, function: Callable[[], Any]) -> Any:
    """Call, with any failure as one line that ends in the user's own file and line."""
    try:
        return function()
    except RecipeError:
        raise
    except (Exception, SystemExit) as error:
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename != __file__]
        own = [frame for frame in frames if "importlib" not in frame.filename]
        place = f" at {Path(own[0].filename).name}:{own[0].lineno}" if own else ""
        reason = str(error).strip().splitlines()[0] if str(error).strip() else ""
        words = f"{type(error).__name__}{f': {reason}' if reason else ''}"
        raise RecipeError(f"{source} failed{place} ({words})", remedy="correct it, then try again") from error


@contextmanager
def _importable(home: Path) -> Iterator[None]:
    """No bytecode is written meanwhile: a home may lie in a model repository."""
    path, bytecode = list(sys.path), sys.dont_write_bytecode
    sys.path[:0] = [str(home.absolute()), str(Path.cwd())]
    sys.dont_write_bytecode = True
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path[:], sys.dont_write_bytecode = path, bytecode
