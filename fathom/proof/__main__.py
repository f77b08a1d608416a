"""`python -m fathom.proof`."""

import sys

from fathom.proof.cli import main

sys.exit(main())
