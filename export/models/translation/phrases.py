"""English number and date phrases with their French and German, by num2words: what `translator` learns.

A phrase is held out by its meaning: no way of writing it, in either language, is ever trained on. What num2words gets
wrong is corrected: "quatre-vingtsième" is "quatre-vingtième", and "einhunderteinstausend" is "einhunderteintausend".
"""

from __future__ import annotations

import re
import zlib
from calendar import monthrange
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np

LANGUAGES = ("fr", "de")
HELD_OUT = 10
"""One meaning in so many is never trained on, of those above `ALWAYS_TRAINED`."""

ALWAYS_TRAINED = 100
"""Numbers under this are the words that all others are made of."""

DIGITS = 6
"""How many a cardinal has at most."""

ORDINALS, YEARS, CENTS = 10_000, (1000, 2100), 10_000_000
_WRONG = re.compile("(?<=ngt|ent)s(?=ième)|(?<=ein)s(?=tausend)")

_MONTHS = {
    "en": "January February March April May June July August September October November December",
    "fr": "janvier février mars avril mai juin juillet août septembre octobre novembre décembre",
    "de": "Januar Februar März April Mai Juni Juli August September Oktober November Dezember",
}
_CURRENCIES = {"USD": "$", "EUR": "€"}


Ways = tuple[tuple[str, Mapping[str, str]], ...]
"""Ways to write a phrase in English, each with its translations by language."""


@dataclass(frozen=True)
class Phrase:
    """What is meant, `kind` and `key`; it is put into words when they are needed."""

    kind: str
    key: str
    write: Callable[[], Ways]

    @cached_property
    def written(self) -> Ways:
        return self.write()

    @property
    def held_out(self) -> bool:
        """Whether it is among those that are never trained on."""
        small = self.key.isdigit() and int(self.key) < ALWAYS_TRAINED
        return not small and zlib.crc32(f"{self.kind} {self.key}".encode()) % HELD_OUT == 0


@dataclass(frozen=True)
class Pair:
    """One English text and its one translation."""

    text: str
    language: str
    translation: str


def drawn(seed: int, *, held_out: bool) -> Iterator[Phrase]:
    """Phrases without end, all of those that are held out or none."""
    random = np.random.default_rng(seed)
    while True:
        phrase = KINDS[random.choice(list(KINDS), p=SHARES)](random)
        if phrase.held_out is held_out:
            yield phrase


def pairs(
    phrases: Iterator[Phrase], random: np.random.Generator, languages: Sequence[str] = LANGUAGES
) -> Iterator[Pair]:
    """Of each phrase one way of writing it and one language."""
    for phrase in phrases:
        text, translations = phrase.written[random.integers(len(phrase.written))]
        language = languages[random.integers(len(languages))]
        yield Pair(text, language, translations[language])


def held_out_pairs(count: int, seed: int = 1, *, languages: Sequence[str] = LANGUAGES) -> list[Pair]:
    """Different texts of phrases that are never trained on."""
    found: dict[Pair, None] = {}
    drawn_pairs = pairs(drawn(seed, held_out=True), np.random.default_rng(seed), languages)
    while len(found) < count:
        found[next(drawn_pairs)] = None
    return list(found)


def cardinal(number: int) -> Phrase:
    """ "two thousand three hundred and four", "2,304", "2304"."""

    def write() -> Ways:
        words = _say(number, "en")
        ways = dict.fromkeys([words, words.replace(",", ""), words.replace(" and ", " "), f"{number:,}", str(number)])
        texts = {language: _say(number, language) for language in LANGUAGES}
        return tuple((way, texts) for way in ways)

    return Phrase("cardinal", str(number), write)


def ordinal(number: int) -> Phrase:
    """ "one hundred and first", "101st"."""

    def write() -> Ways:
        words = _say(number, "en", to="ordinal")
        ways = dict.fromkeys([words, words.replace(",", ""), _say(number, "en", to="ordinal_num")])
        texts = {language: _say(number, language, to="ordinal") for language in LANGUAGES}
        return tuple((way, texts) for way in ways)

    return Phrase("ordinal", str(number), write)


def year(number: int) -> Phrase:
    """ "in 1984", "nineteen eighty-four"."""

    def write() -> Ways:
        words = _say(number, "en", to="year")
        french, german = (_say(number, language, to="year") for language in LANGUAGES)
        inside = {"fr": f"en {french}", "de": f"im Jahr {german}"}
        bare = [(words, {"fr": french, "de": german})] if words != _say(number, "en") else []
        return ((f"in {number}", inside), (f"in {words}", inside), *bare)

    return Phrase("year", str(number), write)


def date(day: int, month: int, number: int) -> Phrase:
    """ "May 3rd, 1998", "the third of May 1998", "3 May 1998"; with "the" the translations have an article."""

    def write() -> Ways:
        short, words = (_say(day, "en", to=form) for form in ("ordinal_num", "ordinal"))
        name, french, german = (months.split()[month - 1] for months in _MONTHS.values())
        spoken, french_year, german_year = (_say(number, language, to="year") for language in ("en", *LANGUAGES))
        first = "premier" if day == 1 else _say(day, "fr")
        place = _say(day, "de", to="ordinal")
        bare = {"fr": f"{first} {french} {french_year}", "de": f"{place}r {german} {german_year}"}
        the = {"fr": f"le {bare['fr']}", "de": f"der {place} {german} {german_year}"}
        plain = (
            f"{name} {short}, {number}",
            f"{name} {day}, {number}",
            f"{day} {name} {number}",
            f"{name} {words}, {spoken}",
            f"{name} {short}, {spoken}",
        )
        with_the = (
            f"the {words} of {name} {number}",
            f"the {short} of {name} {number}",
            f"the {words} of {name} {spoken}",
        )
        return (*((way, bare) for way in plain), *((way, the) for way in with_the))

    return Phrase("date", f"{number:04}-{month:02}-{day:02}", write)


def money(cents: int, currency: str) -> Phrase:
    """ "$12.50", "twelve dollars, fifty cents", "twelve dollars and fifty cents"."""

    def write() -> Ways:
        whole, part = _say(cents / 100, "en", to="currency", currency=currency).rsplit(", ", 1)
        whole = whole.replace("euro", "euro" if cents < 200 else "euros")
        ways = (f"{_CURRENCIES[currency]}{cents / 100:,.2f}", f"{whole}, {part}", f"{whole} and {part}")
        texts = {language: _say(cents / 100, language, to="currency", currency=currency) for language in LANGUAGES}
        return tuple((way, texts) for way in ways)

    return Phrase("money", f"{currency} {cents}", write)


def _random_cardinal(random: np.random.Generator) -> Phrase:
    """As many of each length; one in two has zeros."""
    number = int(random.integers(10 ** random.integers(1, DIGITS + 1)))
    return cardinal(_with_zeros(number, random) if random.random() < 0.5 else number)


def _with_zeros(number: int, random: np.random.Generator) -> int:
    """Each digit behind the first becomes a zero or stays: people say 200,000 more often than 283,194."""
    digits = str(number)
    return int(digits[0] + "".join(random.choice(["0", digit]) for digit in digits[1:]))


def _random_ordinal(random: np.random.Generator) -> Phrase:
    """As many of each length; one in ten is a hundredth or a thousandth."""
    number = int(random.integers(1, ORDINALS)) // 10 ** int(random.integers(4)) + 1
    round_to = random.choice([1, 100, 1000], p=[0.9, 0.05, 0.05])
    return ordinal(min(-(-number // round_to) * round_to, ORDINALS - 1))


def _random_date(random: np.random.Generator) -> Phrase:
    number, month = _random_year(random), int(random.integers(1, 13))
    return date(int(random.integers(1, monthrange(number, month)[1] + 1)), month, number)


def _random_year(random: np.random.Generator) -> int:
    """Half of them of the last century and this one."""
    return int(random.integers(1900 if random.random() < 0.5 else YEARS[0], YEARS[1]))


def _random_money(random: np.random.Generator) -> Phrase:
    """From 1.01, and never without cents, since num2words says "zéro centimes"."""
    cents = int(random.integers(100, 10 ** random.integers(3, 8)))
    cents = _with_zeros(cents, random) if random.random() < 0.3 else cents
    return money(min(cents + (cents % 100 == 0), CENTS - 1), str(random.choice(list(_CURRENCIES))))


KINDS: Mapping[str, Callable[[np.random.Generator], Phrase]] = {
    "cardinal": _random_cardinal,
    "ordinal": _random_ordinal,
    "year": lambda random: year(_random_year(random)),
    "date": _random_date,
    "money": _random_money,
}


SHARES = (0.35, 0.1, 0.15, 0.2, 0.2)
"""Of the kinds among what is drawn."""


def _say(number: float, language: str, **form: str) -> str:
    return _WRONG.sub("", str(num2words()(number, lang=language, **form)))


@cache
def num2words() -> Any:
    """The function of that package. Raises RecipeError where it is not installed."""
    from export.errors import RecipeError
    from export.recipe.weight_files import INSTALL

    try:
        from num2words import num2words as say
    except ImportError:
        raise RecipeError(
            "the phrases of translator are written by the package num2words, which is not installed",
            remedy=INSTALL,
            field="package",
            expected="num2words",
        ) from None
    return say
