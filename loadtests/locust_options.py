"""What a person asks of the Locust front, as options of the command line and fields of the web form."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loadtests.errors import BadRequestError
from loadtests.inputs import read_inputs
from loadtests.payloads import from_metadata
from loadtests.slo import Slo, loosest_limit_ms
from loadtests.stream import Arrivals
from loadtests.target import Target
from loadtests.traffic import scoped
from loadtests.worker import WorkerTarget

DEFAULT_SLO = "p99=50ms"
_FEWEST_TIMEOUT_S = 10.0
SCHEME = "grpc://"


def add_arguments(parser: Any) -> None:
    """For Locust's `init_command_line_parser`."""
    group = parser.add_argument_group("Fathom", "What is asked. One user is one request a second.")
    group.add_argument(
        "--model", default="", help="The model or pipeline to ask, as the server names it", env_var="MODEL"
    )
    group.add_argument(
        "--slo", default=DEFAULT_SLO, help="What must hold, as in p99=50ms; several with commas between them"
    )
    group.add_argument(
        "--inputs",
        default="",
        help="A file of requests, one JSON object of inputs per line; without it inputs are made from the metadata",
    )
    group.add_argument("--arrivals", default="poisson", choices=["poisson", "constant"], help="How requests arrive")
    group.add_argument("--seed", type=int, default=0, help="Of the arrivals and the order of the inputs")
    for option in ("model", "slo", "inputs", "arrivals", "seed"):
        action = next(action for action in parser._actions if action.dest == option)
        # configargparse's groups do not pass on what Locust's own add_argument would set
        action.include_in_web_ui, action.is_secret, action.is_multiple = True, False, False
        action.is_required = option in ("model", "slo")


@dataclass(frozen=True)
class Wanted:
    """The options, checked."""

    server: str
    model: str
    slos: tuple[Slo, ...]
    inputs: str
    arrivals: Arrivals
    seed: int

    @classmethod
    def of(cls, environment: Any) -> Wanted:
        """BadRequestError: an option that cannot be used."""
        options = environment.parsed_options
        if not environment.host:
            raise BadRequestError("no server: give --host HOST:PORT of its gRPC endpoint")
        if not options.model:
            raise BadRequestError("no model: give --model NAME, as the server names it")
        slos = scoped([Slo.parse(text) for text in options.slo.replace(",", " ").split()], [options.model])
        loosest_limit_ms(slos)
        server = with_scheme(environment.host).removeprefix(SCHEME)
        return cls(server, options.model, slos, options.inputs, options.arrivals, int(options.seed))

    def target(self, worker_index: int = 0) -> WorkerTarget:
        """Asks the server once; TargetError with its reason where it will not do."""
        with Target(self.server, self.model) as target:
            target.check()
            if self.inputs:
                payloads = read_inputs(Path(self.inputs), self.server, self.model)
            else:
                payloads = from_metadata(target.metadata(), target.config(), seed=self.seed)
            timeout_s = max(_FEWEST_TIMEOUT_S, 4 * loosest_limit_ms(self.slos) / 1e3)
            target.infer(payloads[0], timeout_s)
        return WorkerTarget(self.server, payloads, timeout_s)


def with_scheme(host: str) -> str:
    """Locust's web form takes only hosts with one."""
    return host if "://" in host else SCHEME + host
