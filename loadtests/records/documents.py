"""Dataclasses read back from JSON that may be old, newer, cut short or edited by hand: every field is checked."""

from __future__ import annotations

import dataclasses
import functools
import math
import types
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

T = TypeVar("T")

_NAMES = {float: "a number", int: "a whole number", str: "text", bool: "true or false"}


def read(kind: type[T], document: Any) -> T:
    """An instance of the dataclass. Unknown fields are passed over, and missing ones get their default.

    Raises ValueError that names the field, what it holds and what it should. Text is parsed by a `parse` of its class.
    """
    return cast(T, _read(kind, document, ""))


def _read(kind: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(kind):
        return _dataclass(cast(type, kind), value, where)
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if origin in (Union, types.UnionType):
        (wanted,) = (argument for argument in arguments if argument is not type(None))
        return None if value is None else _read(wanted, value, where)
    if origin is Literal:
        if value not in arguments:
            raise _wrong(where, value, f"one of {', '.join(map(repr, arguments))}")
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise _wrong(where, value, "a list")
        return tuple(_read(arguments[0], each, f"{where}[{number}]") for number, each in enumerate(value))
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            raise _wrong(where, value, "an object")
        return {key: _read(arguments[1], each, f"{where}.{key}") for key, each in value.items()}
    accepted = (int, float) if kind is float else kind
    if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
        raise _wrong(where, value, _NAMES[kind])
    if isinstance(value, float) and not math.isfinite(value):
        raise _wrong(where, value, "a finite number")
    return value


def _dataclass(kind: type, value: Any, where: str) -> Any:
    if isinstance(value, str) and hasattr(kind, "parse"):
        return kind.parse(value)
    if not isinstance(value, Mapping):
        raise _wrong(where or "it", value, "an object")
    found = {}
    for field in dataclasses.fields(kind):
        name = stored_name(field)
        place = f"{where}.{name}".removeprefix(".")
        if name in value:
            found[field.name] = _read(_hints(kind)[field.name], value[name], place)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ValueError(f"{place} is missing")
    return kind(**found)


def stored_name(field: dataclasses.Field[Any]) -> str:
    """The key of a field in documents, where `metadata` gives it another one than the attribute."""
    return str(field.metadata.get("stored_as", field.name))


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _wrong(where: str, value: Any, wanted: str) -> ValueError:
    shown = repr(value)
    return ValueError(f"{where} is {shown if len(shown) < 40 else f'{shown[:37]}...'}, not {wanted}")
