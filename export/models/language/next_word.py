"""What `next_word` is asked, and its answers for a person: it opens the files of smollm2."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from export.models.text.minilm import RETRIEVAL, SENTENCES
from export.recipe.recipe import Arrays
from export.recipe.system import Question, System

REQUESTS = 20_000
"""All different, since Triton answers a text that comes again from its response cache."""

_WORD = re.compile("[^\\W_]+(?:['’][^\\W_]+)*")
_FEWEST_WORDS = 5


def lines() -> list[str]:
    """Sentences and paragraphs that were written for this project, of five words and more."""
    files: tuple[Path, ...] = (SENTENCES, RETRIEVAL)
    texts = [line.removeprefix("? ") for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    return [text for text in texts if not text.startswith("#") and len(_WORD.findall(text)) >= _FEWEST_WORDS]


def beginnings(line: str) -> Iterator[tuple[str, str]]:
    """Each word of a line that a space precedes, behind the text in front of it, without that space."""
    for word in _WORD.finditer(line):
        if line[: word.start()].endswith(" "):
            yield line[: word.start()].rstrip(), word.group()


def requests() -> Arrays:
    """`text` BYTES [20,000, 1]: a line, and behind it the beginning of another, which ends with a whole word."""
    random = np.random.default_rng(0)
    whole, begun = lines(), [text for line in lines() for text, _ in beginnings(line)]
    texts: dict[str, None] = {}
    while len(texts) < REQUESTS:
        first, then = random.integers(len(whole)), random.integers(len(begun))
        texts[f"{whole[first]} {begun[then]}"] = None
    return {"text": np.array([[text.encode()] for text in texts], object)}


def interpret(outputs: Arrays) -> list[str]:
    """The words best first: "way (68 %), walk (7 %), wall (3 %)"."""
    return [
        ", ".join(
            f"{word.decode()} ({probability:.1%})".replace("%", " %")
            for word, probability in zip(words, probabilities, strict=True)
            if word
        )
        for words, probabilities in zip(outputs["words"], outputs["probabilities"], strict=True)
    ]


def question() -> Question:
    """A beginning that most people would go on with in the same way."""
    return Question('after "Thank you very"', {"text": np.array([[b"Thank you very"]], object)}, "much")


SYSTEM = System(
    "next_word",
    ("next_word_text", "next_word_search"),
    requests,
    question,
    interpret,
    judged=False,
    slos=("p99=500ms",),
)
