"""What the slots of `recipe_writer` may take of a container's memory."""

from __future__ import annotations

from pathlib import Path

from repository_code import load

(decoder,) = load("recipe_writer", "decoder")


def test_files_that_were_read_leave_a_containers_memory_available(tmp_path: Path) -> None:
    """A container that has read the weights once is full of them, and gives them back."""
    for name, text in {
        "memory.max": "1000000\n",
        "memory.current": "950000\n",
        "memory.stat": "anon 300000\ninactive_file 600000\nactive_file 50000\n",
    }.items():
        (tmp_path / name).write_text(text)
    assert decoder.available_bytes(tmp_path) == 650_000
    (tmp_path / "memory.max").write_text("max\n")
    assert decoder.available_bytes(tmp_path) > 1_000_000
