"""What an export holds in memory, as a multiple of the model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "support" / "export_memory.py"
ALLOWED = 2.5


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_exporting_minilm_takes_at_most_two_and_a_half_times_the_model(precision: str) -> None:
    done = subprocess.run([sys.executable, SCRIPT, precision], capture_output=True, text=True, check=True, timeout=300)

    found = json.loads(done.stdout)

    print(found)
    assert 80e6 < found["model_bytes"] < 100e6
    assert found["peak_bytes"] <= ALLOWED * found["model_bytes"], found["steps"]
