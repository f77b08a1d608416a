"""What a text asks for: the word behind it, or the rest of the word that it ends in.

Spaces at the end make no difference to a text that ends with a whole word. Where it ends with letters, these may be a
whole word (`on my`) or the beginning of one (`on my wa`), and the language model says which: they count as a whole word
unless it takes the word to be finished for less than one in twenty of the words that begin so.
"""

import re
from dataclasses import dataclass

from pieces import last_word
from search import Node, Search

UNFINISHED = 0.05
"""A word at the end of a text counts as unfinished where the share of it among the words that begin so is less."""

_NO_SPACE_BEHIND = re.compile("(?:^|[\\n(\\[{“‘/-])\\Z")
_MOST_PIECES = 16


@dataclass(frozen=True)
class Reading:
    """A text in token ids: what is in front of its last word, and that word where it may be unfinished.

    `typed` is what the next word begins with if so, as bytes with the space in front of it; `behind` is what it begins
    with otherwise, a space or nothing.
    """

    before: list
    last: list
    typed: bytes
    behind: bytes

    @property
    def ids(self):
        return self.before + self.last

    @property
    def positions(self):
        """Where the model's next pieces are needed: in front of the last word, inside of it and behind it."""
        return list(range(len(self.before) - 1, len(self.ids)))


def read(text, encode, *, limit):
    """The last `limit` tokens of a text behind a line break; `encode` gives the ids of a string."""
    whole = text.rstrip(" \t")
    begin = last_word(whole) if whole == text else len(whole)
    front, typed = whole[:begin], whole[begin:]
    start = encode("\n")
    if not typed:
        return Reading([*start, *encode(front)[-limit:]], [], b"", _space_behind(front).encode())
    trimmed = front.rstrip(" \t")
    lead = " " if trimmed and trimmed != front else ""
    last = encode(lead + typed)
    if len(last) >= min(_MOST_PIECES, limit):  # no word that anybody would want to be completed
        return Reading([*start, *encode(whole)[-limit:]], [], b"", b" ")
    return Reading([*start, *encode(trimmed)[len(last) - limit :]], last, (lead + typed).encode(), b" ")


def search(reading, pieces, row, following, **limits):
    """The search for the words that a reading asks for; `following` are the probabilities behind its `positions`.

    `row` is the number of the text's cache.
    """
    path = _path(reading, pieces, row, following)
    if reading.last and _unfinished(path, pieces):
        return Search(pieces, path, **limits)
    behind = Node(1.0, b"", reading.behind, False, row, len(reading.ids))
    return Search(pieces, [(behind, following[-1], None)], **limits)


def _path(reading, pieces, row, following):
    """The nodes along the last word as it was typed, each with its next pieces and the one that leads on."""
    node = Node(1.0, b"", reading.typed, False, row, len(reading.before))
    path = []
    for piece, probabilities in zip([*reading.last, None], following, strict=True):
        path.append((node, probabilities, piece))
        if piece is not None:
            text = node.text + pieces.texts[piece]
            rest = reading.typed[len(text) :]
            node = Node(node.probability * float(probabilities[piece]), text, rest, not rest, row, node.length + 1)
    return path


def _unfinished(path, pieces):
    """Whether what was typed is hardly ever a whole word here."""
    (first, in_front, leads_on), (whole, behind, _) = path[0], path[-1]
    others, _ = pieces.following(first.rest)
    longer = float(in_front[others[others != leads_on]].sum())
    finished = whole.probability * float(behind[pieces.ends].sum())
    return finished < UNFINISHED * (whole.probability + longer)


def _space_behind(front):
    return "" if _NO_SPACE_BEHIND.search(front) else " "
