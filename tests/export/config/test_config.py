"""Reading config.pbtxt."""

from __future__ import annotations

from pathlib import Path

import pytest

from export.config import config
from export.errors import ConfigError

BROKEN = [
    ('name: "a"\nfoo: 3\n', 2, 1, "foo", "a field that Triton does not know"),
    ("input [ { dimms: [1] } ]", 1, 11, "dimms", "one in a message"),
    ('max_batch_size: "x"', 1, 17, None, "a string for a number"),
    ("input [ { dims: [1 } ]", 1, 20, None, "a list without an end"),
]


@pytest.mark.parametrize(("text", "line", "column", "field", "why"), BROKEN, ids=[row[-1] for row in BROKEN])
def test_what_triton_would_not_parse(
    tmp_path: Path, text: str, line: int, column: int, field: str | None, why: str
) -> None:
    path = tmp_path / "m" / "config.pbtxt"
    path.parent.mkdir()
    path.write_text(text)

    with pytest.raises(ConfigError) as caught:
        config.load(path)

    error = caught.value
    assert (error.file, error.line, error.column, error.field) == ("m/config.pbtxt", line, column, field)


def test_a_missing_file_and_one_that_is_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "config.pbtxt"
    for content in (None, b'name: "\xff"'):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(ConfigError) as caught:
            config.load(path)
        assert (caught.value.file, caught.value.line) == (str(path), None)


def test_labels_of_the_two_kinds_of_files(repository: Path) -> None:
    named = repository / "scale" / "configs" / "cpu.pbtxt"
    named.parent.mkdir()
    named.write_text((repository / "scale" / "config.pbtxt").read_text())

    labels = [config.load(path).label for path in config.config_paths(repository / "scale")]

    assert labels == ["scale/config.pbtxt", "scale/configs/cpu.pbtxt"]
