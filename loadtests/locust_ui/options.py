"""The options of the Locust front, on the command line and in the web form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from loadtests.errors import BadRequestError
from loadtests.generator.process import GeneratorSettings
from loadtests.slo import Slo, check_limited, check_measures, loosest_limit_ms
from loadtests.target import access_options
from loadtests.target.access import Access
from loadtests.workload.arrivals import POISSON
from loadtests.workload.inputs import files_of, with_inputs
from loadtests.workload.mix import ModelMix
from loadtests.workload.workload import ModelWeight, Workload, scoped

DEFAULT_SLO = "p99=50ms"
_FEWEST_TIMEOUT_S, _STREAMS_TIMEOUT_S = 10.0, 60.0
SCHEME = "grpc://"
_OWN = "--tls-client"
"""Locust's own --tls-cert and --tls-key are those of its page."""


def add_arguments(parser: Any) -> None:
    """For Locust's `init_command_line_parser`."""
    group = parser.add_argument_group("Fathom", "The load. One Locust user is one request per second.")
    group.add_argument(
        "--model",
        default="",
        help="Model or pipeline to load; several share the load by weight: a=0.7, b=0.3",
        env_var="MODEL",
    )
    group.add_argument(
        "--slo",
        default=DEFAULT_SLO,
        help="Service level objective, as in p99=50ms, errors=0.1%% or ttft:p99=1s; separate several with commas",
    )
    group.add_argument(
        "--inputs",
        default="",
        help="JSON Lines file of requests, one object of inputs per line; for several models a=FILE, b=FILE (default: "
        "inputs made up from the server's metadata)",
    )
    group.add_argument(
        "--arrivals",
        default=POISSON.text,
        help="How requests arrive: poisson, constant, gamma:cv=2 or a CSV file of recorded arrivals",
    )
    group.add_argument("--seed", type=int, default=0, help="Seed of arrivals and inputs")
    group.add_argument(
        "--no-real-time", action="store_false", dest="real_time", help="Run the generator at normal priority"
    )
    access_options.add_arguments(group, own=_OWN)
    for option in ("model", "slo", "inputs", "arrivals", "seed"):
        action = next(action for action in parser._actions if action.dest == option)
        # configargparse's groups do not pass on what Locust's own add_argument would set
        action.include_in_web_ui, action.is_secret, action.is_multiple = True, False, False
        action.is_required = option in ("model", "slo")


def take_reach(options: Any) -> Reach:
    """How this process reaches the server. Raises BadRequestError.

    Its options are taken away: Locust's master would send them to its workers, secrets and all. Each process that sends
    requests has its own.
    """
    reach = Reach(access_options.read_access(options, own=_OWN), options.real_time)
    for name in (*access_options.DESTINATIONS, "real_time"):
        delattr(options, name)
    return reach


@dataclass(frozen=True)
class Reach:
    """How a Locust process reaches the server, whatever is asked there."""

    access: Access = field(default_factory=Access)
    real_time: bool = True


@dataclass(frozen=True)
class Wanted:
    """The options, checked."""

    server: str
    shares: tuple[ModelWeight, ...]
    slos: tuple[Slo, ...]
    inputs: Mapping[str, Path]
    """A file of requests for each model that has one."""
    arrivals: str
    """As it was given: a recording lies where requests are sent, not at the master."""
    seed: int

    @property
    def models(self) -> tuple[str, ...]:
        return tuple(share.model for share in self.shares)

    @classmethod
    def of(cls, environment: Any) -> Wanted:
        """BadRequestError: an option that cannot be used."""
        options = environment.parsed_options
        if not environment.host:
            raise BadRequestError("no server: add --host HOST:PORT with its gRPC address", field="server")
        if not options.model:
            raise BadRequestError("no model: add --model NAME, as the server names it", field="model")
        if int(options.seed) < 0:
            raise BadRequestError(f"seed {options.seed} must be 0 or more", field="seed")
        shares = tuple(ModelWeight.parse(text) for text in _several(options.model))
        models = [share.model for share in shares]
        slos = scoped([Slo.parse(text) for text in _several(options.slo)], models)
        check_limited(slos)
        server = with_scheme(environment.host).removeprefix(SCHEME)
        entries = [options.inputs] if len(models) == 1 and options.inputs else _several(options.inputs)
        return cls(server, shares, slos, files_of(entries, models), options.arrivals, int(options.seed))

    @property
    def timeout_s(self) -> float:
        """Deadline of each request, for an answer in parts that of all of it."""
        fewest_s = _STREAMS_TIMEOUT_S if any(slo.measure for slo in self.slos) else _FEWEST_TIMEOUT_S
        return max(fewest_s, 4 * loosest_limit_ms(self.slos) / 1e3)

    def target(self, reach: Reach) -> tuple[GeneratorSettings, ModelMix, frozenset[str]]:
        """Asks each model once; TargetError with the server's reason where it will not do, BadRequestError for an SLO
        that does not fit. The names are those of the models that answer in parts."""
        shares = with_inputs(self.shares, self.inputs, self.server, reach.access)
        with Workload(self.server, shares, access=reach.access, seed=self.seed) as workload:
            workload.refuse_sequences("fathom load or fathom capacity (--locust-master spreads it over Locust workers)")
            workload.check()
            check_measures(self.slos, workload.measures)
            for target, pool in workload.first_payloads:
                target.infer(pool[0], self.timeout_s)
            settings = GeneratorSettings(
                self.server,
                workload.pool,
                self.timeout_s,
                access=reach.access,
                real_time=reach.real_time,
                streamed=workload.streamed,
            )
            return settings, workload.mix, frozenset(name for name, streams in workload.streaming.items() if streams)


def _several(text: str) -> list[str]:
    """What commas or blanks separate."""
    return text.replace(",", " ").split()


def with_scheme(host: str) -> str:
    """Locust's web form takes only hosts with one."""
    return host if "://" in host else SCHEME + host
