"""Malformed files: valid ones changed at random, by bytes and by the values that they write, the same for a seed."""

from __future__ import annotations

import random
import re
import resource
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

VALUES = (
    "-1",
    "0",
    "9" * 25,
    "1e999",
    "NaN",
    "null",
    "true",
    "[]",
    "{}",
    '""',
    '"../../etc/passwd"',
    '"/dev/zero"',
    '"a\\u0000b"',
    "[[[[[]]]]]",
    "[" * 3000,
    '{"a":' * 3000,
    "\x00",
    "\ufeff",
    "\N{RIGHT-TO-LEFT OVERRIDE}",
)
_VALUE = re.compile(rb'"[^"\n]*"|-?\d+(?:\.\d+)?|\w+')


def malformed(valid: Sequence[bytes], seed: int, count: int) -> Iterator[bytes]:
    """`count` files made from the valid ones."""
    chance = random.Random(seed)
    for _ in range(count):
        content = chance.choice(valid)
        for _ in range(chance.randint(1, 4)):
            content = chance.choice((_bytes, _value, _value, _span))(content, chance)
        yield content


def _bytes(content: bytes, chance: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(chance.randint(1, 8)):
        if changed:
            changed[chance.randrange(len(changed))] = chance.randrange(256)
    return bytes(changed)


def _value(content: bytes, chance: random.Random) -> bytes:
    """Another value in the place of one, or a copy of one from elsewhere in the file."""
    found = list(_VALUE.finditer(content))
    if not found:
        return _bytes(content, chance)
    place = chance.choice(found)
    other = chance.choice(VALUES).encode() if chance.random() < 0.7 else chance.choice(found)[0]
    return content[: place.start()] + other + content[place.end() :]


def _span(content: bytes, chance: random.Random) -> bytes:
    """A part left out, cut off or written twice."""
    begin, end = sorted(chance.randrange(len(content) + 1) for _ in range(2))
    part = content[begin:end]
    return chance.choice((content[:begin] + content[end:], content[:begin], content[:end] + part + content[end:]))


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Raise TimeoutError within the block once it takes longer."""

    def late(number: int, frame: object) -> None:
        raise TimeoutError(f"longer than {seconds:g} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def peak_bytes() -> int:
    """The most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
