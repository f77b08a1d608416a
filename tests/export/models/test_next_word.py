"""What next_word is asked in load tests, and what a person reads of its answers."""

from __future__ import annotations

import numpy as np

from export.models.language import next_word


def test_no_request_comes_twice_since_the_cache_would_answer_it() -> None:
    texts = [row[0] for row in next_word.requests()["text"]]
    assert len(set(texts)) == len(texts) == next_word.REQUESTS


def test_a_line_gives_a_beginning_for_each_word_behind_a_space() -> None:
    found = list(next_word.beginnings("It's 7 o'clock (or so), well-known"))
    assert found == [
        ("It's", "7"),
        ("It's 7", "o'clock"),
        ("It's 7 o'clock (or", "so"),
        ("It's 7 o'clock (or so),", "well"),
    ]


def test_an_answer_is_a_line_of_the_words_that_were_found() -> None:
    words = np.array([[b"way", b"walk", b"caf\xc3\xa9", b"", b""]], object)
    probabilities = np.array([[0.68, 0.066, 0.031, 0, 0]], np.float32)
    (sentence,) = next_word.interpret({"words": words, "probabilities": probabilities})
    assert sentence == "way (68.0 %), walk (6.6 %), café (3.1 %)"
