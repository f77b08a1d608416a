"""The proof on a GPU, in one script: `python tests/gpu/proof.py --document docs/gpu.md`; dry where there is none."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))  # from a bare copy of the repository, not installed

from fathom.proof.cli import main

if __name__ == "__main__":
    sys.exit(main())
