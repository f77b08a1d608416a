"""Tokens in, pieces of text out: whole characters, and nothing that may be the beginning of a stop word."""

import codecs
import json

_PRINTABLE = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]


def token_bytes(tokenizer):
    """The bytes of each token of a byte-level `tokenizers.Tokenizer`, by id; none of special ones.

    Raises ValueError for a tokenizer of another kind. Its tokens are bytes written as characters (those that print as
    themselves, the others from U+0100 on), and a character of the text may be spread over several of them.
    """
    described = json.loads(tokenizer.to_str())
    kind = (described.get("decoder") or {}).get("type")
    if kind != "ByteLevel":
        raise ValueError(f"its decoder is {kind}, and only ByteLevel is read")
    others = [byte for byte in range(256) if byte not in _PRINTABLE]
    byte_of = {chr(byte): byte for byte in _PRINTABLE} | {chr(256 + i): byte for i, byte in enumerate(others)}
    table = [b""] * tokenizer.get_vocab_size()
    for token, number in tokenizer.get_vocab().items():
        if all(character in byte_of for character in token):
            table[number] = bytes(byte_of[character] for character in token)
    for added in described["added_tokens"]:
        table[added["id"]] = b"" if added["special"] else added["content"].encode()
    return table


class Pieces:
    """The text of one answer, token by token. `stopped` is set once a stop word has come."""

    def __init__(self, table, stop=()):
        self._table, self._stop = table, stop
        self._characters = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""
        self.stopped = False

    def add(self, token):
        """What can be sent now that `token` has come; "" where it may still become something else."""
        self._held += self._characters.decode(self._table[token])
        found = [at for word in self._stop if (at := self._held.find(word)) >= 0]
        if found:
            self.stopped, self._held = True, self._held[: min(found)]
            return self.rest()
        hold = max((_overlap(self._held, word) for word in self._stop), default=0)
        piece, self._held = self._held[: len(self._held) - hold], self._held[len(self._held) - hold :]
        return piece

    def rest(self):
        """What was held back for a stop word that did not come. The beginning of a character is dropped."""
        piece, self._held = self._held, ""
        return piece


def _overlap(text, word):
    """How many characters at the end of `text` are the beginning of `word`."""
    return next((n for n in range(min(len(text), len(word) - 1), 0, -1) if text.endswith(word[:n])), 0)
