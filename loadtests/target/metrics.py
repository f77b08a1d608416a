"""The load of the server's machine during a probe: Triton's Prometheus endpoint, read before, during and after."""

from __future__ import annotations

import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence

from clients.background import in_thread
from loadtests.errors import TargetError
from loadtests.records.point import ServerLoad
from loadtests.records.streaming import GenerationLoad

_EVERY_S = 0.5
_MIB = 1 << 20
_MOST_BYTES = 1 << 24
_GENERATION = "fathom_generation"
"""How the metrics of a model begin that generates text in slots."""
_LARGEST = 1e18
"""Of a metric: what is larger, or no number, is left out, since sums of it are none."""

Sample = dict[str, list[tuple[Mapping[str, str], float]]]
"""For each metric, its labels and its value."""


def parse(text: str) -> Sample:
    """Prometheus' text format. Raises ValueError for another one."""
    from prometheus_client.parser import text_string_to_metric_families

    sample: Sample = {}
    for family in text_string_to_metric_families(text):
        for metric in family.samples:
            # The parser gives every counter OpenMetrics' suffix, also where the server has none, as Triton.
            name = metric.name.removesuffix("_total") if family.type == "counter" else metric.name
            if abs(metric.value) < _LARGEST:
                sample.setdefault(name, []).append((metric.labels, metric.value))
    return sample


def summarise(samples: Sequence[Sample], seconds: float) -> ServerLoad | None:
    """In the order they were taken, the first before and the last after the probe, so many seconds apart; None without
    any."""
    if not samples:
        return None
    window = _Window(samples)
    memory, gpu_memory = window.highest("nv_cpu_memory_used_bytes"), window.highest("nv_gpu_memory_used_bytes")
    rejected = window.grown("nv_inference_request_failure", reason="REJECTED")
    return ServerLoad(
        cpu_share=window.mean("nv_cpu_utilization", add=False),
        memory_mib=None if memory is None else memory / _MIB,
        gpu_share=window.mean("nv_gpu_utilization", add=False),
        gpu_memory_mib=None if gpu_memory is None else gpu_memory / _MIB,
        gpu_power_w=window.mean("nv_gpu_power_usage"),
        rejected=None if rejected is None else round(rejected),
        generation=_generation(window, seconds),
    )


def _generation(window: _Window, seconds: float) -> GenerationLoad | None:
    """None where the server generates no text, or does not say so as `recipe_writer` does."""
    slots = window.mean(f"{_GENERATION}_slots_in_use")
    steps, rows, tokens, cancelled = (
        window.grown(f"{_GENERATION}_{name}") for name in ("steps", "step_rows", "tokens", "cancelled")
    )
    if slots is None and tokens is None:
        return None
    return GenerationLoad(
        slots_mean=slots,
        slots_max=window.highest(f"{_GENERATION}_slots_in_use"),
        waiting_max=window.highest(f"{_GENERATION}_waiting"),
        batch_per_step=rows / steps if rows is not None and steps else None,
        tokens_per_s=tokens / seconds if tokens is not None and seconds > 0 else None,
        cancelled=None if cancelled is None else round(cancelled),
    )


class _Window:
    """The readings of a probe. Values of several devices or models are added up, or their mean is meant."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        self._samples = samples

    def mean(self, name: str, *, add: bool = True) -> float | None:
        values = self._over_time(name, add=add)
        values = values[1:] or values  # the first was before the load
        return sum(values) / len(values) if values else None

    def highest(self, name: str) -> float | None:
        return max(self._over_time(name), default=None)

    def grown(self, counter: str, **labels: str) -> float | None:
        """From the first reading to the last. A metric that came later began at 0."""
        before, after = (_total(sample, counter, labels) for sample in (self._samples[0], self._samples[-1]))
        return None if after is None else after - (before or 0.0)

    def _over_time(self, name: str, *, add: bool = True) -> list[float]:
        read = [[value for _, value in sample[name]] for sample in self._samples if name in sample]
        return [sum(values) if add else sum(values) / len(values) for values in read]


def _total(sample: Sample, name: str, labels: Mapping[str, str]) -> float | None:
    if (found := sample.get(name)) is None:
        return None
    return sum(value for own, value in found if labels.items() <= own.items())


class MetricsMeter:
    """Reads an endpoint twice a second between `start` and `stop`, in a thread of its own.

    An endpoint that has never answered is not asked again; with `required`, `start` then raises TargetError.
    """

    def __init__(self, url: str | None, *, required: bool = False, timeout_s: float = 1.0) -> None:
        from clients.addresses import is_loopback

        self._url = url
        own = url is not None and is_loopback(urllib.parse.urlsplit(url).netloc)
        # By default urllib sends even localhost through http_proxy.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({} if own else None))
        self._required = required
        self._timeout_s = timeout_s
        self._samples: list[Sample] = []
        self._read_s: list[float] = []
        self._has_answered = False
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Take the first reading."""
        self._samples.clear()
        self._read_s.clear()
        self._stopped.clear()
        self._read()
        if self._url is not None:
            self._thread = threading.Thread(target=self._watch, name="metrics", daemon=True)
            self._thread.start()

    def stop(self) -> ServerLoad | None:
        """Take the last one."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
            self._read()
        return summarise(self._samples, self._read_s[-1] - self._read_s[0] if self._read_s else 0.0)

    def _watch(self) -> None:
        while not self._stopped.wait(_EVERY_S):
            self._read()

    def _read(self) -> None:
        if self._url is None:
            return
        try:
            # A server may send a byte now and then, without an end.
            self._samples.append(in_thread("metrics", self._fetch).result(2 * self._timeout_s))
            self._read_s.append(time.monotonic())
            self._has_answered = True
        except (OSError, ValueError, urllib.error.URLError) as error:
            if self._has_answered:
                return  # a reading that is late, beside a server that freezes for a second, is left out
            url, self._url = self._url, None
            if self._required:
                raise TargetError(
                    f"no metrics at {url}: {_why(error)}; give the address of the Prometheus endpoint",
                    server=url,
                ) from None

    def _fetch(self) -> Sample:
        assert self._url is not None
        with self._opener.open(self._url, timeout=self._timeout_s) as answer:
            text = answer.read(_MOST_BYTES + 1)
        if len(text) > _MOST_BYTES:
            raise ValueError(f"they have more than {_MOST_BYTES:,} bytes")
        return parse(text.decode())


def default_url(server: str) -> str | None:
    """Where Triton has its metrics unless it was configured otherwise; None for another port than Triton's own, where
    something else may answer, and for addresses that are no host and port."""
    host, _, port = server.rpartition(":")
    plain = ":" not in host or host.startswith("[")
    return f"http://{host}:8002/metrics" if port == "8001" and plain else None


def _why(error: Exception) -> str:
    """The operating system's words where it is about a connection."""
    reason = getattr(error, "reason", error)
    return str(getattr(reason, "strerror", None) or reason)
