"""Who may steer Locust's page: it has no login, and every page in a browser of this machine can reach it."""

from __future__ import annotations

import argparse
from types import SimpleNamespace

import pytest

flask = pytest.importorskip("flask")

from loadtests.locust_ui import guard  # noqa: E402

EVIL = "http://evil.example"
PAGE = "<html><script src='./a.js'></script>\n<script>own()</script></html>"
SAME = {"Sec-Fetch-Site": "same-origin"}
REQUESTS = [
    ("POST", "/swarm", "localhost:8089", {"Origin": "http://localhost:8089", **SAME}, True, "the page itself"),
    ("POST", "/swarm", "127.0.0.1:8089", {"Origin": "http://127.0.0.1:8089"}, True, "the page by its address"),
    ("POST", "/swarm", "[::1]:8089", {"Origin": "http://[::1]:8089"}, True, "the page by its IPv6 address"),
    ("POST", "/swarm", "192.0.2.7:8089", {}, True, "a script of another machine, which was let in"),
    ("POST", "/swarm", "load.example", {"Origin": "https://load.example"}, True, "a proxy that keeps the name"),
    ("POST", "/swarm", "localhost:8089", {"Origin": "https://load.example"}, True, "a proxy that does not"),
    ("POST", "/swarm", "localhost:8089", {"Origin": EVIL}, False, "a form of another page"),
    ("POST", "/swarm", "localhost:8089", {"Origin": "null"}, False, "of a sandboxed frame or a file"),
    ("POST", "/swarm", "localhost:8089", {"Origin": ""}, False, "of nothing"),
    ("POST", "/swarm", "localhost:8089", {"Origin": "http://localhost:3000"}, False, "of another port"),
    ("POST", "/swarm", "localhost:8089", {"Origin": "http://localhost:8089.evil.example"}, False, "of a similar name"),
    ("POST", "/swarm", "localhost:8089", {"Origin": "http://[evil"}, False, "of no address at all"),
    ("POST", "/swarm", "localhost:8089", {"Sec-Fetch-Site": "cross-site"}, False, "a browser that hides the origin"),
    ("GET", "/stop", "localhost:8089", {"Sec-Fetch-Site": "cross-site"}, False, "an image of another page"),
    ("GET", "/", "localhost:8089", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, True, "a link"),
    ("GET", "/stop", "localhost:8089", {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "navigate"}, False, "to stop"),
    ("GET", "/", "evil.example:8089", SAME, False, "a foreign name that was rebound to this machine"),
    ("POST", "/swarm", "evil.example:8089", {"Origin": "http://evil.example:8089"}, False, "the same, and a form"),
    ("GET", "/", "localhost.evil.example", {}, False, "a similar name"),
]


@pytest.fixture(scope="module")
def page() -> flask.Flask:
    app = flask.Flask("locust")
    blueprint = flask.Blueprint("locust", "locust")
    blueprint.add_url_rule("/", "index", lambda: PAGE)
    blueprint.add_url_rule("/stop", "stop", lambda: "stopped")
    blueprint.add_url_rule("/swarm", "swarm", lambda: "started", methods=["POST"])
    app.register_blueprint(blueprint)
    options = SimpleNamespace(web_host="127.0.0.1", web_host_display_name="https://load.example")
    guard.protect(SimpleNamespace(app=app, environment=SimpleNamespace(parsed_options=options)))
    return app


@pytest.mark.parametrize(
    ("method", "path", "host", "headers", "let_in"), [row[:-1] for row in REQUESTS], ids=[row[-1] for row in REQUESTS]
)
def test_only_its_own_page_and_programs_steer_it(
    page: flask.Flask, method: str, path: str, host: str, headers: dict[str, str], let_in: bool
) -> None:
    answer = page.test_client().open(path, method=method, headers={"Host": host, **headers})
    assert answer.status_code == (200 if let_in else 403)


def test_a_page_runs_the_scripts_that_it_came_with(page: flask.Flask) -> None:
    policy = page.test_client().get("/", headers={"Host": "localhost"}).headers["Content-Security-Policy"]
    scripts = next(part.split() for part in policy.split("; ") if part.startswith("script-src"))
    # openssl dgst -sha256 -binary <<< own() without the line feed, as base64
    assert scripts == ["script-src", "'self'", "'sha256-1yruO3ZUqBddjC8oRrsLLZ/oiHYCAveB39McCaLvqnk='"]


def test_other_addresses_are_asked_for() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--web-host", default="")
    parser.add_argument("--master-bind-host", default="*")
    guard.listen_on_loopback(parser)
    assert vars(parser.parse_args([])) == {"web_host": "127.0.0.1", "master_bind_host": "127.0.0.1"}
    assert parser.parse_args(["--web-host", "0.0.0.0"]).web_host == "0.0.0.0"
