"""Outputs in words."""

from __future__ import annotations

import numpy as np
import pytest

from export import recipes
from fathom.console import answers


@pytest.mark.parametrize("name", sorted(recipes.reserved()))
def test_another_model_of_a_bundled_ones_name_is_answered_too(name: str) -> None:
    assert answers.sentences(name, {"y": np.zeros((1, 2))})
