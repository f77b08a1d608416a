"""Keeps other web pages and other machines from Locust's page, which has no login and starts load anywhere.

A browser on this machine reaches what listens on the loopback interface, whatever page runs in it. So a request must
name this server, which a page of another name does not whose DNS answers 127.0.0.1, and must not come from a page of
another origin.
"""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import re
import socket
from typing import Any
from urllib.parse import urlsplit

from flask import Request, Response, request

LOOPBACK = "127.0.0.1"
_SCRIPT = re.compile(r"<script\b[^>]*>(.*?)</script>", re.DOTALL)


def listen_on_loopback(parser: Any) -> None:
    """For Locust's `init_command_line_parser`: other addresses have to be asked for."""
    parser.set_defaults(web_host=LOOPBACK, master_bind_host=LOOPBACK)


def protect(web_ui: Any) -> None:
    """Before the web server starts."""
    options = web_ui.environment.parsed_options
    published = _host(options.web_host_display_name)
    names = {"localhost", socket.gethostname().lower(), _host(options.web_host), published} - {""}

    def refuse() -> tuple[str, int] | None:
        reason = why_refused(request, names, published)
        return (f"{reason}\n", 403) if reason else None

    web_ui.app.before_request(refuse)
    web_ui.app.after_request(_restrict)


def why_refused(asked: Request, names: set[str], published: str) -> str:
    """Empty for a request of a page of this server, or of a program.

    `names` are the host names of this server, and `published` is the one of them that a proxy has, or empty.
    """
    host = _host(asked.host)
    if not (_is_address(host) or host in names):
        remedy = "open the page by its IP address, or start Locust with --web-host-display-name"
        return f"'{host}' is not a name of this Locust: {remedy}"
    origin = asked.headers.get("Origin")
    own = origin is None or origin.partition("://")[2].lower() == asked.host.lower()
    if not own and not (published and _host(origin) == published):
        return f"pages of '{origin}' may not control this Locust"
    opens_page = asked.endpoint == "locust.index" and asked.headers.get("Sec-Fetch-Mode") == "navigate"
    if asked.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin") and not opens_page:
        return "pages of another origin may not control this Locust"
    return ""


def _host(address: str | None) -> str:
    """The host name of `host:port` or of a URL, in lower case."""
    try:
        return urlsplit(address if address and "//" in address else f"//{address or ''}").hostname or ""
    except ValueError:
        return ""


def _is_address(host: str) -> bool:
    try:
        return bool(ipaddress.ip_address(host))
    except ValueError:
        return False


def _restrict(response: Response) -> Response:
    """Lets a page run its own scripts alone, and none that somebody's text brought in."""
    response.headers["X-Content-Type-Options"] = "nosniff"
    if response.mimetype == "text/html":
        response.direct_passthrough = False
        scripts = filter(None, _SCRIPT.findall(response.get_data(as_text=True)))
        hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
        allowed = " ".join(["'self'", *(f"'sha256-{digest}'" for digest in hashes)])
        response.headers["Content-Security-Policy"] = (
            f"default-src 'self'; script-src {allowed}; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
            "font-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
        )
    return response
