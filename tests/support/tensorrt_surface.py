"""Print the surface of the importable module `tensorrt` as JSON: classes, enums, properties and pybind11 signatures.

Run in a process whose environment is `tensorrt_bindings.environment(version)`.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

SIGNATURE = re.compile(r"^(?:\d+\. )?(\w+)\((.*)\) -> (.+)$")
SPECIAL = ("__init__", "__bool__", "__len__", "__getitem__")


def main() -> None:
    import tensorrt

    json.dump(surface(tensorrt), sys.stdout)


def surface(module: ModuleType) -> dict[str, Any]:
    """Everything public in the module."""
    names = {name: getattr(module, name) for name in dir(module) if not name.startswith("_")}
    return {
        "version": module.__version__,
        "classes": {name: class_surface(value) for name, value in names.items() if inspect.isclass(value)},
        "functions": {
            name: function_surface(value)
            for name, value in names.items()
            if callable(value) and not inspect.isclass(value)
        },
        "constants": ["__version__"],
    }


def class_surface(cls: type) -> dict[str, Any]:
    """One class: `members` for an enum, else None."""
    bases = [base.__name__ for base in cls.__mro__[1:] if base.__module__.startswith("tensorrt")]
    record: dict[str, Any] = {"bases": bases, "methods": {}, "properties": {}, "nested": {}, "members": None}
    members = getattr(cls, "__members__", None)
    if members is not None:
        record["members"] = {name: int(value) for name, value in members.items()}
    for name in dir(cls):
        if name.startswith("_") and name not in SPECIAL:
            continue
        value = inspect.getattr_static(cls, name)
        if isinstance(value, property):
            record["properties"][name] = property_surface(value)
        elif inspect.isclass(value):
            record["nested"][name] = class_surface(value)
        elif callable(getattr(cls, name)) and (members is None or name not in members):
            record["methods"][name] = function_surface(getattr(cls, name))
    return record


def property_surface(value: property) -> dict[str, Any]:
    """A property's type, and whether it can be assigned."""
    read = list(signatures(value.fget.__doc__ or "", anonymous=True))
    return {"type": read[0]["returns"] if read else "", "writable": value.fset is not None}


def function_surface(value: Any) -> list[dict[str, Any]]:
    """A function's signatures: pybind11's overloads, or a Python function's own. Empty where there are none."""
    found = list(signatures(value.__doc__ or ""))
    if found or not inspect.isfunction(value):
        return found
    parameters = inspect.signature(value).parameters.values()
    listed = [{"name": each.name, "type": "", "required": each.default is each.empty} for each in parameters]
    return [{"parameters": listed, "returns": ""}]


def signatures(documentation: str, *, anonymous: bool = False) -> Iterator[dict[str, Any]]:
    """The signatures that pybind11 writes at the beginning of a docstring, one a line."""
    for line in documentation.strip().splitlines():
        match = SIGNATURE.match(f"f{line.strip()}" if anonymous else line.strip())
        if match and "*args" not in match[2]:
            yield {"parameters": [parameter(part) for part in split(match[2])], "returns": bare(match[3])}


def parameter(text: str) -> dict[str, Any]:
    """`logger: tensorrt.tensorrt.ILogger = None` in parts."""
    declared, _, default = text.partition(" = ")
    name, _, kind = declared.partition(": ")
    return {"name": name, "type": bare(kind), "required": not default}


def split(text: str) -> Iterator[str]:
    """Split at the commas outside brackets, angle brackets and quotes."""
    depth, part = 0, ""
    for character in text:
        depth += (character in "[(<") - (character in "])>")
        if character == "," and depth == 0:
            yield part.strip()
            part = ""
        else:
            part += character
    if part.strip():
        yield part.strip()


def bare(kind: str) -> str:
    """`tensorrt.tensorrt.ILogger.Severity` and `nvonnxparser::OnnxParserFlag` as the module's own names."""
    kind = kind.strip().removeprefix("tensorrt.tensorrt.")
    return "ParserError" if kind.endswith("IParserError") else kind.removeprefix("nvonnxparser::")


if __name__ == "__main__":
    main()
