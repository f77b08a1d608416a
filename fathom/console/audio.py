"""Sound files as the chunks that a streaming model takes one after another."""

from __future__ import annotations

import io
import wave
from pathlib import Path
from typing import Any

import numpy as np

from clients import TensorSpec
from fathom.console.arguments import UsageError

RATE = 16_000
BARE = frozenset({".raw", ".pcm"})
"""Suffixes of files that hold 16-bit samples without a header."""
SUFFIXES = BARE | {".wav", ".mp3", ".flac", ".ogg", ".opus", ".m4a", ".aac", ".wma", ".aif", ".aiff"}
"""Of sound, whether or not it can be read: what is not WAV is refused with the command that converts it."""


def as_chunks(tensor: TensorSpec, data: bytes, path: Path) -> np.ndarray[Any, Any]:
    """The samples as INT16 [chunks, samples of the tensor], the last chunk filled up with silence.

    Raises UsageError for what is no 16-bit sound of one channel at 16 kHz, and where the tensor takes no such thing.
    """
    if tensor.datatype != "INT16" or len(tensor.dims) != 1 or tensor.dims[0] < 1:
        raise UsageError(
            f"input '{tensor.name}' takes {tensor.datatype} {list(tensor.dims)}, and '{path}' is sound, which becomes "
            "INT16 [samples]: prepare it and give a .npy file"
        )
    where = f"input '{tensor.name}': '{path}'"
    data = data if path.suffix.lower() in BARE else _samples_of_wav(data, where, path)
    if not data:
        raise UsageError(f"{where} has no samples: record some")
    if len(data) % 2:
        raise UsageError(f"{where} has {len(data)} bytes, an odd number: a sample is 16 bits, so it was cut or has 8")
    samples, size = np.frombuffer(data, "<i2").astype(np.int16), tensor.dims[0]
    return np.pad(samples, (0, -len(samples) % size)).reshape(-1, size)


def _samples_of_wav(data: bytes, where: str, path: Path) -> bytes:
    convert = f"`ffmpeg -i {path.name} -ar {RATE} -ac 1 -c:a pcm_s16le converted.wav` converts it"
    try:
        with wave.open(io.BytesIO(data)) as file:
            rate, channels, width = file.getframerate(), file.getnchannels(), file.getsampwidth()
            samples: bytes = file.readframes(file.getnframes())
    except (wave.Error, EOFError) as error:
        raise UsageError(
            f"{where} is no WAV file of plain samples ({str(error) or 'it ends too early'}): {convert}"
        ) from error
    if (rate, channels, width) != (RATE, 1, 2):
        found = f"{rate} Hz, {channels} channel{'s' * (channels != 1)}, {8 * width} bits"
        raise UsageError(f"{where} has {found}: {RATE} Hz, 1 channel and 16 bits are needed; {convert}")
    return samples[: len(samples) // 2 * 2]
