"""Makes control characters visible in texts of models, servers and files, because a terminal would obey them."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any, TextIO, cast

_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters but tab and line feed, those that reorder a line, and the halves that stand for broken UTF-8."""


def visible(text: str) -> str:
    """`text` with every control character as its escape, such as `\\x1b`; ordinary text stays the same object."""
    return _UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def visible_in_json(text: str) -> str:
    """A JSON document in which those that JSON lets through are escaped: it means the same."""
    return _UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


class _Visible:
    """A text stream that shows control characters. A carriage return may begin a write, as progress bars do."""

    def __init__(self, stream: TextIO) -> None:
        self.rich_proxied_file = stream  # where rich writes: it styles by control characters of its own

    def write(self, text: str) -> int:
        start = len(text) - len(text.lstrip("\r"))
        self.rich_proxied_file.write(text[:start] + visible(text[start:]))
        return len(text)

    def writelines(self, lines: list[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.rich_proxied_file, name)


def guard_output(*streams: str) -> None:
    """Make control characters visible in all text that this process writes to the named streams (default: both).

    A stream that the caller has closed (`>&-`) takes text, too.
    """
    for name in streams or ("stdout", "stderr"):
        stream = getattr(sys, name) or Path(os.devnull).open("w")  # noqa: SIM115
        if not isinstance(stream, _Visible):
            setattr(sys, name, cast(TextIO, _Visible(stream)))
