"""The search for one translation, step by step, as transformers' generate() searches: greedy, or with beams.

It calls no model: whoever drives it looks the next tokens up for `written` and gives them to `advance`.
"""

import math


class Search:
    """`written` are the unfinished translations, token lists that begin with `start`, best first.

    At most `beams` of them; with one, the first end ends the search. A translation has `longest` tokens at most, its
    end included, and counts by its mean log-probability, where `length_penalty` is 1.
    """

    def __init__(self, *, beams, start, end, longest, length_penalty=1.0):
        self.beams, self._end, self._longest, self._penalty = beams, end, longest, length_penalty
        self._scores = [0.0]
        self._finished = []
        self.written = [[start]]
        self.done = False

    def advance(self, ids, log_probabilities):
        """The next tokens of each row of `written` with their log-probabilities: both [rows, candidates]."""
        length = len(self.written[0])
        if length == self._longest:
            ids, log_probabilities = [[self._end]] * len(self.written), [[0.0]] * len(self.written)
        found = [
            (score + float(more), row, int(token))
            for row, score in enumerate(self._scores)
            for token, more in zip(ids[row], log_probabilities[row], strict=True)
        ]
        found = sorted(found, key=lambda each: -each[0])[: 2 * self.beams]
        going_on = []
        for rank, (score, row, token) in enumerate(found):
            text = [*self.written[row], token]
            if token != self._end:
                going_on.append((score, text))
            elif rank < self.beams:
                self._finished.append((score / length**self._penalty, text[1:]))
        self._finished = sorted(self._finished, key=lambda each: -each[0])[: self.beams]
        self._scores = [score for score, _ in going_on[: self.beams]]
        self.written = [text for _, text in going_on[: self.beams]]
        self.done = self._settled(length)

    def best(self):
        """The best translation, its tokens up to the end, with its score."""
        score, text = self._finished[0]
        return text, score

    def _settled(self, length):
        """Whether no unfinished translation is likely to become better than the finished ones."""
        if not self.written or (self.beams == 1 and self._finished):
            return True
        worst = self._finished[-1][0] if len(self._finished) == self.beams else -math.inf
        return self._scores[0] / length**self._penalty <= worst
