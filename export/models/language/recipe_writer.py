"""What `recipe_writer` is asked, for load tests and examples: it opens the files of smollm2."""

from __future__ import annotations

import numpy as np

from export.models.language.smollm2 import PROMPTS
from export.models.text.minilm import SENTENCES
from export.recipe.recipe import Arrays
from export.recipe.system import Question, System

REQUESTS = 500
_MEDIAN_TOKENS, _SPREAD, _LEAST_TOKENS, _MOST_TOKENS = 48, 0.6, 8, 192
_MOST_SENTENCES = 12
_ALONE = 0.4
"""Of the prompts: those without a sentence more; each one more comes with the same probability to be the last."""


def requests() -> Arrays:
    """`prompt` BYTES [500, 1]: a wish, with a few sentences behind it or many; `max_tokens` INT32 [500, 1],
    log-normal."""
    random = np.random.default_rng(0)
    prompts, sentences = (path.read_text(encoding="utf-8").splitlines() for path in (PROMPTS, SENTENCES))
    more = np.minimum(random.geometric(_ALONE, REQUESTS) - 1, _MOST_SENTENCES)
    texts = [" ".join([random.choice(prompts), *random.choice(sentences, count)]).encode() for count in more]
    tokens = np.rint(_MEDIAN_TOKENS * random.lognormal(0, _SPREAD, REQUESTS))
    return {
        "prompt": np.array(texts, object)[:, None],
        "max_tokens": np.clip(tokens, _LEAST_TOKENS, _MOST_TOKENS).astype(np.int32)[:, None],
    }


def interpret(outputs: Arrays) -> list[str]:
    """A part's text."""
    return [text.decode() for text in outputs["text"]]


def question() -> Question:
    """A short wish."""
    prompt = "Write a very short recipe for pancakes."
    inputs = {"prompt": np.array([prompt.encode()], object), "max_tokens": np.array([40], np.int32)}
    return Question(prompt, inputs)


SLOS = ("ttft:p90=1s", "itl:p90=150ms")
SYSTEM = System("recipe_writer", (), requests, question, interpret, judged=False, slos=SLOS)
