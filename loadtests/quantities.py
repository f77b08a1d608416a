"""Times and shares as people write them: `90`, `90s`, `3m`, `80ms`; `3%`, `0.03`."""

from __future__ import annotations

import re
from decimal import Decimal

_SECONDS = {"us": Decimal("1e-6"), "ms": Decimal("1e-3"), "s": Decimal(1), "m": Decimal(60), "h": Decimal(3600)}
NUMBER = r"\d+(?:\.\d+)?"
UNIT = "|".join(_SECONDS)
TIME = rf"{NUMBER}(?:{UNIT})?"
_TIME = re.compile(rf"({NUMBER})\s*({UNIT})?")
_SHARE = re.compile(rf"({NUMBER})\s*(%)?")


def seconds(text: str) -> float:
    """`90`, `90s`, `3m`, `80ms`, `1.5h` or `800us` in seconds. ValueError for anything else."""
    return float(_seconds(text))


def milliseconds(text: str) -> float:
    """The same time in milliseconds."""
    return float(_seconds(text) * 1000)


def share(text: str) -> float:
    """`3%` or `0.03` as a part of one, between 0 and 1. ValueError for anything else."""
    found = _SHARE.fullmatch(text.strip())
    if not found:
        raise ValueError(f"'{text}' is not a share: write 3% or 0.03")
    value = Decimal(found[1]) / (100 if found[2] else 1)
    if value > 1:
        raise ValueError(f"'{text}' is more than 100%: write {found[1]}% or {value / 100:f}")
    return float(value)


def _seconds(text: str) -> Decimal:
    found = _TIME.fullmatch(text.strip())
    if not found:
        raise ValueError(f"'{text}' is not a time: write 90, 90s, 3m or 80ms")
    return Decimal(found[1]) * _SECONDS[found[2] or "s"]
