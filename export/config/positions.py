"""Where things stand in a config.pbtxt: every field's line, column and span, for messages and for edits that keep the
rest.

`google.protobuf` reads the values; this reads the positions, of the same text-format grammar.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NoReturn

from export.errors import ConfigError

_TOKEN = re.compile(
    r"""(?P<space>[\s,;]+|\#[^\n]*)
      | (?P<string>"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')
      | (?P<punctuation>[{}<>\[\]:])
      | (?P<word>[^\s,;\#"'{}<>\[\]:]+)""",
    re.VERBOSE | re.DOTALL,
)
_CLOSING = {"{": "}", "<": ">"}
_INDEX = re.compile(r"^(?P<name>[^\[]+)(?P<index>\[(?:\d+|\".*\")\])?$")


@dataclass(frozen=True)
class Place:
    """A field: line and column (from 1) of its name, or of the value in a list, and the span of its value."""

    line: int
    column: int
    start: int
    end: int


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    start: int


class Places:
    """The places of one file by field path: `input[0].dims[1]`, `parameters["execution_mode"]`, `max_batch_size`."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._lines = [0, *(match.end() for match in re.finditer("\n", text))]
        self._by_path: dict[str, Place] = {}
        self._keyed: dict[str, str] = {}  # `parameters["execution_mode"]` -> `parameters[0]`
        self._tokens = list(_tokens(text))
        self._at = 0
        self._message("", end=None)

    def __getitem__(self, path: str) -> Place:
        """The place of a field. Raises KeyError when the file does not write it."""
        return self._by_path[self._written(path)]

    def __contains__(self, path: str) -> bool:
        return self._written(path) in self._by_path

    def line(self, path: str) -> int | None:
        """The line of a field, or of the nearest field around it that the file writes."""
        parts = _split(path)
        while parts:
            place = self._by_path.get(self._written(".".join(parts)))
            if place is not None:
                return place.line
            parts.pop()
        return None

    def _message(self, prefix: str, end: str | None) -> None:
        """Fields until the closing token; a map entry can be found by its key too."""
        seen: dict[str, int] = {}
        key = ""
        first: Place | None = None
        while True:
            token = self._next()
            if token is None:
                if end is not None:
                    self._fail(f"'{end}' is missing at the end")
                break
            if token.text == end:
                break
            name = token
            if name.kind != "word":
                self._fail(f"a field name was expected, not {name.text!r}", name)
            if self._peek() == ":":
                self._next()
            in_list = self._peek() == "["
            for value_start, value_end in self._values(prefix, name.text, seen):
                if name.text == "key":
                    key = self.text[value_start:value_end].strip("\"'")
                path = f"{prefix}{name.text}[{seen[name.text]}]"
                line, column = self._position(value_start if in_list else name.start)
                self._by_path[path] = Place(line, column, value_start, value_end)
                first = first or self._by_path[path]
                seen[name.text] += 1
        if key and prefix and first:
            path = prefix.removesuffix(".")
            keyed = f'{path[: path.rindex("[")]}["{key}"]'
            self._by_path[keyed], self._keyed[keyed] = first, path

    def _values(self, prefix: str, name: str, seen: dict[str, int]) -> Iterator[tuple[int, int]]:
        """The span of each value that follows a field name: one, or several in a list."""
        seen.setdefault(name, 0)
        if self._peek() != "[":
            yield self._value(prefix, name, seen)
            return
        self._next()
        while self._peek() != "]":
            yield self._value(prefix, name, seen)
        self._next()

    def _value(self, prefix: str, name: str, seen: dict[str, int]) -> tuple[int, int]:
        token = self._next()
        if token is None:
            self._fail(f"field '{name}' has no value")
        if token.text in _CLOSING:
            self._message(f"{prefix}{name}[{seen[name]}].", _CLOSING[token.text])
            return token.start, self._tokens[self._at - 1].start + 1
        if token.kind == "punctuation":
            self._fail(f"field '{name}' has no value before {token.text!r}", token)
        last = token
        while token.kind == "string" and self._at < len(self._tokens) and self._tokens[self._at].kind == "string":
            last = self._tokens[self._at]
            self._at += 1
        return token.start, last.start + len(last.text)

    def _written(self, path: str) -> str:
        """The path as the file's fields are filed: an index on every component, and no key before the last one."""
        parts = ""
        for part in _split(path):
            match = _INDEX.match(part)
            indexed = part if match is None or match["index"] else f"{part}[0]"
            parts = f"{self._keyed.get(parts, parts)}.{indexed}" if parts else indexed
        return parts

    def _next(self) -> _Token | None:
        if self._at >= len(self._tokens):
            return None
        self._at += 1
        return self._tokens[self._at - 1]

    def _peek(self) -> str:
        return self._tokens[self._at].text if self._at < len(self._tokens) else ""

    def _position(self, start: int) -> tuple[int, int]:
        line = bisect_right(self._lines, start)
        return line, start - self._lines[line - 1] + 1

    def _fail(self, message: str, token: _Token | None = None) -> NoReturn:
        line, column = self._position(token.start if token else len(self.text))
        raise ConfigError(f"line {line}, column {column}: {message}", line=line, column=column)


def _tokens(text: str) -> Iterator[_Token]:
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            line = text.count("\n", 0, at) + 1
            raise ConfigError(f"line {line}: {text[at : at + 20]!r} is not text format", line=line)
        if match.lastgroup != "space":
            yield _Token(str(match.lastgroup), match.group(), at)
        at = match.end()


def _split(path: str) -> list[str]:
    """A path's components; a dot inside a quoted key does not split."""
    return re.findall(r'(?:[^.\["]|\[\d+\]|\["[^"]*"\])+', path)
