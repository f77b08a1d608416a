"""Results of somebody else: every text in them is shown as text, on the pages, in the pictures and in what is saved."""

from __future__ import annotations

import csv
import dataclasses
import functools
import json
import shlex
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from browser import Browser
from simulated import run_search

from loadtests import report
from loadtests.records.batching import Batching
from loadtests.records.point import GeneratorStats, ModelPoint, Point, StepPoint
from loadtests.report import comparison_page
from loadtests.results.store import Run, Store, Stored
from loadtests.slo import Slo

SLO = Slo.parse("p99=20ms")
HOSTILE = (
    """</title></style></svg><script>document.title="ran"</script><img src=x onerror='document.title="ran"'>"""
    """" onload="document.title='ran'" $\\frac$ a\\d \\1 {{ 7 * 7 }} #010101 <!-- \x00\x1b]0;x\x07\x9b31m\u202e"""
)

searched = functools.cache(functools.partial(run_search, SLO, 0.001, budget_s=5, seed=1))


class _Structure(HTMLParser):
    """A page without its texts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, list[str]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, sorted(name for name, _ in attributes)))


def results(folder: Path, text: str) -> Path:
    """A measurement in which everything that may be any text is `text`."""

    def spoil(point: Point) -> Point:
        times = dict.fromkeys(("queue_ms", "compute_input_ms", "compute_infer_ms", "compute_output_ms"), 9.0)
        step = StepPoint(text, **times, compute_ms=1.0, mean_batch=1.0, executions=1, requests=1, failed=0,
                         batch_sizes={})  # fmt: skip
        return dataclasses.replace(
            point, raw="", reason=f"{text}; {text}", error_messages={text: 1}, steps=(step,),
            workers=(GeneratorStats(text, 1, 0, 0, 0, 0, 0),), generator_priority=text,
            models=(ModelPoint(text, 1, 0, 1.0, 1.0, "pass"),),
        )  # fmt: skip

    settings: dict[str, Any] = {
        "unloaded_ms": 1.0, "server_name": text, "payload_source": text, "headers": [text], text: text,
        "mix": {text: 0.5, f"{text}2": 0.5},
        "batching": {text: Batching(text, 8, "dynamic", 2, False, open_inputs=(text,)).to_json()},
    }  # fmt: skip
    hardware = {"cpu": text, "cores": text, "gpus": [text], text: text}
    run = Run("name", text, (SLO,), 0, settings, {text: text}, hardware, "2026-11-30T11:00:00")
    store = Store(folder, run)
    for point in searched():
        store.add(spoil(point))
    (store.folder / "run.json").write_text(json.dumps(dataclasses.replace(run, model=text, started_at=text).to_json()))
    return folder


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    """Report and comparison, of harmless texts and of hostile ones."""
    made = {}
    for kind, text in (("harmless", "name"), ("hostile", HOSTILE)):
        base = tmp_path_factory.mktemp(kind)
        folders = [results(base / name, text) for name in ("before", "after $\\frac$ <b>")]
        comparison_page.write(folders, base / "comparison.html")
        made[kind] = [report.write(folders[0]), base / "comparison.html"]
    return made


def test_no_text_is_markup(pages: dict[str, list[Path]]) -> None:
    for harmless, hostile in zip(pages["harmless"], pages["hostile"], strict=True):
        text = hostile.read_text(encoding="utf-8")
        assert _Structure(text).found == _Structure(harmless.read_text(encoding="utf-8")).found
        assert "&lt;script&gt;" in text
        assert not set(text) & set("\x00\x07\x1b\x9b\u202e")


def test_pages_allow_no_script_and_nothing_from_elsewhere(pages: dict[str, list[Path]]) -> None:
    for page in pages["hostile"]:
        policy = page.read_text(encoding="utf-8").partition('http-equiv="Content-Security-Policy" content="')[2]
        assert policy.startswith("default-src &#39;none&#39;;")
        assert "script" not in policy.partition('"')[0]


def test_what_is_saved_from_the_page_is_whole(pages: dict[str, list[Path]]) -> None:
    (folder,) = {path.parent for path in pages["hostile"][0].parent.rglob("latency.svg")}
    title = ElementTree.parse(folder / "latency.svg").find("{http://www.w3.org/2000/svg}title")
    assert title is not None
    assert title.text is not None
    assert title.text.startswith("</title></style></svg><script>")
    rows = csv.DictReader((folder / "points.csv").read_text().splitlines())
    assert [row["phase"] for row in rows]


def test_a_command_to_paste_is_the_command_of_that_model(tmp_path: Path) -> None:
    name = "m; touch /tmp/x"
    settings = {"unloaded_ms": 1.0, "sequences": {name: {"interval_s": 0.08, "mean_s": 2.0}}}
    run = Run(name, "localhost:1", (SLO,), 0, settings, None, {}, "2026-11-22T00:00")
    words = shlex.split(report._repeat(Stored(tmp_path, run, run.result((), partial="", folder=None))))
    assert words[:5] == ["fathom", "capacity", name, "--slo", "p99=20ms"]
    assert words[-2:] == ["--sequence-interval", "80ms"]


def test_a_browser_runs_nothing_and_shows_both_themes(pages: dict[str, list[Path]]) -> None:
    with Browser() as browser:
        for page in pages["hostile"]:
            browser.open(page.as_uri())
            browser.wait_for(f"document.readyState == 'complete' && location.pathname.endsWith('{page.name}')")
            assert browser.evaluate("document.title").startswith("Capacity of ")
            assert browser.evaluate("document.querySelectorAll('script, img').length") == 0
            for theme, colour in (("light", "rgb(245, 246, 248)"), ("dark", "rgb(15, 18, 23)")):
                features = [{"name": "prefers-color-scheme", "value": theme}]
                browser.call("Emulation.setEmulatedMedia", features=features)
                assert browser.evaluate("getComputedStyle(document.body).backgroundColor") == colour
