"""What recipe_writer is asked in load tests."""

from __future__ import annotations

import numpy as np

from clients import codec
from clients.spec import ModelSpec, TensorSpec
from export.models.language import recipe_writer
from export.recipe.recipe import Evaluation


def test_prompts_and_answers_have_different_lengths() -> None:
    asked = recipe_writer.requests()
    words = np.array([len(text.split()) for (text,) in asked["prompt"]])
    assert words.min() < 10 < 60 < words.max()
    assert asked["max_tokens"].min() < 20 < 100 < asked["max_tokens"].max()


def test_each_is_a_request_that_the_model_takes() -> None:
    inputs = {
        "prompt": TensorSpec("prompt", "BYTES", (1,)),
        "max_tokens": TensorSpec("max_tokens", "INT32", (1,), True),
    }
    spec = ModelSpec("recipe_writer", "1", 0, inputs, {}, decoupled=True)
    rows = [*Evaluation(recipe_writer.requests(), batched=False).batches(1)]
    assert len(rows) == len([codec.encode(spec, row) for row in rows]) == recipe_writer.REQUESTS
