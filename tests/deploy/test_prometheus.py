"""A real Prometheus scrapes two real Tritons and their HAProxy under load; every query and alert is asked of it."""

from __future__ import annotations

import json
import re
import threading
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import prometheus_client
import pytest
import yaml
from balancer import Fleet
from debian import needs
from replica import ROOT
from watcher import ALERTS, Prometheus, Recording

from clients import TLS, Client
from clients.metrics import Metrics
from deploy.grafana import dashboards
from deploy.kubernetes import rules
from deploy.prometheus import objectives

pytestmark = pytest.mark.process

DASHBOARDS = sorted((ROOT / "deploy" / "grafana" / "dashboards").glob("*.json"))
PANELS = [
    pytest.param(target["expr"], id=f"{path.stem}-{panel['title']}-{target['refId']}")
    for path in DASHBOARDS
    for panel in json.loads(path.read_text())["panels"]
    for target in panel["targets"]
]
THREADS = 4
PROVEN = 2500.0


@pytest.fixture(scope="module")
def prometheus(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Prometheus after some seconds of a load that goes on, with an objective and a proven capacity for `double`."""
    folder = tmp_path_factory.mktemp("watch")
    result = folder / "capacity.json"
    result.write_text(json.dumps({"model": "double", "capacity_per_s": PROVEN, "slo": "p99=20ms", "verdict": "pass"}))
    watcher = Prometheus(folder / "prometheus")
    # Wide, since no alert may fire: a busy machine misses 20 ms for longer than the minute that the fast burn takes.
    (watcher.folder / "objectives.toml").write_text('[slo]\ndouble = "p99=500ms"\n')
    assert objectives.main(["--folder", str(watcher.folder), str(result)]) == 0
    watcher.hurry()
    for replica in fleet.replicas:
        fleet.bring_back(replica)
    newer = Recording(Path(__file__).with_name("recorded_metrics.txt"))
    registry = prometheus_client.CollectorRegistry()
    exporter, thread = prometheus_client.start_http_server(0, "127.0.0.1", registry)
    watcher.watch("triton", *(f"127.0.0.1:{replica.metrics_port}" for replica in fleet.replicas))
    watcher.watch("haproxy", f"127.0.0.1:{fleet.balancer.metrics_port}")
    watcher.watch("clients", f"127.0.0.1:{exporter.server_address[1]}", newer.address)
    done = threading.Event()
    loading = threading.Thread(target=load, args=(fleet, Metrics(registry), done))
    try:
        watcher.start()
        loading.start()
        yield watcher
    finally:
        done.set()
        loading.join()
        watcher.close()
        newer.close()
        exporter.shutdown()
        exporter.server_close()
        thread.join()


def load(fleet: Fleet, metrics: Metrics, done: threading.Event) -> None:
    """Requests through the balancer, counted as clients count them, until `done`."""
    with Client(fleet.balancer.address, tls=TLS(ca=fleet.balancer.ca), metrics=metrics) as client:
        double = client.model("double")

        def ask(_: int) -> None:
            while not done.wait(0.01):
                double(x=[[1.0, 2.0]])

        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(ask, range(THREADS)))


@needs("prometheus", "prometheus")
@needs("haproxy", "haproxy")
@pytest.mark.parametrize("expression", PANELS)
def test_no_query_of_a_panel_is_empty_or_erroneous(prometheus: Prometheus, expression: str) -> None:
    asked = expression.replace("$__rate_interval", "5s").replace("$model", ".*")
    assert "$" not in asked
    assert prometheus.eventually(asked)


@needs("prometheus", "prometheus")
@needs("haproxy", "haproxy")
def test_kubernetes_scales_on_a_query_that_counts_what_arrives(prometheus: Prometheus) -> None:
    path = ROOT / "deploy" / "kubernetes" / "base" / "scaledobject.yaml"
    (trigger,) = yaml.safe_load(path.read_text())["spec"]["triggers"]
    (sample,) = prometheus.eventually(trigger["metadata"]["query"].replace("image_classifier", "double"))
    (arriving,) = prometheus.eventually("sum(rate(fathom_client_request_duration_seconds_count[1m]))")
    assert 1 / 3 < float(sample["value"][1]) / float(arriving["value"][1]) < 3  # scraped at different moments


@needs("prometheus", "prometheus")
@needs("haproxy", "haproxy")
@pytest.mark.parametrize("alert", [pytest.param(alert, id=alert["alert"]) for alert in ALERTS])
def test_every_alert_reads_series_that_exist(prometheus: Prometheus, alert: dict[str, object]) -> None:
    expression = str(alert["expr"])
    prometheus.query(expression)
    bare = re.sub(r"\{.*?\}|\[.*?\]|\b(on|by|group_left|group_right)\b\s*\([^)]*\)", "", expression)
    words = set(re.findall(r"[a-z_][a-z0-9_:]*[_:][a-z0-9_:]*|\bup\b", bare)) - {"max_over_time"}
    assert words
    for metric in words:
        assert prometheus.eventually(metric), f"{alert['alert']} reads {metric}, which nothing exports"


@needs("haproxy", "haproxy")
def test_every_exporter_names_the_format_that_prometheus_3_insists_on(fleet: Fleet) -> None:
    """The tests' Prometheus 2 takes anything; compose's refuses a scrape without a known Content-Type."""
    for url in (fleet.replicas[1].metrics_url, f"http://127.0.0.1:{fleet.balancer.metrics_port}/metrics"):
        assert urllib.request.urlopen(url, timeout=10).headers.get_content_type() == "text/plain", url


@needs("prometheus", "prometheus")
@needs("haproxy", "haproxy")
def test_rules_and_scrapes_are_healthy(prometheus: Prometheus) -> None:
    rules = [rule for group in prometheus.api("rules")["groups"] for rule in group["rules"]]
    assert [(rule["name"], rule.get("lastError")) for rule in rules if rule["health"] != "ok"] == []
    firing = [rule["name"] for rule in rules if rule.get("state") == "firing"]
    assert firing == []
    down = [target["scrapeUrl"] for target in prometheus.api("targets")["activeTargets"] if target["health"] != "up"]
    assert [url for url in down if "localhost:9090" not in url] == []


@needs("prometheus", "prometheus")
@needs("haproxy", "haproxy")
def test_recorded_figures_agree_with_the_load(prometheus: Prometheus) -> None:
    def value(expression: str) -> float:
        (sample,) = prometheus.eventually(expression)
        return float(sample["value"][1])

    clients = value('sum(fathom_client_request_duration_seconds_count{model="double"})')
    assert clients > 100
    served = value('sum(increase(nv_inference_request_success{model="double"}[10s]))')
    asked = value('sum(increase(fathom_client_request_duration_seconds_count{model="double"}[10s]))')
    assert 1 / 3 < served / asked < 3  # scraped at different moments
    assert 0 < value('model:triton_saturation:ratio{model="double"}') < 1  # its arithmetic: deploy/prometheus/tests
    assert 0 < value('model:triton_queue_seconds:mean_rate5m{model="double"}') < 0.1
    assert value('model:triton_batch:mean_rate5m{model="double"}') >= 1


@pytest.mark.parametrize("module", [objectives, dashboards, rules], ids=lambda module: module.__name__)
def test_generated_files_are_what_their_source_makes(module: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert module.main(["--check"]) == 0, capsys.readouterr()


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('[slo]\nm = "p99=17ms"\n', "p99=17ms"),
        ('[slo]\nm = "errors=1%"\n', "errors=1%"),
        ('[slo]\nm = "quick"\n', "'quick'"),
        ("[slo\n", "objectives"),
    ],
)
def test_an_objective_that_cannot_be_watched_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, named: str
) -> None:
    (tmp_path / "objectives.toml").write_text(text)
    assert objectives.main(["--folder", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert named in said
    assert said.count("\n") == 1


def test_a_result_that_proves_nothing_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = tmp_path / "capacity.json"
    result.write_text(json.dumps({"model": "m", "capacity_per_s": None, "slo": "p99=20ms", "verdict": "undecided"}))
    assert objectives.main(["--check", str(result)]) == 2
    said = capsys.readouterr().err
    assert " m" in said
    assert said.count("\n") == 1
