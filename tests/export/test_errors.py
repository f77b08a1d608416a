"""Errors of an export: what happened, what to do, and the same for programs."""

from __future__ import annotations

import pytest

from export.errors import ConfigError, ExportError

MESSAGES = [
    (ExportError("the file is missing", remedy="put it back"), "the file is missing: put it back", "with a remedy"),
    (ExportError("the file is missing"), "the file is missing", "without one"),
]


@pytest.mark.parametrize(("error", "message", "why"), MESSAGES, ids=[row[-1] for row in MESSAGES])
def test_the_message_is_what_happened_and_what_to_do(error: ExportError, message: str, why: str) -> None:
    assert str(error) == message
    assert error.what == "the file is missing"


def test_an_error_that_adds_to_another_keeps_its_attributes() -> None:
    first = ConfigError("no dims", remedy="write dims", file="m/config.pbtxt", line=3, found=(), expected=(1,))

    second = ConfigError(f"m: {first}", **first.about)

    assert (second.file, second.line, second.found, second.expected) == ("m/config.pbtxt", 3, (), (1,))
    assert str(second) == "m: no dims: write dims"
