"""The alert rules by themselves: promtool takes them, each fires when it should and keeps silent when not.

Apart from test_prometheus.py, whose servers are under load all the while.
"""

from __future__ import annotations

import re
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest
import yaml
from debian import needs
from replica import ROOT
from watcher import ALERTS, SOURCE

pytestmark = pytest.mark.process

RULES = sorted((SOURCE / "rules").glob("*.yml"))


def promtool(*arguments: str) -> str:
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@needs("promtool", "prometheus")
def test_promtool_accepts_the_configuration() -> None:
    checked = promtool("check", "config", str(SOURCE / "prometheus.yml"))
    assert f"{len(RULES)} rule files found" in checked
    promtool("check", "rules", *map(str, RULES))


@needs("promtool", "prometheus")
def test_every_alert_fires_and_keeps_silent_as_its_tests_say() -> None:
    files = sorted((SOURCE / "tests").glob("*.yml"))
    with ThreadPoolExecutor() as pool:  # promtool itself takes one file after the other
        said = list(pool.map(lambda path: promtool("test", "rules", str(path)), files))
    assert ["SUCCESS" in each for each in said] == [True] * len(files)
    cases = [
        case for path in files for test in yaml.safe_load(path.read_text())["tests"] for case in test["alert_rule_test"]
    ]
    for alert in ALERTS:
        outcomes = {bool(case["exp_alerts"]) for case in cases if case["alertname"] == alert["alert"]}
        assert outcomes == {True, False}, f"{alert['alert']} needs a case that fires and one that does not"


def test_every_alert_has_a_runbook_section() -> None:
    headings = re.findall(r"^#+ (\w+)$", (ROOT / "docs" / "runbook.md").read_text(), re.M)
    for alert in ALERTS:
        assert alert["annotations"]["runbook"] == f"docs/runbook.md#{alert['alert'].lower()}"
        assert alert["alert"] in headings
        assert alert["labels"]["severity"] in ("page", "ticket")
