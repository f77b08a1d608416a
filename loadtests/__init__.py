"""Open-loop load generation, verdicts and capacity search for inference servers.

Data flows one way: schedule -> fire -> record -> judge -> search -> report.

    request = CapacityRequest("localhost:8001", "rain_forecast", [Slo.parse("p99=20ms")], folder=Path("results"))
    print(find(request).capacity_per_s)
    print(write_report(Path("results")))
"""

from loadtests.capacity import CapacityRequest, find
from loadtests.errors import LoadTestError
from loadtests.records.point import Point
from loadtests.report import write as write_report
from loadtests.results.result import CapacityResult
from loadtests.slo import Slo

__all__ = ["CapacityRequest", "CapacityResult", "LoadTestError", "Point", "Slo", "find", "write_report"]
