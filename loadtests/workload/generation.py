"""Requests for a model that generates text: prompts and answers of different lengths, drawn from a seed.

Lengths are log-normal, as those of people are: many are short, few are several times as long. What the inputs of such
models are called is known for Triton's vLLM and TensorRT-LLM backends and for `recipe_writer`.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

_STRING = 13
"""`TYPE_STRING` of a ModelConfig."""
_MEDIAN_WORDS, _WORDS_SPREAD, _MOST_WORDS = 20, 0.8, 150
_MEDIAN_TOKENS, _TOKENS_SPREAD, _LEAST_TOKENS, _MOST_TOKENS = 48, 0.6, 8, 192
_DISHES = ("pancakes", "lentil soup", "potato salad", "an apple cake", "fried rice", "tomato sauce", "flat bread")
_WISHES = (
    "It should be ready in half an hour.",
    "I have onions, carrots and a little butter left.",
    "Nobody here eats nuts.",
    "Please list what I have to buy first.",
    "My oven is small and heats unevenly.",
    "Tell me what can be prepared the day before.",
    "Six people will come, and two of them are children.",
)


def generates(config: Any | None) -> bool:
    """Whether a model is one of these, by its ModelConfig: it answers texts in parts."""
    return (
        config is not None
        and config.model_transaction_policy.decoupled
        and any(tensor.data_type == _STRING and not tensor.optional for tensor in config.input)
    )


def drawn(rng: np.random.Generator) -> dict[str, Any]:
    """The values of one request by the names of inputs; another text is the `prompt`."""
    tokens = _length(rng, _MEDIAN_TOKENS, _TOKENS_SPREAD, _LEAST_TOKENS, _MOST_TOKENS)
    return {
        "prompt": _prompt(rng),
        "max_tokens": tokens,
        "request_output_len": tokens,
        "stream": True,
        "streaming": True,
        "sampling_parameters": json.dumps({"max_tokens": tokens, "temperature": 0}),
    }


def without_options(metadata: Any, config: Any) -> Any:
    """A copy of the ModelMetadataResponse without the inputs that may be left out, unless `drawn` has a value."""
    optional = {tensor.name for tensor in config.input if tensor.optional}
    known = drawn(np.random.default_rng(0))
    kept = type(metadata)()
    kept.CopyFrom(metadata)
    del kept.inputs[:]
    kept.inputs.extend(tensor for tensor in metadata.inputs if tensor.name not in optional or tensor.name in known)
    return kept


def _prompt(rng: np.random.Generator) -> str:
    words = _length(rng, _MEDIAN_WORDS, _WORDS_SPREAD, 5, _MOST_WORDS)
    text = f"Write a recipe for {rng.choice(_DISHES)}."
    while len(text.split()) < words:
        text += f" {rng.choice(_WISHES)}"
    return text


def _length(rng: np.random.Generator, median: int, spread: float, least: int, most: int) -> int:
    return int(np.clip(round(median * rng.lognormal(0, spread)), least, most))
