"""A service level objective: a percentile of the latency with its limit, or a bound on the share of failed requests.

The limit is on the latency of the whole answer or, of an answer that comes in parts, on one of three measures: the time
to first token, the inter-token latency, or the longest gap between two parts.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from loadtests.errors import BadRequestError
from loadtests.quantities import NUMBER, UNIT, milliseconds, share

Measure = Literal["", "ttft", "itl", "gap"]
"""What is limited: the latency of a whole answer, or of a stream the time to its first token, the inter-token latency,
or the longest time between two tokens. Of a sequence it is the latency of its last request, or of its slowest (gap)."""

_WORDS: dict[str, Measure] = {"ttft": "ttft", "itl": "itl", "gap": "gap", "latency": ""}
"""What people write before the percentile. `latency` is only needed behind a model with one of these names."""
_FORM = (
    "write p99=50ms (any percentile; the limit in us, ms, s or m), errors=0.1%, for streamed answers ttft:p99=1s, "
    "itl:p99=150ms or gap:p99=500ms, or for the slowest request of each sequence gap:p99=100ms; MODEL: in front limits "
    "one model of a mix"
)
_MODEL = r"(?:(?P<model>[^:=\s]+):)?"
_LATENCY = re.compile(
    _MODEL + rf"(?:(?P<measure>{'|'.join(_WORDS)}):)?"
    rf"p(?P<percent>\d{{1,2}}(?:\.\d+)?)\s*=\s*(?P<limit>{NUMBER}\s*(?:{UNIT}))"
)
_ERRORS = re.compile(_MODEL + rf"errors\s*=\s*(?P<share>{NUMBER}\s*%?)")


@dataclass(frozen=True)
class Slo:
    """At most `allowed_share` of the requests may be slower than `limit_ms`; without a limit, may fail.

    A failed or unanswered request also counts as slower than any limit. One request is one sample, also where its
    answer comes in many parts: these depend on one another.
    """

    allowed_share: float
    limit_ms: float | None
    model: str = ""
    """The model of a mix whose requests are meant; empty for all."""
    measure: Measure = ""

    @classmethod
    def parse(cls, text: str) -> Slo:
        """`p99=50ms`, `p99.9=800us`, `p50=1.5s`, `ttft:p99=1s` or `errors=0.1%`; `name:p99=50ms` for one of a mix.

        A latency needs its unit, which is more often milliseconds than the seconds of other times.
        `ttft:p99=1s` is about the time to first token. The whole answer of a model that is called `ttft` is
        `ttft:latency:p99=1s`. Raises BadRequestError quoting anything else.
        """
        if latency := _LATENCY.fullmatch(text.strip()):
            percent = float(latency["percent"])
            limit_ms = milliseconds(latency["limit"])
            allowed_share = round(1 - percent / 100, 12)
            if not 0 < allowed_share < 1 or limit_ms <= 0:
                raise BadRequestError(
                    f"SLO {text!r} must have a percentile between 0 and 100 and a limit above zero: {_FORM}",
                    field="slos",
                )
            model, word = latency["model"] or "", latency["measure"]
            if word is None and model in _WORDS:
                model, word = "", model
            return cls(allowed_share, limit_ms, model, _WORDS[word or "latency"])
        if errors := _ERRORS.fullmatch(text.strip()):
            try:
                allowed = share(errors["share"])
            except ValueError:
                allowed = 1.0
            if not 0 < allowed < 1:
                raise BadRequestError(
                    f"SLO {text!r} must allow more than 0 % and less than 100 %: {_FORM}", field="slos"
                )
            return cls(allowed, None, errors["model"] or "")
        raise BadRequestError(f"SLO {text!r} is not understood: {_FORM}", field="slos")

    @property
    def percentile(self) -> float:
        """0.99 for a p99."""
        return round(1 - self.allowed_share, 12)

    @property
    def metric(self) -> str:
        """`p99`, `p99.9`, `ttft p99` or `errors`, for one model of a mix with its name."""
        if self.limit_ms is None:
            return f"{self.model} errors".strip()
        measure = self.measure or ("latency" if self.model in _WORDS else "")
        return " ".join(filter(None, (self.model, measure, f"p{self.percentile * 100:.10g}")))

    @property
    def late(self) -> str:
        """What a request did that breaks it: `over 50ms`, `with ttft over 1s` or `failed`."""
        if self.limit_ms is None:
            return "failed"
        return f"{f'with {self.measure} ' if self.measure else ''}over {format_ms(self.limit_ms)}"

    @property
    def request_limit_ms(self) -> float:
        """The limit, where it is on a time that begins with the request: it is then known whether a request is late.
        0 for the times between the parts of an answer, and without a limit."""
        return self.limit_ms or 0.0 if self.measure in ("", "ttft") else 0.0

    def __str__(self) -> str:
        bound = f"{self.allowed_share * 100:.10g}%" if self.limit_ms is None else format_ms(self.limit_ms)
        return self.metric.replace(" ", ":") + f"={bound}"


def as_requested(slos: Sequence[Slo]) -> list[Slo]:
    """The SLOs that a person gave: one for all of a mix was copied for each of its models."""
    return [slo for slo in slos if not slo.model or replace(slo, model="") not in slos]


def describe_slos(slos: Sequence[Slo]) -> str:
    """`p99=50ms, errors=0.1%`, and for a mix which of them each model must keep as well."""
    each = {replace(slo, model="") for slo in slos if slo.model}
    if len(each) > 1 and each.issuperset(as_requested(slos)):
        return f"{', '.join(map(str, as_requested(slos)))} (together and for each model)"
    return ", ".join(f"{slo}{' together and for each model' if slo in each else ''}" for slo in as_requested(slos))


def format_ms(duration_ms: float) -> str:
    """A duration in the unit a person would choose: `800us`, `50ms`, `1.5s`."""
    if duration_ms < 1:
        return f"{duration_ms * 1e3:.10g}us"
    return f"{duration_ms / 1e3:.10g}s" if duration_ms >= 1e3 else f"{duration_ms:.10g}ms"


def about(value: float, digits: int = 3) -> str:
    """A measured value with so many significant digits, never in powers of ten: `0.0325`, `1,234`."""
    if abs(value) >= 10**digits - 0.5:
        return f"{value:,.0f}"
    return f"{value:.{digits}g}" if abs(value) >= 0.001 or value == 0 else f"{value:.4f}"


def about_ms(duration_ms: float) -> str:
    """A measured duration, to three digits: `32.5 ms`, `4.9 s`."""
    seconds = duration_ms >= 999.5
    return f"{duration_ms / 1e3:.3g} s" if seconds else f"{duration_ms:.3g} ms"


def format_s(duration_s: float) -> str:
    """About how long something takes, as `--budget` takes it: `5s`, `0.25s`, `53m`, `2.5h`."""
    if duration_s < 180:
        return f"{duration_s:.2g}s" if duration_s < 10 else f"{duration_s:.0f}s"
    return f"{duration_s / 60:.0f}m" if duration_s < 180 * 60 else f"{duration_s / 3600:.1f}h"


def format_rate(rate_per_s: float) -> str:
    """A rate for a person: `963.4/s`, `12,345/s`; four digits at least, never a power of ten."""
    whole = rate_per_s >= 1000
    return f"{rate_per_s:,.0f}/s" if whole else f"{rate_per_s:.4g}/s"


def check_limited(slos: Sequence[Slo]) -> None:
    """BadRequestError when no SLO limits a time: then no rate would be too high."""
    if all(slo.limit_ms is None for slo in slos):
        raise BadRequestError(
            f"{', '.join(map(str, slos))} limits no latency: add an SLO that does; {_FORM}", field="slos"
        )


def check_measures(slos: Sequence[Slo], measures: Mapping[str, Collection[Measure]]) -> None:
    """BadRequestError when an SLO is about what a model's answers do not have. `measures` are those of each model."""
    for slo in slos:
        lacking = [model for model, own in measures.items() if slo.model in ("", model) and slo.measure not in own]
        if lacking:
            instead = f"p{slo.percentile * 100:.10g}=1s"
            named = f", or name the model that has it, as in MODEL:{slo}" if len(measures) > 1 and not slo.model else ""
            what = "streamed answers" + (" or sequences of requests" if slo.measure == "gap" else "")
            raise BadRequestError(
                f"{slo} needs {what}, and {lacking[0]} has none: limit the latency of the whole answer, as in "
                f"{instead}{named}",
                field="slos",
            )


def tightest_limit_ms(slos: Sequence[Slo]) -> float:
    """The smallest limit on a time that begins with a request; infinite without one."""
    return min((slo.request_limit_ms for slo in slos if slo.request_limit_ms), default=math.inf)


def loosest_limit_ms(slos: Sequence[Slo]) -> float:
    """The largest limit on a time that begins with a request; 0 without one."""
    return max((slo.request_limit_ms for slo in slos), default=0.0)
