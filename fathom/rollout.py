"""Put a new version of a model into service under load, and roll back if it fails.

Tried -> placed -> switched -> watched. A candidate is loaded under another name from its files alone, so that it has to
load, warm up and agree before it meets any traffic. Then its folder appears by a rename, and each replica in turn loads
and warms it beside the old version, moves new requests and lets the old version finish. A later failure removes the
folder and reloads every replica. The servers need --model-control-mode=explicit.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from clients import Client
from export.repository import unfinished
from export.repository.publish import hold, is_held
from export.repository.scratch import scratch
from export.repository.unfinished import Unfinished
from fathom.candidate import try_candidate
from fathom.console.arguments import UsageError
from fathom.replica import Outcomes, Replica, RolloutError, Rules
from loadtests.judge.verdict import CONFIDENCE, judge_counts

MOST_BYTES = 1_900_000_000  # protobuf ends at 2 GiB
LOOK_EVERY_S = 0.5


@dataclass(frozen=True)
class Watched:
    """What the replicas counted while they were watched: requests to the new version, and how many of them failed.

    The verdict is pass where so many requests prove with 99 % confidence that no larger share fails than allowed."""

    requests: int
    failed: int
    verdict: Literal["pass", "undecided"]
    idle: tuple[str, ...] = ()
    """The replicas that no request reached."""


@dataclass(frozen=True)
class Rollout:
    """A version that is in service. `watched` is None where nothing was to be watched."""

    version: int
    watched: Watched | None


def roll(
    clients: Sequence[Client],
    model: str,
    files: Path,
    repository: Path,
    rules: Rules,
    report: Callable[[str], None] = lambda text: None,
    outcomes: Callable[[], Outcomes] = lambda: (0, 0),
) -> Rollout:
    """Serve `files` (what belongs into a version's folder) as the next version on every replica.

    `repository` is the folder that all replicas read. `outcomes` counts the requests of the callers, since Triton's
    python backend (2.51) counts a request that it answers with an error as a success. Raises UsageError for what cannot
    be tried, RolloutError when the version was refused or rolled back.
    """
    folder = repository / model
    if not folder.is_dir():
        raise UsageError(f"{repository} has no model {model}")
    contents = {str(path.relative_to(files)): path for path in sorted(files.rglob("*")) if path.is_file()}
    if not contents:
        raise UsageError(f"{files} is empty or missing: name a folder like {model}/1")
    if sum(path.stat().st_size for path in contents.values()) > MOST_BYTES:
        raise UsageError(f"{files} has more than {MOST_BYTES / 1e9:g} GB, too much to load over gRPC")
    with hold(repository):
        for client in clients:
            if not Replica(client, model, 0, rules).answers():
                raise RolloutError(f"{client.endpoint} does not answer; nothing was changed")
        for mark in unfinished.found(repository):
            if mark.folder == folder:
                _undo(mark, [Replica(client, model, mark.version, rules) for client in clients], report)
        version = 1 + max((int(path.name) for path in folder.iterdir() if path.name.isdigit()), default=0)
        replicas = [Replica(client, model, version, rules) for client in clients]
        try_candidate(clients[0], model, contents, rules)
        report(f"version {version} loads, is warmed up and agrees with the old one")
        with scratch(folder) as room:
            shutil.copytree(files, room / str(version))
            unfinished.begin(folder, version, [client.endpoint for client in clients], room)
            (room / str(version)).rename(folder / str(version))
            switched: list[Replica] = []
            try:
                before = outcomes()
                for replica in replicas:
                    switched.append(replica)
                    replica.switch()
                    report(f"{replica.endpoint} serves version {version}")
                return Rollout(version, watch(replicas, rules, outcomes, before) if rules.watch_s else None)
            except BaseException as reason:
                # Replicas not reached yet come last: one that was restarted meanwhile has loaded the newest folder.
                order = switched + [replica for replica in replicas if replica not in switched]
                left_behind = _roll_back(order, folder / str(version), room / "refused")
                if not left_behind and not isinstance(reason, Exception):
                    raise  # Ctrl-C, and all is as before
                why = str(reason) or type(reason).__name__
                raise RolloutError(rolled_back(why, version, left_behind), [*left_behind]) from reason
            finally:
                unfinished.end(folder)


def take_back_unfinished(repository: Path, report: Callable[[str], None]) -> None:
    """Take back the versions of roll-outs that were killed, before a server loads them. One that goes on is left."""
    if not unfinished.found(repository) or is_held(repository):
        return
    with hold(repository):
        for mark in unfinished.found(repository):
            unfinished.take_back(mark)
            report(
                f"version {mark.version} of {mark.folder.name} was rolled back, because its publish was killed; "
                f"restart {', '.join(mark.servers)}, which may still serve it"
            )


def _undo(mark: Unfinished, replicas: Sequence[Replica], report: Callable[[str], None]) -> None:
    with scratch(mark.folder) as room:
        left_behind = _roll_back(replicas, mark.path, room / "refused")
        unfinished.end(mark.folder)
    if left_behind:
        raise RolloutError(rolled_back("its publish was killed", mark.version, left_behind), [*left_behind])
    report(f"version {mark.version} was rolled back, because its publish was killed")
    if other := sorted({*mark.servers} - {replica.endpoint for replica in replicas}):
        report(f"restart {', '.join(other)}, which may still serve version {mark.version}")


def _roll_back(replicas: Sequence[Replica], version: Path, refused: Path) -> dict[str, str]:
    """Take the folder `version` away and reload every replica, in order; one that fails, again after the others.

    Returns why a replica could not be reloaded, by its address.
    """
    try:
        version.rename(refused)
    except OSError as error:
        if version.exists():
            why = f"the folder {version} cannot be removed ({error.strerror})"
            return {replica.endpoint: f"{replica.endpoint}: {why}" for replica in replicas}
    left_behind = dict.fromkeys(replicas, "")
    for _ in range(2):
        for replica in list(left_behind):
            try:
                replica.require_answer()
                replica.load()
                del left_behind[replica]
            except BaseException as error:  # another Ctrl-C too: the next replica needs it no less
                left_behind[replica] = str(error) or f"{replica.endpoint}: interrupted"
    return {replica.endpoint: why for replica, why in left_behind.items()}


def rolled_back(reason: str, version: int, left_behind: dict[str, str]) -> str:
    if not left_behind:
        return f"{reason}; version {version} was rolled back"
    where = ", ".join(f"{at} ({why.removeprefix(at).lstrip(': ')})" for at, why in left_behind.items())
    return (
        f"{reason}; version {version} was rolled back, except at {where}: restart {', '.join(left_behind)}, which may "
        "still serve it"
    )


def watch(
    replicas: Sequence[Replica], rules: Rules, outcomes: Callable[[], Outcomes], before: Outcomes = (0, 0)
) -> Watched:
    """Watch for `watch_s`; `before` is what `outcomes` was when the new version came.

    Raises RolloutError once the share of failures is proven to be larger than allowed.
    """
    looks = 1 + int(rules.watch_s / LOOK_EVERY_S)
    confidence = 1 - (1 - CONFIDENCE) / looks  # of each look, so that all together keep to CONFIDENCE

    def refuse_failures(good: int, failed: int, where: str) -> None:
        if judge_counts(good + failed, failed, rules.failed_share, confidence=confidence) == "fail":
            raise RolloutError(f"{failed:,} of {good + failed:,} requests {where}")

    for _ in _looks(rules.watch_s):
        counts = [replica.outcomes() for replica in replicas]
        for replica, (good, failed) in zip(replicas, counts, strict=True):
            refuse_failures(good, failed, f"to the new version failed at {replica.endpoint}")
        good, failed = (now - then for now, then in zip(outcomes(), before, strict=True))
        refuse_failures(good, failed, "failed for their callers since the new version is in service")
    totals = (sum(good for good, _ in counts), sum(failed for _, failed in counts))
    answered, refused = max(totals, (good, failed), key=sum)
    idle = tuple(replica.endpoint for replica, count in zip(replicas, counts, strict=True) if not sum(count))
    passes = judge_counts(answered + refused, refused, rules.failed_share) == "pass"
    return Watched(answered + refused, refused, "pass" if passes else "undecided", idle)


def _looks(seconds: float) -> Iterator[None]:
    end_s = time.monotonic() + seconds
    while True:
        yield
        left_s = end_s - time.monotonic()
        if left_s <= 0:
            return
        time.sleep(min(LOOK_EVERY_S, left_s))
