"""The choice of tokens, and the text that they are sent as."""

from __future__ import annotations

import itertools
import random
from typing import Any

import numpy as np
import pytest
from repository_code import load
from tiny_decoder import tiny_tokenizer
from tokenizers import Tokenizer, decoders, models

pieces, sampling = load("recipe_writer", "pieces", "sampling")
TOKENIZER = tiny_tokenizer()
TABLE = pieces.token_bytes(TOKENIZER)
LOGITS = np.log(np.array([0.1, 0.4, 0.05, 0.3, 0.15], np.float32))


def text_of(tokens: Any, stop: Any = ()) -> tuple[list[str], str]:
    """The pieces, up to a stop word, and what is left at the end."""
    made, sent = pieces.Pieces(TABLE, stop), []
    for token in tokens:
        sent.append(made.add(token))
        if made.stopped:
            break
    return sent, made.rest()


TEXTS = (
    "Tea, café and 東京 \N{STEAMING BOWL}",
    "\n\n  1/2 cup",
    "e\N{COMBINING ACUTE ACCENT}\0x",
    "\ufffd is a character, too",
)


@pytest.mark.parametrize("text", TEXTS)
def test_pieces_are_whole_characters_and_make_up_the_text(text: str) -> None:
    sent, rest = text_of(TOKENIZER.encode(text).ids)
    assert "".join(sent) + rest == text
    if "\ufffd" not in text:
        assert not any("\ufffd" in piece for piece in sent)


def test_any_tokens_give_the_text_of_the_tokenizer() -> None:
    dice = random.Random(0)
    for _ in range(200):
        tokens = [dice.randrange(len(TABLE)) for _ in range(30)] + TOKENIZER.encode(" end").ids
        sent, rest = text_of(tokens)
        assert "".join(sent) + rest == TOKENIZER.decode(tokens)


def test_the_beginning_of_a_character_is_not_sent() -> None:
    tokens = TOKENIZER.encode("so 東").ids
    sent, rest = text_of(tokens[:-1])
    assert "".join(sent) + rest == "so "


STOPS = [("never said",), ("cups",), ("cup", "cups"), ("aab",), ("\n\n",), ("東京", "t"), ("ee", "eé"), ("1", "2 c")]


@pytest.mark.parametrize("stop", STOPS)
def test_the_text_ends_before_the_first_stop_word_and_nothing_of_it_is_sent(stop: tuple[str, ...]) -> None:
    for text in (*TEXTS, "two cups of 1 aaab", "eeé"):
        sent, rest = text_of(TOKENIZER.encode(text).ids, stop)
        ends = min((text.index(word) for word in stop if word in text), default=len(text))
        assert "".join(sent) + rest == text[:ends]
        for piece_end in itertools.accumulate(map(len, sent)):
            assert piece_end <= ends


def test_text_is_held_back_only_while_it_may_become_a_stop_word() -> None:
    made = pieces.Pieces([b"a", b"b", b"c"], ("abc",))
    assert [made.add(token) for token in (0, 0, 1, 0, 2, 0, 1, 2)] == ["", "a", "", "ab", "ac", "", "", ""]
    assert made.stopped


def test_another_kind_of_tokenizer_is_refused() -> None:
    other = Tokenizer(models.WordLevel({"a": 0}))
    other.decoder = decoders.WordPiece()
    with pytest.raises(ValueError, match="WordPiece"):
        pieces.token_bytes(other)


def draws(count: int = 4000, **options: Any) -> np.ndarray:
    choose = sampling.Sampler(**options)
    return np.bincount([choose(LOGITS) for _ in range(count)], minlength=5) / count


@pytest.mark.parametrize(
    ("options", "shares"),
    [
        ({"temperature": 0}, [0, 1, 0, 0, 0]),  # the likeliest always
        ({"temperature": 1e-30}, [0, 1, 0, 0, 0]),  # and with hardly any temperature
        ({"temperature": 1}, [0.1, 0.4, 0.05, 0.3, 0.15]),  # as the model has it
        ({"temperature": 0.5}, np.square([0.1, 0.4, 0.05, 0.3, 0.15]) / 0.285),  # sharper
        ({"temperature": 1, "top_p": 0.7}, [0, 4 / 7, 0, 3 / 7, 0]),  # two reach it exactly
        ({"temperature": 1, "top_p": 0.71}, [0, 0.4 / 0.85, 0, 0.3 / 0.85, 0.15 / 0.85]),  # and three just above
        ({"temperature": 1, "top_p": 1e-9}, [0, 1, 0, 0, 0]),  # one is always left
        ({"temperature": 1e30}, [0.2] * 5),  # any of them
    ],
)
def test_tokens_are_drawn_with_their_probabilities(options: dict[str, Any], shares: Any) -> None:
    assert draws(seed=1, **options) == pytest.approx(shares, abs=0.03)


def test_the_tokens_that_top_p_keeps_are_the_likeliest_that_reach_it() -> None:
    random_numbers = np.random.default_rng(3)
    for _ in range(20):
        logits = random_numbers.normal(0, 3, 500).astype(np.float32)
        weights = np.exp(logits.astype(float)) / np.exp(logits.astype(float)).sum()
        best_first = np.argsort(-weights)
        kept = best_first[: 1 + np.searchsorted(np.cumsum(weights[best_first]), 0.9)]
        choose = sampling.Sampler(1.0, 0.9, seed=5)
        assert {choose(logits) for _ in range(200)} <= set(kept.tolist())


def test_a_seed_repeats_and_no_seed_does_not() -> None:
    def fifty(seed: int | None) -> list[int]:
        choose = sampling.Sampler(1.0, 1.0, seed)
        return [choose(LOGITS) for _ in range(50)]

    assert fifty(7) == fifty(7)
    assert fifty(7) != fifty(8)
    assert fifty(None) != fifty(None)


@pytest.mark.parametrize("options", [{}, {"temperature": 1.0}])
def test_logits_that_are_no_numbers_are_an_error(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="not numbers"):
        sampling.Sampler(**options)(np.array([0.0, np.nan, 1.0], np.float32))
