"""The likeliest next words, found among the sequences of sub-word pieces by a best-first search.

The probability of a word is the sum, over the ways to write it in pieces p1 .. pn, of

    P(p1 | text) x P(p2 | text p1) x .. x P(pn | text p1 .. pn-1) x P(the next piece ends the word | text p1 .. pn)

divided by the probability that what follows the text begins as asked: with a space and a word, or with the letters
typed. A piece that begins with a space, a mark or a line break ends a word, and so does the end of the text.
No word is likelier than its first pieces, so the search ends when as many words as wanted are finished and none of the
unfinished ones is as likely.
"""

import heapq
from dataclasses import dataclass, replace

import numpy as np
from pieces import as_word


@dataclass(frozen=True)
class Node:
    """A beginning of a word. `rest` is what it has yet to begin with; `begun` says that it is nothing any more.

    `row` and `length` say where the decoder's cache of what is in front of `piece` lies and how many pieces of it are
    used.
    """

    probability: float
    text: bytes
    rest: bytes
    begun: bool
    row: int
    length: int
    piece: int = -1


class Search:
    """The words after one text. `take()` names the pieces whose next pieces are needed, `give()` brings these."""

    def __init__(self, pieces, known, *, words=5, breadth=8, steps=3):
        """`known` are the first nodes with their next pieces' probabilities [vocabulary] and, but for the last, the
        piece that leads to the next."""
        self._pieces, self._words, self._breadth, self._steps_left = pieces, words, breadth, steps
        self._found = {}
        self._open = []
        self._mass = 0.0
        self._count = 0
        for node, probabilities, leads_on in known:
            self._expand(node, probabilities, without=leads_on)

    def take(self):
        """The likeliest unfinished beginnings, at most `breadth`; none when the words cannot be overtaken, or after
        the last of the `steps`."""
        taken = []
        while self._steps_left and not self.settled and len(taken) < self._breadth:
            taken.append(heapq.heappop(self._open)[2])
        self._steps_left -= bool(taken)
        return taken

    def give(self, node, row, probabilities):
        """The next pieces' probabilities [vocabulary] behind a node that was taken; `row` is its own cache's."""
        self._expand(replace(node, row=row, length=node.length + 1), probabilities)

    @property
    def settled(self):
        """Whether no unfinished word can be among the answer."""
        return not self._open or -self._open[0][0] <= self._least()

    def best(self):
        """The likeliest words with their probabilities, best first; fewer than wanted where no more were found."""
        ranked = sorted(self._found.items(), key=lambda found: (-found[1], found[0]))[: self._words]
        return [(word, probability / self._mass) for word, probability in ranked]

    def _expand(self, node, probabilities, without=None):
        word = as_word(node.text) if node.begun else None
        if word is not None:
            finished = node.probability * float(probabilities[self._pieces.ends].sum())
            self._found[word] = self._found.get(word, 0.0) + finished
        covering, parts = self._pieces.following(node.rest)
        if not node.begun:
            self._mass += node.probability * float(probabilities[covering].sum())
        for piece in (*self._likeliest(covering, probabilities), *parts.tolist()):
            if piece != without:
                self._add(node, piece, float(probabilities[piece]))

    def _likeliest(self, pieces, probabilities):
        """As many as the steps that are left can take: what is less likely stays behind these."""
        most = max(self._steps_left * self._breadth, 1)
        if len(pieces) > most:
            pieces = pieces[np.argpartition(probabilities[pieces], -most)[-most:]]
        return pieces.tolist()

    def _add(self, node, piece, probability):
        text = self._pieces.texts[piece]
        begun = node.begun or len(text) >= len(node.rest)
        child = Node(
            node.probability * probability,
            node.text + text,
            b"" if begun else node.rest[len(text) :],
            begun,
            node.row,
            node.length,
            piece,
        )
        self._count += 1
        heapq.heappush(self._open, (-child.probability, self._count, child))

    def _least(self):
        """The probability that a word must exceed to be among the answer."""
        found = heapq.nlargest(self._words, self._found.values())
        return found[-1] if len(found) == self._words else 0.0
