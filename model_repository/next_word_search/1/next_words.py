"""The five likeliest next words after texts, from the files of an exported language model."""

from pathlib import Path

from decoder import Decoder
from pieces import Pieces
from text import read, search
from tokenizers import Tokenizer

FILES = ("model.onnx", "tokenizer.json")
WORDS = 5
STEPS = 3


def newest(model):
    """The newest version folder of a model that holds the files. Raises FileNotFoundError where there is none."""
    found = [
        path for path in model.glob("*") if path.name.isdecimal() and all((path / name).is_file() for name in FILES)
    ]
    if not found:
        raise FileNotFoundError(f"'{model}' holds no decoder: run `fathom export {model.name}`")
    return max(found, key=lambda path: int(path.name))


class NextWords:
    """Reads the files in `folder`; `limit` is how many tokens at the end of a text count, `threads` compute one run."""

    def __init__(self, folder, *, limit, threads):
        self._limit = limit
        self._tokenizer = Tokenizer.from_file(str(Path(folder) / "tokenizer.json"))
        self._tokenizer.encode_special_tokens = True  # a marker that somebody writes stays text
        self._pieces = Pieces.of(self._tokenizer)
        self._decoder = Decoder(Path(folder) / "model.onnx", threads=threads)

    def encode(self, text):
        """The token ids of a text."""
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def read(self, text):
        """What the text asks for."""
        return read(text, self.encode, limit=self._limit)

    def find(self, readings):
        """For each reading up to WORDS words with their probabilities, best first.

        All texts are read in one run; each step of all searches together is another.
        """
        if not readings:
            return []
        cache, following = self._decoder.read(
            [reading.ids for reading in readings], [reading.positions for reading in readings], room=STEPS
        )
        searches = [
            search(reading, self._pieces, row, probabilities, words=WORDS, steps=STEPS)
            for row, (reading, probabilities) in enumerate(zip(readings, following, strict=True))
        ]
        while taken := [(node, each) for each in searches for node in each.take()]:
            taken.sort(key=lambda pair: pair[0].row)
            nodes = [node for node, _ in taken]
            rows, following = self._decoder.extend(
                cache, [node.row for node in nodes], [node.length for node in nodes], [node.piece for node in nodes]
            )
            for (node, each), row, probabilities in zip(taken, rows, following, strict=True):
                each.give(node, row, probabilities)
        return [each.best() for each in searches]
