"""The search for the likeliest words, against all words counted one by one on a language of a dozen pieces."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import repository_code

pieces_module, search_module = repository_code.load("next_word_search", "pieces", "search")


def root(begins: bytes) -> Any:
    return search_module.Node(1.0, b"", begins, False, 0, 0)


UNIQUE = [None, b".", b" a", b" b", b" c", b" e", b"x", b"y", b"'s"]
"""In these pieces a word can be written in one way."""


@pytest.mark.parametrize("seed", range(40))
def test_words_that_are_written_in_one_way_get_their_exact_probabilities(seed: int) -> None:
    pieces = pieces_module.Pieces(UNIQUE)
    random = np.random.default_rng(seed)
    table = random.gamma(0.5, 1.0, (len(UNIQUE) + 1, len(UNIQUE))) + 1e-3
    table[:, pieces.ends] *= 4
    table /= table.sum(axis=1, keepdims=True)  # row: the piece in front, the last one for none
    search = search_module.Search(pieces, [(root(b" "), table[-1], None)])
    steps = 0
    while taken := search.take():
        steps += 1
        assert len(taken) <= 8
        for node in taken:
            search.give(node, 0, table[node.piece])
    assert steps <= 3
    words: dict[str, float] = {}
    beginnings = [(b"", -1, 1.0)]
    for _ in range(6):
        longer = []
        for text, last, probability in beginnings:
            for number in range(1, len(UNIQUE)):
                piece = UNIQUE[number]
                assert piece is not None
                if piece != b"." and (text == b"") == piece.startswith(b" "):
                    longer.append((text + piece, number, probability * table[last, number]))
        beginnings = longer
        for text, last, probability in beginnings:
            if word := pieces_module.as_word(text):
                words[word] = probability * table[last, pieces.ends].sum()
    mass = table[-1, 2:6].sum()
    expected = sorted(((p / mass, word) for word, p in words.items()), reverse=True)[:5]
    if search.settled:
        assert [word for word, _ in search.best()] == [word for _, word in expected]
        assert [p for _, p in search.best()] == pytest.approx([p for p, _ in expected])


def test_a_search_stops_when_no_other_word_can_overtake() -> None:
    """Six likely words of one piece each, which nearly always end there: one step of no more than six is enough."""
    texts = [None, b".", *(f" {letter}".encode() for letter in "abcdef"), b"x"]
    pieces = pieces_module.Pieces(texts)
    first = np.array([0.0, 0.0, 0.3, 0.2, 0.15, 0.15, 0.12, 0.08, 0.0])
    behind = np.array([0.0, 0.99, *[0.0] * 6, 0.01])
    search = search_module.Search(pieces, [(root(b" "), first, None)], breadth=5)
    taken = search.take()
    assert [texts[node.piece] for node in taken] == [b" a", b" b", b" c", b" d", b" e"]
    for node in taken:
        search.give(node, 1, behind)
    assert search.settled
    assert search.take() == []
    assert search.best()[0] == ("a", pytest.approx(0.297))


def run(search: Any, pieces: Any, after: dict[bytes, dict[bytes, float]]) -> list[tuple[str, float]]:
    """The words when `after` says which pieces follow a text; behind all others the word ends."""

    def following(text: bytes) -> Any:
        chosen = after.get(text, {b".": 1.0})
        return np.array([chosen.get(piece, 0.0) for piece in pieces.texts])

    while taken := search.take():
        for node in taken:
            search.give(node, 0, following(node.text))
    found: list[tuple[str, float]] = search.best()
    return found


def test_the_ways_to_write_a_word_in_pieces_add_up() -> None:
    texts = [b".", b" ab", b" a", b"b"]
    pieces = pieces_module.Pieces(texts)
    search = search_module.Search(pieces, [(root(b" "), np.array([0.5, 0.1, 0.4, 0.0]), None)])
    found = dict(run(search, pieces, {b" a": {b"b": 0.25, b".": 0.75}}))
    # A word follows in half of all cases: " ab" 0.1, " a" and "b" 0.4 x 0.25; "a" 0.4 x 0.75.
    assert found == pytest.approx({"a": 0.6, "ab": 0.4})


def test_only_words_that_begin_with_what_was_typed_are_found_in_whatever_pieces() -> None:
    texts = [b".", b" w", b" way", b" we", b"a", b"ait", b"e"]
    pieces = pieces_module.Pieces(texts)
    search = search_module.Search(pieces, [(root(b" wa"), np.array([0.1, 0.2, 0.1, 0.5, 0.0, 0.0, 0.1]), None)])
    found = dict(run(search, pieces, {b" w": {b"ait": 0.4, b"a": 0.1, b"e": 0.5}}))
    # " way" 0.1, " w" and "ait" 0.2 x 0.4, " w" and "a" 0.2 x 0.1: together 0.2.
    assert found == pytest.approx({"way": 0.5, "wait": 0.4, "wa": 0.1})


@pytest.mark.parametrize(
    ("text", "word"),
    [
        (b" way", "way"),
        (b" don't", "don't"),
        (" caf\u00e9".encode(), "caf\u00e9"),
        (b" 2024", "2024"),
        (b"way", "way"),
        (b" ", None),
        (b" '", None),
        (b" dogs'", None),
        (b" caf\xc3", None),
        ("\U0001f642".encode(), None),
    ],
)
def test_a_word_is_made_of_letters_digits_and_apostrophes_between_them(text: bytes, word: str | None) -> None:
    assert pieces_module.as_word(text) == word


@pytest.mark.parametrize(
    ("piece", "ends", "why"),
    [
        (None, True, "the end of the text"),
        (b" way", True, "the next word"),
        (b"\n", True, "a line break"),
        (b",", True, "a mark"),
        (b"',", True, "a closing quote with a mark"),
        ("\u201d".encode(), True, "a closing quote of several bytes"),
        (b"ing", False, "goes on"),
        (b"'s", False, "goes on"),
        (b"\xc3", False, "the first byte of a letter"),
        (b"s.", False, "goes on before it ends"),
    ],
)
def test_which_pieces_end_a_word(piece: bytes | None, ends: bool, why: str) -> None:
    assert pieces_module.Pieces([piece]).ends[0] == ends, why
