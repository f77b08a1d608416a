"""Write the Prometheus operator's copy of deploy/prometheus/rules: `python -m deploy.kubernetes.rules [--check]`.

The operator takes rules from PrometheusRule resources alone. With --check nothing is written and the exit status is 1
where base/prometheusrule.yaml differs from the rules.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import yaml

RULES = Path(__file__).parents[1] / "prometheus" / "rules"
FILE = Path(__file__).parent / "base" / "prometheusrule.yaml"
HEADER = "# Written by python -m deploy.kubernetes.rules: change deploy/prometheus/rules and run it again.\n"


def resource() -> dict[str, Any]:
    """All groups of all rule files, under the names they have there."""
    files = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in sorted(RULES.glob("*.yml"))]
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "triton"},
        "spec": {"groups": [group for file in files for group in file["groups"]]},
    }


def main(arguments: list[str] | None = None) -> int:
    """Write or check the file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit status 1 where the file differs")
    options = parser.parse_args(arguments)
    text = HEADER + yaml.safe_dump(resource(), sort_keys=False, width=120)
    if options.check:
        if FILE.exists() and FILE.read_text(encoding="utf-8") == text:
            return 0
        print(f"{FILE} is not what {RULES} makes", file=sys.stderr)
        return 1
    FILE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
