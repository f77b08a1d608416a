"""Open-loop load on a served model, steered from Locust:

    locust -f loadtests/locustfile.py --host localhost:8001 --model image_classifier

One user is one request a second. See docs/guides/locust.md.
"""

# isort: off
import locust  # first: it patches the process for gevent

# isort: on

from locust import events

from loadtests.locust_ui import hooks
from loadtests.locust_ui.front import OneRequestPerSecond

__all__ = ["OneRequestPerSecond", "locust"]

hooks.install(events)
