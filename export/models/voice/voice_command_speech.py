"""The held-out utterances that come with voice_command, one byte a sample (mu-law), and their rows as requests."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from export.models.voice import voice_command_network as network
from export.recipe.recipe import Array

WEIGHTS = Path(__file__).with_name("voice_command.safetensors")
UTTERANCES = Path(__file__).with_name("voice_command.npz")
LEAD_S, TRAIL_S = 0.3, 0.75
"""Quiet before an utterance and, at least, after it."""
QUIET = 8
"""Standard deviation of the noise that the quiet is made of: -72 dB of full scale."""
_MU = 255


@dataclass(frozen=True)
class Utterance:
    """What somebody said: INT16 [samples] at network.RATE from the first sound to the last, its class, its words, and
    who said it."""

    audio: Array
    label: str
    text: str
    voice: str


def write(spoken: Iterable[Utterance]) -> None:
    """Keep utterances as UTTERANCES."""
    said = list(spoken)
    coded = [mu_law(each.audio) for each in said]
    np.savez_compressed(
        UTTERANCES,
        audio=np.concatenate(coded),
        samples=np.array([len(each) for each in coded]),
        label=np.array([each.label for each in said]),
        text=np.array([each.text for each in said]),
        voice=np.array([each.voice for each in said]),
    )


def utterances() -> list[Utterance]:
    """What `write` kept."""
    with np.load(UTTERANCES) as file:
        parts = np.split(from_mu_law(file["audio"]), np.cumsum(file["samples"])[:-1])
        named = zip(parts, file["label"], file["text"], file["voice"], strict=True)
        return [Utterance(audio, str(label), str(text), str(voice)) for audio, label, text, voice in named]


def rows() -> tuple[Array, Array, Array]:
    """The held-out utterances: `audio` INT16 [rows, chunks, CHUNK], their classes INT64 [rows] as numbers of
    network.classes(), and the sample at which each one's last sound ends, INT64 [rows]."""
    said = utterances()
    requests, ends = in_quiet([each.audio for each in said])
    return requests, np.array([network.classes().index(each.label) for each in said]), ends


def in_quiet(said: Sequence[Array]) -> tuple[Array, Array]:
    """Each INT16 [samples] between two quiet parts, all of one length: INT16 [rows, chunks, CHUNK], and where the last
    sounds end, INT64 [rows]."""
    lead, trail = (int(seconds * network.RATE) for seconds in (LEAD_S, TRAIL_S))
    chunks = -(-(lead + max(map(len, said)) + trail) // network.CHUNK)
    audio = np.random.default_rng(0).normal(0, QUIET, (len(said), chunks * network.CHUNK))
    for row, each in zip(audio, said, strict=True):
        row[lead : lead + len(each)] += each
    whole = np.clip(np.round(audio), -32768, 32767).astype(np.int16)
    return whole.reshape(len(said), chunks, network.CHUNK), np.array([lead + len(each) for each in said])


def mu_law(audio: Array) -> Array:
    """INT16 as UINT8, fine where it is quiet and coarse where it is loud."""
    scaled = audio.astype(np.float64) / 32768
    curved = np.sign(scaled) * np.log1p(_MU * np.abs(scaled)) / np.log1p(_MU)
    return np.asarray(np.round((curved + 1) / 2 * _MU), np.uint8)


def from_mu_law(coded: Array) -> Array:
    """The inverse of `mu_law`, up to its rounding."""
    curved = coded.astype(np.float64) / _MU * 2 - 1
    scaled = np.sign(curved) * np.expm1(np.abs(curved) * np.log1p(_MU)) / _MU
    return np.asarray(np.round(scaled * 32767), np.int16)
