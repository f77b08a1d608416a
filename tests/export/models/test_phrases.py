"""Number and date phrases: right words, and meanings that are held out whole."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest

from export.models.translation import phrases

WRITTEN = [
    ("a hundred keeps its s before nothing", phrases.cardinal(200), "200", "deux cents", "zweihundert"),
    ("and loses it before a number", phrases.cardinal(80_081), "80,081", "quatre-vingt mille quatre-vingt-un", None),
    ("a thousand never has one", phrases.cardinal(2_000), "two thousand", "deux mille", "zweitausend"),
    ("num2words writes 'quatre-vingtsième'", phrases.ordinal(80), "80th", "quatre-vingtième", "achtzigste"),
    ("and 'deux centsième'", phrases.ordinal(200), "two hundredth", "deux centième", "zweihundertste"),
    ("and 'einhunderteinstausend'", phrases.cardinal(101_000), "101,000", "cent un mille", "einhunderteintausend"),
    ("an ordinal of digits", phrases.ordinal(21), "21st", "vingt et unième", "einundzwanzigste"),
    ("a year is spoken by hundreds in German", phrases.year(1984), "in 1984", None, None),
    ("the first day is an ordinal in French", phrases.date(1, 8, 2024), "August 1st, 2024", None, None),
    ("with the article", phrases.date(3, 5, 1998), "the third of May 1998", None, None),
    ("an amount", phrases.money(1250, "EUR"), "twelve euros and fifty cents", None, None),
]
TRANSLATIONS = {
    "in 1984": ("en mille neuf cent quatre-vingt-quatre", "im Jahr neunzehnhundertvierundachtzig"),
    "August 1st, 2024": ("premier août deux mille vingt-quatre", "erster August zweitausendvierundzwanzig"),
    "the third of May 1998": (
        "le trois mai mille neuf cent quatre-vingt-dix-huit",
        "der dritte Mai neunzehnhundertachtundneunzig",
    ),
    "twelve euros and fifty cents": ("douze euros et cinquante centimes", "zwölf Euro und fünfzig Cent"),
}


@pytest.mark.parametrize(
    ("phrase", "english", "french", "german"), [row[1:] for row in WRITTEN], ids=[r[0] for r in WRITTEN]
)
def test_a_phrase_has_the_words_that_people_use(phrase, english, french, german):
    translated = dict(phrase.written)[english]
    expected = TRANSLATIONS.get(english, (french, german))
    for language, words in zip(phrases.LANGUAGES, expected, strict=True):
        assert words is None or translated[language] == words


def test_no_way_of_writing_a_held_out_phrase_is_trained_on():
    trained = list(islice(phrases.drawn(0, held_out=False), 400))
    held_out = list(islice(phrases.drawn(0, held_out=True), 400))

    assert not {(each.kind, each.key) for each in trained} & {(each.kind, each.key) for each in held_out}
    assert {each.kind for each in held_out} == set(phrases.KINDS)
    assert not any(each.held_out for each in map(phrases.cardinal, range(phrases.ALWAYS_TRAINED)))


def test_the_same_seed_draws_the_same_phrases():
    drawn = [phrases.held_out_pairs(20, seed=3) for _ in range(2)]
    assert drawn[0] == drawn[1]
    assert len(set(drawn[0])) == 20
    only = phrases.held_out_pairs(20, languages=("de",))
    assert {pair.language for pair in only} == {"de"}
    assert np.mean([pair.language == "de" for pair in phrases.held_out_pairs(200)]) == pytest.approx(0.5, abs=0.15)
