"""The proof on a GPU, in one script: `python tests/gpu/proof.py --document docs/gpu.md`; dry where there is none."""

import os
import sys
from pathlib import Path

# From a bare copy of the repository, not installed: for this process and for those that it starts.
ROOT = str(Path(__file__).resolve().parents[2])
sys.path.insert(0, ROOT)
os.environ["PYTHONPATH"] = os.pathsep.join([ROOT, *filter(None, [os.environ.get("PYTHONPATH")])])

from fathom.proof.cli import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())
