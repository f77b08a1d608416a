"""Programs of Debian packages that some tests run for real; .ci/run installs them."""

from __future__ import annotations

import shutil

import pytest


def needs(program: str, package: str) -> pytest.MarkDecorator:
    """Skip a test where `program` is missing, with the package to install."""
    return pytest.mark.skipif(
        shutil.which(program) is None, reason=f"Debian package missing: apt-get install {package} (for {program})"
    )
