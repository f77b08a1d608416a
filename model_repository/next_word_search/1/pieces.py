"""The tokenizer's pieces as bytes, and which of them begin a word, continue it or end it.

A word is made of letters, digits and apostrophes. The pieces are those of a byte-level BPE, in which a word's first
piece carries the space in front of it.
"""

import re
from functools import lru_cache

import numpy as np

# A piece may end inside a letter of several bytes; such bytes are decoded as surrogates and count as letters.
_INSIDE = re.compile("(?:[^\\W_]|['’\udc80-\udcff])*")
_LETTER = re.compile("[^\\W_]|[\udc80-\udcff]")
_WORD = re.compile("[^\\W_]+(?:['’][^\\W_]+)*")


class Pieces:
    """`texts` are the pieces' bytes by token id; None for a special token, which ends a word as a space does."""

    def __init__(self, texts):
        self.texts = list(texts)
        self._known = {text: piece for piece, text in enumerate(self.texts) if text}
        self._sorted = sorted(self._known)
        self._inside = np.array([bool(text) and _is_inside(text) for text in self.texts])
        begins = np.array([bool(text) and text[:1] == b" " and _is_inside(text[1:]) for text in self.texts])
        self._in_words = self._inside | begins
        self.ends = np.array([not text or _ends_a_word(text) for text in self.texts])

    @classmethod
    def of(cls, tokenizer):
        """Those of a byte-level `tokenizers.Tokenizer`."""
        byte_of = _bytes_by_character()
        special = {piece for piece, added in tokenizer.get_added_tokens_decoder().items() if added.special}
        texts = [None] * tokenizer.get_vocab_size()
        for text, piece in tokenizer.get_vocab().items():
            if piece not in special:
                texts[piece] = bytes(byte_of[character] for character in text)
        return cls(texts)

    @lru_cache(maxsize=256)  # noqa: B019 (one object for the life of the model)
    def following(self, rest):
        """Which pieces may come next in a word that still has to begin with the bytes `rest`.

        Returns the ids that cover `rest`, and those that are a part of it and leave some of it to the next piece.
        """
        if not rest:
            return np.flatnonzero(self._inside), np.array([], np.int64)
        covering = np.array([self._known[text] for text in self._from(rest)], np.int64)
        parts = [self._known.get(rest[:length]) for length in range(1, len(rest))]
        return covering[self._in_words[covering]], np.array([piece for piece in parts if piece is not None], np.int64)

    def _from(self, rest):
        """The pieces that begin with `rest`."""
        low, high = 0, len(self._sorted)
        while low < high:
            middle = (low + high) // 2
            low, high = (middle + 1, high) if self._sorted[middle] < rest else (low, middle)
        while low < len(self._sorted) and self._sorted[low].startswith(rest):
            yield self._sorted[low]
            low += 1


def as_word(text):
    """The word that these bytes are, without the space in front; None where they are none."""
    try:
        word = text.decode().removeprefix(" ")
    except UnicodeDecodeError:
        return None
    return word if _WORD.fullmatch(word) else None


def last_word(text):
    """Where the word that `text` ends in begins; the length of the text where it ends in none."""
    found = re.search("[^\\W_]+(?:['’][^\\W_]+)*['’]?\\Z", text)
    return found.start() if found else len(text)


def _is_inside(text):
    return _INSIDE.fullmatch(text.decode(errors="surrogateescape")) is not None


def _ends_a_word(text):
    return not _is_inside(text) and not _LETTER.match(text.decode(errors="surrogateescape"))


def _bytes_by_character():
    """The alphabet of byte-level BPE: printable bytes stand for themselves, the others for characters from 256 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + place): byte for place, byte in enumerate(others)}
