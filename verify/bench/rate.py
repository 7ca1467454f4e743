"""How fast a group of consumers goes through the transactions and what CPU it takes, seen from outside."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
from redis import Redis

from fraudstream.clients.clock import monotonic_s
from fraudstream.core.errors import FraudstreamError
from fraudstream.core.settings import Settings
from fraudstream.stack.locks import pause
from verify.bench.processes import working_on
from verify.ledger import Log

LOOK_S = 0.1

Enough = Callable[[int, float], bool]
"""Told transactions and seconds since the first commit that was seen: whether that will do."""


class Rate(msgspec.Struct, frozen=True):
    """Transactions a second from the first commit that is seen to the last; CPU of the workers a transaction.

    Shares are of one core: 1.0 is a core that does nothing else. `redis_waits_share`: of the time, in which
    Redis had work and no core; with `redis_core_share` 1.0 where it is the limit. 0 where nobody tells.
    """

    transactions: int
    tx_per_s: int
    cpu_us_per_tx: float
    kafka_core_share: float
    redis_core_share: float
    redis_waits_share: float


@dataclass(frozen=True)
class Watched:
    """Who is measured: consumer group, part of the command line; `check` raises if it has died."""

    group: str
    process: str
    check: Callable[[], None]


def timed(settings: Settings, who: Watched, enough: Enough = lambda n, seconds: False) -> Rate:
    """Take time and CPU from the first commit that is seen to the one that is enough, at most to the last.

    Raises:
        FraudstreamError: there is nothing left after the first commit.
    """
    with Log(settings) as log, Redis.from_url(settings.redis_url) as client:
        first, total = committed_anew(log, who)
        begun_s, before = monotonic_s(), _cpu_s(settings, client, who.process)
        n, seconds = 0, 0.0
        while first + n < total and not enough(n, seconds):
            done, total = committed_anew(log, who)
            n, seconds = done - first, monotonic_s() - begun_s
        after = _cpu_s(settings, client, who.process)
    if not n:
        raise FraudstreamError(
            f"{who.group} was through the backlog before it could be timed: take a larger --backlog"
        )
    used = {each: at - before[each] for each, at in after.items()}
    return Rate(
        transactions=n,
        tx_per_s=round(n / seconds),
        cpu_us_per_tx=round(used["worker"] / n * 1e6, 1),
        kafka_core_share=round(used["kafka"] / seconds, 2),
        redis_core_share=round(used["redis"] / seconds, 2),
        redis_waits_share=round(used["redis waits"] / seconds, 2),
    )


def committed_anew(log: Log, who: Watched) -> tuple[int, int]:
    """Wait until the group commits; return how many transactions it has committed, and how many there are."""
    begin, total = log.lag(who.group)
    done = begin
    while done == begin and done < total:
        who.check()
        pause(LOOK_S)
        done, total = log.lag(who.group)
    return done, total


def waited_s(pid: int) -> float:
    """Return for how long a process's main thread could have run and had no core, in seconds."""
    try:
        _, waited_ns, _ = Path(f"/proc/{pid}/schedstat").read_text(encoding="ascii").split()
    except OSError:  # not on Linux
        return 0.0
    return int(waited_ns) / 1e9


def _cpu_s(settings: Settings, client: Redis, worker: str) -> dict[str, float]:
    """Return the CPU seconds used so far by workers, Kafka and Redis, and those that Redis waited for."""
    info = client.info("cpu")
    used = {"redis": float(info["used_cpu_user"]) + float(info["used_cpu_sys"])}
    used["redis waits"] = waited_s(int(client.info("server")["process_id"]))
    for name, part in (("worker", worker), ("kafka", "kafka.Kafka")):
        times = [each.info["cpu_times"] for each in working_on(settings, part)]
        used[name] = sum(each.user + each.system for each in times)
    return used
