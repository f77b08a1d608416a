"""A panel in Locust's web UI with the state of the SLOs, and the words that say what a user means here."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from flask import Response, jsonify, request

from loadtests.locust_ui.front import Front
from loadtests.slo import describe_slos
from loadtests.workload.workload import name_of

_SCRIPT = Path(__file__).with_name("panel.js")
_REFRESH_S = 1.0


class Panel:
    """Serves `/fathom/status` and `/fathom/panel.js`, and adds the script to Locust's page."""

    def __init__(self, front: Front) -> None:
        self._front = front
        self._status: dict[str, Any] = {}
        self._made_s = -_REFRESH_S

    def attach(self, web_ui: Any) -> None:
        """Before the web server starts."""
        base = web_ui.environment.parsed_options.web_base_path or ""
        app, guarded = web_ui.app, web_ui.auth_required_if_enabled
        app.add_url_rule(f"{base}/fathom/status", "fathom_status", guarded(lambda: jsonify(self.status())))
        app.add_url_rule(f"{base}/fathom/panel.js", "fathom_panel", guarded(_script))
        app.after_request(_add_script)

    def status(self) -> dict[str, Any]:
        """Made at most once a second, however many look."""
        now_s = time.monotonic()
        if now_s - self._made_s >= _REFRESH_S:
            self._status, self._made_s = self._make(), now_s
        return self._status

    def _make(self) -> dict[str, Any]:
        front = self._front
        runner = front.environment.runner
        point = front.point()
        wanted = front.wanted
        return {
            "state": runner.state,
            "problem": front.problem,
            "model": name_of(wanted.shares) if wanted else "",
            "slos": describe_slos(wanted.slos) if wanted else "",
            "capacity": front.rates.capacity(wanted.slos) if wanted else None,
            "generators": len(point.workers) if point else 0,
            "point": point.to_json() if point else None,
        }


def _script() -> Response:
    return Response(_SCRIPT.read_text(), mimetype="application/javascript")


def _add_script(response: Response) -> Response:
    if request.endpoint == "locust.index" and response.mimetype == "text/html":
        tag = '<script src="./fathom/panel.js" defer></script></body>'
        response.set_data(response.get_data(as_text=True).replace("</body>", tag))
    return response
