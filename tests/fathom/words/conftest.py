"""What users read is pinned in this folder: help, closing summaries, and an example of every error.

The texts are in `__snapshots__`. After a sentence was improved, `.venv/bin/pytest tests/fathom/words --snapshot-update`
renews them, and the commit shows the difference. Other tests assert classes, attributes, values and effects.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from export.engine import gpu


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with an empty model repository, on a terminal of 80 columns."""
    (tmp_path / "model_repository").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(gpu, "find", lambda: None)
    monkeypatch.delenv("FATHOM_MODEL_REPOSITORY", raising=False)
    return tmp_path


@pytest.fixture
def shown(folder: Path, capsys: pytest.CaptureFixture[str]) -> Callable[[], str]:
    """What was printed since the last time, without what differs from run to run."""

    def take() -> str:
        captured = capsys.readouterr()
        text = captured.out + (f"--- stderr\n{captured.err}" if captured.err else "")
        text = re.sub(r"127\.0\.0\.1:\d{2,}", "HOST:PORT", text.replace(str(folder), "FOLDER"))
        return re.sub(r"\b\d+\.\d s\b", "N s", text)

    return take
