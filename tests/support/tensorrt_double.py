"""A recording double of the module `tensorrt`, whose every class, method, property and enum is the real surface's.

It has no name that the real module has not, binds arguments by the real signatures, and refuses to assign what the
real one does not. What methods answer is given by `answers`, by default an empty value of the signature's type.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from types import SimpleNamespace
from typing import Any


@dataclass
class Recording:
    """The calls and assignments in order, as ("Class.method", args) and ("Class.property =", value)."""

    events: list[tuple[str, Any]] = field(default_factory=list)

    def of(self, name: str) -> list[Any]:
        """What one method was called with, or what one property ("Class.name =") was assigned."""
        return [value for event, value in self.events if event == name]


class Tensor(SimpleNamespace):
    """What a double's network hands out as an input: a name and a shape."""


def make(surface: Mapping[str, Any], answers: Mapping[str, Callable[..., Any]] | None = None) -> tuple[Any, Recording]:
    """The module double and its recording. `answers` maps "Class.method" or "Class.property" to a function, called
    with the object and the arguments."""
    recording = Recording()
    maker = _Maker(surface, answers or {}, recording)
    unknown = set(answers or {}) - maker.known()
    if unknown:
        raise AttributeError(f"the real module has no {sorted(unknown)}")
    return maker.module(), recording


class _Maker:
    def __init__(
        self, surface: Mapping[str, Any], answers: Mapping[str, Callable[..., Any]], recording: Recording
    ) -> None:
        self.surface, self.answers, self.recording = surface, answers, recording
        self.classes: dict[str, Any] = {}

    def known(self) -> set[str]:
        found = set(self.surface["functions"])
        for name, record in self.surface["classes"].items():
            found |= {f"{name}.{member}" for member in (*record["methods"], *record["properties"])}
        return found

    def module(self) -> Any:
        for name, record in self.surface["classes"].items():
            self.classes[name] = self.one_class(name, record)
        functions = {name: self.function(name, signatures) for name, signatures in self.surface["functions"].items()}
        return SimpleNamespace(__version__=self.surface["version"], **functions, **self.classes)

    def one_class(self, path: str, record: Mapping[str, Any]) -> Any:
        if record["members"] is not None:
            return IntEnum(path.rsplit(".", 1)[-1], record["members"])
        body: dict[str, Any] = {"__slots__": ("__dict__",), "_kinds": (path, *record["bases"])}
        for name, signatures in record["methods"].items():
            body[name] = self.method(path, name, signatures)
        for name, declared in record["properties"].items():
            body[name] = self.property_of(path, name, declared)
        for name, nested in record["nested"].items():
            body[name] = self.one_class(f"{path}.{name}", nested)
        body["__setattr__"] = _strict_setattr
        made = type(path.rsplit(".", 1)[-1], (), body)
        made._generated = made  # type: ignore[attr-defined]
        return made

    def method(self, path: str, name: str, signatures: Sequence[Any]) -> Callable[..., Any]:
        place = f"{path}.{name}"

        def call(this: Any, *args: Any, **kwargs: Any) -> Any:
            signature = self.bind(place, signatures, (this, *args), kwargs)
            if name == "__init__":
                self.recording.events.append((place, args))
                return None
            self.recording.events.append((place, (*args, *kwargs.values())))
            if place in self.answers:
                return self.answers[place](this, *args, **kwargs)
            return self.empty(signature["returns"] if signature else "")

        return call

    def function(self, name: str, signatures: Sequence[Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            signature = self.bind(name, signatures, args, kwargs)
            if name in self.answers:
                return self.answers[name](*args, **kwargs)
            return self.empty(signature["returns"] if signature else "")

        return call

    def property_of(self, path: str, name: str, declared: Mapping[str, Any]) -> property:
        place = f"{path}.{name}"

        def read(this: Any) -> Any:
            if place in self.answers:
                return self.answers[place](this)
            return this.__dict__.get(f"={name}", self.empty(declared["type"]))

        def write(this: Any, value: Any) -> None:
            self.check(place, value, declared["type"])
            this.__dict__[f"={name}"] = value
            self.recording.events.append((f"{place} =", value))

        return property(read, write if declared["writable"] else None)

    def bind(self, place: str, signatures: Sequence[Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """The first signature that takes the arguments; TypeError, as of pybind11, where none does."""
        if not signatures:
            return None
        reasons = []
        for signature in signatures:
            parameters = signature["parameters"]
            names = [each["name"] for each in parameters]
            given = dict(zip(names, args, strict=False))
            missing = [
                each["name"]
                for each in parameters
                if each["required"] and each["name"] not in given and each["name"] not in kwargs
            ]
            if len(args) > len(names) or missing or any(key not in names or key in given for key in kwargs):
                reasons.append(f"takes {names}")
                continue
            try:
                for each in parameters[1:]:
                    if each["name"] in given or each["name"] in kwargs:
                        self.check(place, {**given, **kwargs}[each["name"]], each["type"])
            except TypeError as error:
                reasons.append(str(error))
                continue
            return signature
        raise TypeError(f"{place}(): {'; '.join(reasons)}")

    def check(self, place: str, value: Any, kind: str) -> None:
        """The types that pybind11 checks: the module's own classes, numbers, text, buffers, truth values."""
        if kind in self.classes and kind != "Dims":
            kinds = getattr(value, "_kinds", ())
            if value is not None and kind not in kinds and not isinstance(value, (self.classes[kind], Tensor)):
                raise TypeError(f"{place}: {kind} is wanted, not {type(value).__name__}")
        elif kind == "typing.SupportsInt" and not hasattr(value, "__int__"):
            raise TypeError(f"{place}: a number is wanted, not {type(value).__name__}")
        elif kind == "str" and not isinstance(value, str):
            raise TypeError(f"{place}: text is wanted, not {type(value).__name__}")
        elif kind == "bool" and not isinstance(value, bool):
            raise TypeError(f"{place}: True or False is wanted, not {type(value).__name__}")
        elif kind == "typing_extensions.Buffer":
            memoryview(value)
        elif kind == "tuple" and not isinstance(value, tuple):
            raise TypeError(f"{place}: a tuple is wanted, not {type(value).__name__}")

    def empty(self, kind: str) -> Any:
        """An empty value of a type, of the module's own classes an object that records too."""
        if kind in self.classes:
            cls = self.classes[kind]
            return next(iter(cls)) if issubclass(cls, IntEnum) else cls.__new__(cls)
        return {"bool": True, "int": 0, "str": "", "float": 0.0}.get(kind)


def _strict_setattr(this: Any, name: str, value: Any) -> None:
    """A pybind11 object takes no unknown attribute; a Python subclass of one does."""
    if type(this) is type(this)._generated and not isinstance(getattr(type(this), name, None), property):
        raise AttributeError(f"'{type(this).__name__}' object has no attribute '{name}'")
    object.__setattr__(this, name, value)
