"""Open-loop load generation, verdicts and capacity search for inference servers.

Data flows one way: schedule -> fire -> record -> judge -> search -> report.

    request = CapacityRequest("localhost:8001", "rain_forecast", [Slo.parse("p99=20ms")], folder=Path("results"))
    print(find(request).capacity_per_s)
    print(write_report(Path("results")))
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from loadtests.capacity import CapacityRequest
    from loadtests.errors import LoadTestError
    from loadtests.finding import find
    from loadtests.records.point import Point
    from loadtests.report import write as write_report
    from loadtests.results.result import CapacityResult
    from loadtests.slo import Slo

__all__ = ["CapacityRequest", "CapacityResult", "LoadTestError", "Point", "Slo", "find", "write_report"]

_HOMES = {
    "CapacityRequest": ("capacity", "CapacityRequest"),
    "CapacityResult": ("results.result", "CapacityResult"),
    "LoadTestError": ("errors", "LoadTestError"),
    "Point": ("records.point", "Point"),
    "Slo": ("slo", "Slo"),
    "find": ("finding", "find"),
    "write_report": ("report", "write"),
}


def __getattr__(name: str) -> Any:
    """The names above, imported when they are asked for: together they take half a second."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _HOMES[name]
    return getattr(import_module(f"loadtests.{module}"), attribute)
