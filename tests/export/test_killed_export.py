"""An export that is killed leaves the repository as it was, and the next one repairs what lies beside it.

The kills here hit a model of milliseconds; `test_exporter.py` has the slow one on a trained model. FATHOM_KILLS sets
how many there are, in both.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from scale_model import Scale, tree

from export.exporter import export_model
from export.graph import onnx_file
from export.lint.lint import lint
from export.repository.manifest import Manifest
from export.repository.scratch import SCRATCH

pytestmark = pytest.mark.process

SUPPORT = Path(__file__).parents[1] / "support"
SEED = 20_261_124
KILLS = int(os.environ.get("FATHOM_KILLS", "4"))

PROGRAM = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from scale_model import Scale
from export.exporter import export_model
recipe = Scale(Path(sys.argv[2]))
export_model(recipe, Path(sys.argv[1]), force=True)
print("first", flush=True)
while True:
    export_model(recipe, Path(sys.argv[1]), force=True)
"""


def test_kills_at_random_moments(repository: Path, scale: Scale) -> None:
    export_model(scale, repository)
    names = set(tree(repository))
    moments = random.Random(SEED)
    x = np.ones((2, 3), np.float32)
    created = set()
    for _ in range(KILLS):
        command = [sys.executable, "-c", PROGRAM, str(repository), str(scale.weights), str(SUPPORT)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as exporting:
            assert exporting.stdout is not None
            assert exporting.stdout.readline() == b"first\n"
            time.sleep(moments.uniform(0.0, 0.12))
            exporting.send_signal(signal.SIGKILL)
        record = Manifest.read(repository / "scale")
        assert record is not None
        created.add(record.created)
        assert record.changed_files(repository / "scale") == []
        assert set(tree(repository)) == names
        assert (onnx_file.session(repository / "scale" / "1" / "model.onnx")({"x": x})["y"] == 2 * x).all()
        assert [finding for finding in lint(repository) if finding.severity == "error"] == []

    export_model(scale, repository, force=True)

    assert set(tree(repository)) == names
    assert not (repository.parent / SCRATCH).exists()
    assert [path.name for path in repository.parent.iterdir() if path.name.startswith(".")] == []
