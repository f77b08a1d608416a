"""Reading config.pbtxt."""

from __future__ import annotations

from pathlib import Path

import pytest

from export.config import config
from export.errors import ConfigError

BROKEN = [
    ('name: "a"\nfoo: 3\n', 2, "unknown field 'foo'", "a field that Triton does not know"),
    (
        "input [ { dimms: [1] } ]",
        1,
        "unknown field 'dimms' (Triton's ModelInput has no such field)",
        "one in a message",
    ),
    ('max_batch_size: "x"', 1, "integer", "a string for a number"),
    ("input [ { dims: [1 } ]", 1, "Expected", "a list without an end"),
]


@pytest.mark.parametrize(("text", "line", "words", "why"), BROKEN, ids=[row[-1] for row in BROKEN])
def test_what_triton_would_not_parse(tmp_path: Path, text: str, line: int, words: str, why: str) -> None:
    path = tmp_path / "m" / "config.pbtxt"
    path.parent.mkdir()
    path.write_text(text)

    with pytest.raises(ConfigError, match=r"^m/config\.pbtxt: line") as caught:
        config.load(path)

    assert caught.value.line == line
    assert words in str(caught.value)


def test_a_missing_file_and_one_that_is_not_utf8(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="missing"):
        config.load(tmp_path / "config.pbtxt")

    (tmp_path / "config.pbtxt").write_bytes(b'name: "\xff"')
    with pytest.raises(ConfigError, match="not UTF-8"):
        config.load(tmp_path / "config.pbtxt")


def test_labels_of_the_two_kinds_of_files(repository: Path) -> None:
    named = repository / "scale" / "configs" / "cpu.pbtxt"
    named.parent.mkdir()
    named.write_text((repository / "scale" / "config.pbtxt").read_text())

    labels = [config.load(path).label for path in config.config_paths(repository / "scale")]

    assert labels == ["scale/config.pbtxt", "scale/configs/cpu.pbtxt"]
