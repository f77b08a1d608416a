"""Call a function of the user's own code, named as `package.module:function`."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from export import refusals
from export.errors import RecipeError

NAMED = re.compile(r"(?P<module>[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):(?P<function>[A-Za-z_]\w*)")


def call(source: str, home: Path, option: str) -> Any:
    """What the function returns. `home` is imported from as the current folder is.

    Raises RecipeError for a name that is none, and with the place in the user's file where their code failed.
    """
    module_name, function_name = _parts(source, option)
    with _importable(home):
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
    """The file of the module that a `package.module:function` is in. Raises RecipeError where there is none."""
    module_name, _ = _parts(source, "--weights")
    with _importable(home):
        try:
            found = importlib.util.find_spec(module_name)
        except (ImportError, ValueError):
            found = None
    if found is None or not found.origin or not Path(found.origin).is_file():
        raise RecipeError(
            f"the module {module_name} of '{source}' cannot be found: run this in the folder that has it, or where it "
            "is installed"
        )
    return Path(found.origin)


def _parts(source: str, option: str) -> tuple[str, str]:
    refusals.not_a_pickle(
        Path(source),
        f"write a function that builds the model and loads its weights from safetensors, or unpickles it where you "
        f"trust it, and name it as {option} package.module:function",
    )
    match = NAMED.fullmatch(source)
    if match is None:
        raise RecipeError(f"{option} {source}: name a function without arguments as package.module:function")
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
        raise RecipeError(f"{source} failed{place} ({words}): correct it, then try again") from error


@contextmanager
def _importable(home: Path) -> Iterator[None]:
    before = list(sys.path)
    sys.path[:0] = [str(Path.cwd()), str(home)]
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path[:] = before
