import contextlib
import math
from dataclasses import replace

import pytest

from loadtests.errors import BadRequestError
from loadtests.slo import (
    Slo,
    about,
    about_ms,
    as_requested,
    check_limited,
    check_measures,
    describe_slos,
    loosest_limit_ms,
    tightest_limit_ms,
)


@pytest.mark.parametrize(
    ("text", "share", "limit_ms", "shown"),
    [
        ("p99=50ms", 0.01, 50.0, "p99=50ms"),
        ("p99.9=800us", 0.001, 0.8, "p99.9=800us"),
        ("p50=1.5s", 0.5, 1500.0, "p50=1.5s"),
        (" p90 = 2.5 ms ", 0.1, 2.5, "p90=2.5ms"),
        ("p99=2m", 0.01, 120_000.0, "p99=120s"),
        ("errors=0.1%", 0.001, None, "errors=0.1%"),
        ("errors=0.001", 0.001, None, "errors=0.1%"),
        ("ttft:p99=1s", 0.01, 1000.0, "ttft:p99=1s"),
        ("writer:itl:p50 = 20 ms", 0.5, 20.0, "writer:itl:p50=20ms"),
        ("latency:p99=3s", 0.01, 3000.0, "p99=3s"),
    ],
)
def test_parses_what_people_write_and_writes_it_back(text, share, limit_ms, shown):
    slo = Slo.parse(text)
    assert slo.allowed_share == pytest.approx(share)
    assert slo.limit_ms == limit_ms
    assert str(slo) == shown
    assert Slo.parse(str(slo)) == slo


@pytest.mark.parametrize(
    "text", ["", "p99", "p99=50", "p99=50 minutes", "99=50ms", "p100=5ms", "p0=5ms", "p99=0ms", "p99=-5ms",
             "p99.9999999999999=5ms",
             "TTFT p99=1s", "ttft=1s", "a:b:p99=1s", "itl:itl:itl:p99=1s", "errors=1",
             "errors=0%", "errors=100%", "errors=5", "p99<50ms"]
)  # fmt: skip
def test_quotes_what_it_does_not_understand_and_shows_the_form(text):
    with pytest.raises(BadRequestError) as error:
        Slo.parse(text)
    assert repr(text) in str(error.value)
    assert error.value.field == "slos"
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "model", "measure"),
    [
        ("gap:p99=500ms", "", "gap"),
        ("gap:gap:p99=500ms", "gap", "gap"),
        ("gap:latency:p99=500ms", "gap", ""),
        ("latency:latency:p99=500ms", "latency", ""),
        ("gap:errors=1%", "gap", ""),
    ],
)
def test_a_model_that_is_called_like_a_measure_can_be_named(text, model, measure):
    slo = Slo.parse(text)
    assert (slo.model, slo.measure) == (model, measure)
    assert str(slo) == text


def test_limits_of_several():
    """The times between tokens are no times of a request."""
    slos = [Slo.parse(text) for text in ("p99=50ms", "ttft:p50=10ms", "errors=0.1%", "itl:p99=5ms", "gap:p99=1s")]
    assert (tightest_limit_ms(slos), loosest_limit_ms(slos)) == (10.0, 50.0)
    assert (tightest_limit_ms(slos[2:]), loosest_limit_ms(slos[2:])) == (math.inf, 0.0)
    check_limited(slos[2:])
    with pytest.raises(BadRequestError) as refused:
        check_limited(slos[2:3])
    assert refused.value.field == "slos"


@pytest.mark.parametrize(
    ("slo", "models", "lacks"),
    [
        ("ttft:p99=1s", ["writer"], ""),
        ("p99=1s", ["writer", "echo", "listener"], ""),
        ("ttft:p99=1s", ["echo"], "echo"),
        ("ttft:p99=1s", ["writer", "echo"], "echo"),
        ("writer:ttft:p99=1s", ["writer", "echo"], ""),
        ("echo:ttft:p99=1s", ["writer", "echo"], "echo"),
        ("gap:p99=1s", ["writer", "listener"], ""),
        ("gap:p99=1s", ["listener", "echo"], "echo"),
        ("itl:p99=1s", ["listener"], "listener"),
    ],
)
def test_an_slo_is_about_what_the_answers_of_a_model_have(slo, models, lacks):
    """The writer streams, and the listener keeps state."""
    measures = {"writer": ("", "ttft", "itl", "gap"), "listener": ("", "gap"), "echo": ("",)}
    with pytest.raises(BadRequestError) if lacks else contextlib.nullcontext() as refused:
        check_measures([Slo.parse(slo)], {model: measures[model] for model in models})
    assert not lacks or (lacks in str(refused.value) and refused.value.field == "slos")


def test_an_slo_of_a_mix_is_said_once():
    whole, named = Slo.parse("p99=50ms"), Slo.parse("echo:p50=5ms")
    copies = [Slo.parse(f"{model}:p99=50ms") for model in ("double", "echo")]
    assert as_requested([whole, named, *copies]) == [whole, named]
    assert describe_slos([whole, *copies]) == "p99=50ms together and for each model"
    other, *others = [replace(slo, allowed_share=0.5) for slo in (whole, *copies)]
    assert describe_slos([whole, other, *copies, *others]) == "p99=50ms, p50=50ms (together and for each model)"
    assert describe_slos([whole, named, *copies]) == "p99=50ms together and for each model, echo:p50=5ms"
    assert describe_slos([named]) == "echo:p50=5ms"


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.0, "0"), (0.00012, "0.0001"), (0.0325, "0.0325"), (12.345, "12.3"), (999.4, "999"), (999.6, "1,000"),
     (5809.3, "5,809"), (1_234_567.0, "1,234,567")],
)  # fmt: skip
def test_a_measured_value_is_never_shown_in_powers_of_ten(value, shown):
    assert about(value) == shown


@pytest.mark.parametrize(("ms", "shown"), [(0.8, "0.8 ms"), (999.4, "999 ms"), (999.6, "1 s"), (12_345.0, "12.3 s")])
def test_a_measured_duration_is_shown_in_its_unit(ms, shown):
    assert about_ms(ms) == shown
