"""How often is the next word among the five of next_word, and of a trigram model? `python -m benchmarks.next_word`.

The texts are those of export/models/language/next_word.py, which neither model has seen. The trigram model is the
US-English one of CMU Sphinx, 72,544 words in lower case: `pip install pocketsphinx` brings it. Words are compared in
lower case.
"""

from __future__ import annotations

import argparse
import importlib
import math
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from export.command import default_repository
from export.models.language.next_word import beginnings, lines

_TOP = 5
_BATCH = 4


def main() -> None:
    """Ask both for the next word at the same places, and the first for words of which some letters are there."""
    command = argparse.ArgumentParser(prog="python -m benchmarks.next_word", description=__doc__)
    command.add_argument("--decoder", type=Path, default=default_repository() / "smollm2" / "1", metavar="FOLDER")
    command.add_argument("--places", type=int, default=500, metavar="N", help="words to guess (default: %(default)s)")
    command.add_argument("--context", type=int, default=64, metavar="TOKENS", help="default: %(default)s")
    command.add_argument("--threads", type=int, default=2, metavar="N", help="default: %(default)s")
    arguments = command.parse_args()
    everything = [place for line in lines() for place in beginnings(line)]
    drawn = np.random.default_rng(0).permutation(len(everything))[: arguments.places]
    places = [everything[index] for index in sorted(drawn)]
    model = _next_word(arguments.decoder, arguments.context, arguments.threads)
    print(f"{len(places)} of {len(everything)} words")
    _print("trigrams of CMU Sphinx", places, Sphinx().suggest([text for text, _ in places]))
    _print("next_word, behind a space", places, _suggest(model, [f"{text} " for text, _ in places]))
    bare = _suggest(model, [text for text, _ in places])
    _print("next_word, without the space", places, bare)
    for letters in (1, 2, 3):
        begun = [(text, word) for text, word in places if len(word) > letters]
        typed = [f"{text} {word[:letters]}" for text, word in begun]
        _print(f"next_word, {letters} letters of longer words typed", begun, _suggest(model, typed))


def _print(name: str, places: Sequence[tuple[str, str]], suggested: Sequence[Sequence[str]]) -> None:
    ranks = [
        [word.lower() for word in words].index(wanted.lower()) if wanted.lower() in map(str.lower, words) else _TOP
        for (_, wanted), words in zip(places, suggested, strict=True)
    ]
    first, five = (sum(rank < most for rank in ranks) / len(ranks) for most in (1, _TOP))
    error = math.sqrt(five * (1 - five) / len(ranks))
    print(
        f"{name}: {five:.1%} among the five (standard error {error:.1%}), {first:.1%} first, n={len(ranks)}", flush=True
    )


def _next_word(folder: Path, context: int, threads: int) -> Any:
    """The model's own code, without a server."""
    sys.path.insert(0, str(default_repository() / "next_word_search" / "1"))
    return importlib.import_module("next_words").NextWords(folder, limit=context, threads=threads)


def _suggest(model: Any, texts: Sequence[str]) -> list[list[str]]:
    found: list[list[str]] = []
    for start in range(0, len(texts), _BATCH):
        readings = [model.read(text) for text in texts[start : start + _BATCH]]
        found += [[word for word, _ in words] for words in model.find(readings)]
    return found


class Sphinx:
    """The five likeliest words behind the last two, by the language model of the package pocketsphinx."""

    def __init__(self) -> None:
        package = importlib.import_module("pocketsphinx")
        folder = Path(str(package.__file__)).parent / "model" / "en-us"
        self._model = package.NGramModel.readfile(str(folder / "en-us.lm.bin"))
        listed = (line.split()[0] for line in (folder / "cmudict-en-us.dict").read_text().splitlines())
        unknown = self._model.prob(["no such word"])
        self._words = [word for word in listed if "(" not in word and self._model.prob([word]) > unknown]

    def suggest(self, texts: Sequence[str]) -> list[list[str]]:
        """For each text."""
        return [self._five(re.findall(r"<s>|[^\W_]+(?:'[^\W_]+)*", f"<s> {text.lower()}")[-2:]) for text in texts]

    def _five(self, before: Sequence[str]) -> list[str]:
        recent = list(reversed(before))
        scores = np.array([self._model.prob([word, *recent]) for word in self._words])
        return [self._words[place] for place in np.argsort(-scores, kind="stable")[:_TOP]]


if __name__ == "__main__":
    main()
