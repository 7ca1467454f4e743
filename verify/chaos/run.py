"""One chaos run from the empty servers to the report: prepare, break, drain, judge."""

from collections.abc import Callable
from pathlib import Path

import msgspec

from fraudstream.clients.clock import monotonic_s
from fraudstream.clients.feature_state import open_state
from fraudstream.clients.kafka import topic_facts
from fraudstream.core.errors import FraudstreamError
from fraudstream.core.feature_set import NINE
from fraudstream.core.settings import Settings, state_path
from fraudstream.core.topics import topic_name
from fraudstream.stack.locks import pause
from verify.chaos.fleet import Fleet
from verify.chaos.oracle import judge
from verify.chaos.play import Parts, Player
from verify.chaos.points import POINTS, TELLING
from verify.chaos.report import Report, make_report
from verify.chaos.schedule import SWAPS, Event, make_schedule, planned_points
from verify.chaos.stage import (
    Sender,
    Tell,
    chaos_settings,
    make_stream,
    promote_version,
    publish_versions,
    servers,
)
from verify.chaos.watch import Watch
from verify.ledger import Log

WORKERS = 2
SECONDS_A_KILL = 3.0
"""For so long a stream is made; what is not needed of it is not sent, what lacks is its repetition."""
SECONDS_OF_OTHERS = 30.0
BEGIN_S = 60.0
DRAIN_S = 150.0
POLL_S = 0.1
MORE = 1.01
"""So much more is sent than is ordered: at least that must have come, whatever a server's outage took."""
REDELIVERED = "chaos: redelivered "


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked for: `kills` of workers, transactions a second, a defect or None, faults of servers."""

    kills: int
    seed: int
    rate: int
    sabotage: str | None = None
    break_servers: bool = True


def run(settings: Settings, order: Order, tell: Tell) -> Report:
    """Break the product as ordered, on servers of the run's own, and judge what came out.

    Raises:
        FraudstreamError: the run could not be carried out, or the product did not come back after a fault.
    """
    with servers(chaos_settings(settings), tell) as full:
        return run_on(full, order, tell)


def run_on(settings: Settings, order: Order, tell: Tell) -> Report:
    """Do the same in an empty environment with topics, on the servers that `settings` name."""
    tell("generating transactions and training three models")
    seconds = order.kills * SECONDS_A_KILL + SECONDS_OF_OTHERS
    stream = make_stream(round(order.rate * seconds), order.seed)
    sender = Sender(settings, stream, order.rate * MORE)
    versions = publish_versions(settings)
    promote_version(settings, versions[0])
    events = _events(order)
    logs = state_path(settings) / "workers"
    with Watch(settings) as watch, Fleet(settings, logs, order.sabotage) as fleet:
        parts = Parts(fleet=fleet, sender=sender, watch=watch)
        player = Player(
            settings, parts, versions=versions[1 : SWAPS + 1], tell=tell, seed=order.seed
        )
        began_s = monotonic_s()
        break_all(player, parts, events)
        seconds = monotonic_s() - began_s
        drain(settings, fleet, tell)
    facts = _facts(order, player, parts) | {"seconds": round(seconds, 1)}
    facts["versions_promoted"] = [versions[0], *player.promoted]
    facts["never_hit"] = [
        each for each in planned_points(events) if not player.kills_by_point[each]
    ]
    facts["redelivered_records"] = redelivered(logs)
    return make_report(judge(settings, tell), facts)


def _events(order: Order) -> list[Event]:
    points = TELLING[order.sabotage] if order.sabotage else POINTS
    events = make_schedule(order.kills, order.seed, points=points)
    return [each for each in events if order.break_servers or not each.breaks_a_server]


def break_all(player: Player, parts: Parts, events: list[Event]) -> None:
    """Start workers and traffic, play the schedule, end the traffic."""
    parts.fleet.wanted = WORKERS
    parts.sender.start()
    _await(lambda: parts.watch.seen > 0, parts.fleet, BEGIN_S, "the first score")
    try:
        player.play(events)
    finally:
        parts.sender.stop()
    parts.sender.check()


def drain(settings: Settings, fleet: Fleet, tell: Tell) -> None:
    """Let the workers finish what was sent, labels included, then end them.

    Raises:
        FraudstreamError: that takes longer than 150 s.
    """
    tell("the traffic has ended: waiting until everything is scored")
    fleet.wanted = max(fleet.wanted, WORKERS)
    feedback = topic_name(settings.environment, "feedback")
    topic_id = topic_facts(settings, [feedback])[feedback].topic_id
    state = open_state(settings, NINE)
    with Log(settings) as log:
        labels = sum(1 for _ in log.records("feedback"))

        def drained() -> bool:
            done, total = log.lag(f"{settings.environment}.scorer")
            if done < total:
                return False
            meta = state.look()
            return meta is not None and state.marks(topic_id, [0])[0] >= labels - 1

        _await(drained, fleet, DRAIN_S, "everything is scored")
    fleet.wanted = 0
    for each in fleet.able:
        fleet.stop(each)
    fleet.look()


def redelivered(logs: Path) -> int:
    """Return how many records came to a worker again after they had been applied, by the workers' logs."""
    lines = (line for log in logs.glob("worker-*.log") for line in log.read_text().splitlines())
    return sum(
        int(line.removeprefix(REDELIVERED)) for line in lines if line.startswith(REDELIVERED)
    )


def _await(reached: Callable[[], bool], fleet: Fleet, seconds: float, what: str) -> None:
    deadline = monotonic_s() + seconds
    while not reached():
        if monotonic_s() > deadline:
            for each in fleet.able:
                each.tell_where()
            last = [f"{end.log}: status {end.status}: {end.said}" for end in fleet.unplanned[-3:]]
            ends = "; ".join(last) or "none ended"
            raise FraudstreamError(f"not within {seconds:.0f} s: {what} (workers: {ends})")
        fleet.look()
        pause(POLL_S)


def _facts(order: Order, player: Player, parts: Parts) -> dict[str, object]:
    fleet = parts.fleet
    return {
        "seed": order.seed,
        "sabotage": order.sabotage,
        "rate_ordered": order.rate,
        "kills_ordered": order.kills,
        "two_or_more_workers_run_share": round(fleet.two_or_more_run_share, 3),
        "two_or_more_workers_own_share": round(fleet.two_or_more_own_share, 3),
        "kills": player.kills,
        "kills_by_point": dict(sorted(player.kills_by_point.items())),
        "not_passed_in_time": dict(sorted(player.missed.items())),
        "others": dict(sorted(player.others.items())),
        "recovery_ms": parts.watch.recoveries(),
        "rebuilds": player.rebuilds,
        "unplanned_ends": fleet.unplanned,
    }
