"""What a trace takes for a person's own modules."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

from export.sources.trace import tracing


def test_a_module_that_names_no_file_of_this_machine_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch.ops is a module whose `__file__` is `_ops.py`."""
    own, made_up = ModuleType("own"), ModuleType("package.made_up")
    own.__file__, made_up.__file__ = str(tmp_path / "own.py"), "_made_up.py"

    with tracing() as trace:
        for module in (own, made_up):
            monkeypatch.setitem(sys.modules, module.__name__, module)

    assert trace.modules == {"own": tmp_path / "own.py"}
