"""The differences between two runs of a model: machine, generator, requests. A rate depends on all of them."""

from __future__ import annotations

import re
from collections.abc import Container
from dataclasses import dataclass
from typing import Literal

from loadtests.results.store import Run
from loadtests.slo import format_ms
from loadtests.target.hardware import MACHINE
from loadtests.workload.arrivals import POISSON

_LOOPBACK = re.compile(r"(dns:(///)?|ipv[46]:)?(localhost|127\.[\d.]+|\[::1\])(:\d+)?|unix:.*")
_DIGESTS = ("payloads_sha256", "model_config_sha256")
_PORT = re.compile(r":\d+(?=,|$)")
Kind = Literal["model", "requests", "surroundings"]
_KINDS: dict[str, Kind] = {
    "model configuration": "model",
    "payloads": "requests",
    "weights": "requests",
    "interval of sequences": "requests",
    "arrivals": "requests",
}


@dataclass(frozen=True)
class Difference:
    """One thing that a rate depends on, as each of the two runs had it."""

    what: str
    first: str
    second: str

    @property
    def kind(self) -> Kind:
        """What differs: the model, the requests, or the machine and generator."""
        return _KINDS.get(self.what, "surroundings")


def differences(first: Run, second: Run) -> list[Difference]:
    """Empty where both are alike as far as they tell: what an earlier version did not record is taken as alike."""
    unknown = {key for key in _DIGESTS for run in (first, second) if not run.settings.get(key)}
    one, other = _described(first, unknown), _described(second, unknown)
    return [Difference(what, one[what], other[what]) for what in one if one[what] != other[what]]


def _described(run: Run, unknown: Container[str]) -> dict[str, str]:
    settings = run.settings
    payloads_key, config_key = ("" if key in unknown else f"SHA-256 {settings[key][:8]}" for key in _DIGESTS)
    payloads = f"{settings.get('payloads')} of {settings.get('payload_bytes_mean') or 0:.0f} bytes on average"
    payloads += f" ({', '.join(filter(None, (_text(settings.get('payload_source')), payloads_key)))})"
    weights: dict[str, float] = settings.get("mix") or {}
    sequences: dict[str, dict[str, float]] = settings.get("sequences") or {}
    intervals = [f"{model} {format_ms(each['interval_s'] * 1e3)}" for model, each in sequences.items()]
    return {
        "server": "this machine" if _LOOPBACK.fullmatch(run.server) else _PORT.sub("", run.server),
        **{key: _text(run.hardware.get(key)) for key in MACHINE},
        "server version": _text(settings.get("server_name")),
        "model configuration": config_key,
        "TLS": _text(settings.get("tls", False)),
        "generators": f"{settings.get('workers', 1)}{' of Locust' if settings.get('locust_master') else ''}",
        "connections of each generator": _text(settings.get("channels", 2)),
        "real-time priority": _text(settings.get("real_time", True)),
        "payloads": payloads,
        "weights": ", ".join(f"{model}={weight:.4g}" for model, weight in weights.items()),
        "interval of sequences": _text(intervals),
        "arrivals": " ".join([settings.get("arrivals", POISSON.name), settings.get("arrivals_sha256", "")[:8]]).strip(),
    }


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value)) or "none"
    return "none" if value is None else str(value)
