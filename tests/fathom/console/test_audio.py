"""Sound files as chunks: what is read, and what is refused with a sentence."""

import io
import wave
from pathlib import Path

import numpy as np
import pytest

from clients import ModelSpec, TensorSpec
from fathom.console.arguments import UsageError
from fathom.console.inputs import parse

CHUNKED = TensorSpec("audio", "INT16", (1280,))
SOUND = (np.arange(3000) % 200 * 100 - 10_000).astype(np.int16)


def wav(samples=SOUND, *, rate=16_000, channels=1, width=2):
    file = io.BytesIO()
    with wave.open(file, "wb") as written:
        written.setparams((channels, width, rate, 0, "NONE", ""))
        written.writeframes(samples.tobytes())
    return file.getvalue()


def chunks(folder: Path, name: str, data: bytes, tensor=CHUNKED):
    (folder / name).write_bytes(data)
    spec = ModelSpec("voice", "1", 32, {"audio": tensor}, {}, sequence=True)
    return parse(spec, [f"audio=@{folder / name}"])["audio"]


@pytest.mark.parametrize("name", ["word.wav", "word.raw", "WORD.PCM"])
def test_a_sound_is_cut_into_chunks_and_ends_in_silence(tmp_path, name):
    cut = chunks(tmp_path, name, wav() if name == "word.wav" else SOUND.tobytes())
    assert cut.shape == (3, 1280)
    assert cut.dtype == np.int16
    assert cut.ravel()[:3000].tolist() == SOUND.tolist()
    assert not cut.ravel()[3000:].any()


REFUSED = {
    "another rate": ("word.wav", wav(rate=44_100)),
    "two channels": ("word.wav", wav(channels=2)),
    "8 bits": ("word.wav", wav(SOUND.astype(np.int8), width=1)),
    "no samples in a WAV file": ("word.wav", wav(SOUND[:0])),
    "no bytes": ("word.raw", b""),
    "no bytes where a WAV file is expected": ("word.wav", b""),
    "an odd number of bytes": ("word.raw", SOUND.tobytes()[:-1]),
    "something else, named .wav": ("word.wav", b"ID3 this is an MP3 file, and not a short one at that"),
    "a compressed file": ("word.mp3", b"ID3\x03" + bytes(range(256))),
    "a compressed file of another kind": ("WORD.FLAC", b"fLaC" + bytes(range(256))),
    "a header that is cut off": ("word.wav", wav()[:30]),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_no_such_sound_is_refused(tmp_path, what):
    name, data = REFUSED[what]
    with pytest.raises(UsageError) as refused:
        chunks(tmp_path, name, data)
    assert str(tmp_path / name) in str(refused.value)
    assert "()" not in str(refused.value)


@pytest.mark.parametrize("tensor", [TensorSpec("audio", "FP32", (1280,)), TensorSpec("audio", "INT16", (-1,))])
def test_a_model_of_other_tensors_takes_no_sound_file(tmp_path, tensor):
    with pytest.raises(UsageError):
        chunks(tmp_path, "word.wav", wav(), tensor)
