"""How fast the features are rebuilt from the log, how long a snapshot halts scoring, what a restore takes.

    .venv/bin/python -m benchmarks.rebuild [--days 62] [--json FILE]

Starts a stack of its own (about a minute in all), sends the generator's stream, and rebuilds an empty state
as a worker does. CPU time of the server is from INFO, that of this process from its own clock: on a busy
machine they say more than the rates.
"""

import argparse
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

from redis import Redis

from fraudstream.clients.clock import monotonic_s, now_ms, process_cpu_s
from fraudstream.clients.feature_snapshot import fill, take_snapshot
from fraudstream.clients.feature_state import Lease
from fraudstream.clients.feature_store import FeatureStore
from fraudstream.clients.kafka import topic_facts
from fraudstream.clients.topic_admin import create_topics
from fraudstream.clients.topic_log import TopicReader
from fraudstream.core.settings import Settings
from fraudstream.core.topics import topic_name
from fraudstream.stack import embedded
from fraudstream.stack.addresses import with_addresses
from producer.generator import make_parameters, source
from producer.pace import Unpaced
from producer.replay import ReplayPlan, replay_table
from scorer.rebuild import Rebuild
from scorer.status import Status


@dataclass
class Cost:
    """Wall, server and client time since it was made, in seconds."""

    client: Redis

    def __post_init__(self) -> None:
        self.before = self._now()

    def read(self) -> tuple[float, float, float]:
        """Return wall, server's CPU and this process's CPU in seconds."""
        wall, server, own = (b - a for a, b in zip(self.before, self._now(), strict=True))
        return wall, server, own

    def _now(self) -> tuple[float, float, float]:
        used = self.client.info("cpu")
        server = float(used["used_cpu_user"]) + float(used["used_cpu_sys"])
        return monotonic_s(), server, process_cpu_s()


def main() -> None:
    """Run the benchmark and print its figures as one JSON object."""
    arguments = argparse.ArgumentParser(description=main.__doc__)
    arguments.add_argument("--days", type=int, default=62)
    arguments.add_argument("--json", type=Path)
    values = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bare = Settings(state_dir=folder, environment="bench")
        try:
            embedded.up(bare)
            figures = measure(with_addresses(bare), values.days, Path(folder))
        finally:
            embedded.down(bare, wipe=True)
    text = json.dumps(figures, indent=2)
    print(text)
    if values.json:
        values.json.write_text(text)


def measure(settings: Settings, days: int, folder: Path) -> dict[str, object]:
    """Fill the log, rebuild an empty state from it, copy it, flush it, and restore the copy."""
    create_topics(
        settings.kafka_bootstrap, settings.environment, settings.partitions, timeout_ms=20_000
    )
    parameters = make_parameters({"customers": 5_000, "terminals": 10_000, "days": days})
    replay_table(settings, source(parameters), ReplayPlan(pace=Unpaced(), client="confluent"))
    client = Redis.from_url(settings.redis_url)
    store = FeatureStore.connect(
        settings.redis_url, settings.environment, connect_timeout_ms=5_000, request_timeout_ms=5_000
    )
    names = [topic_name(settings.environment, name) for name in ("transactions", "feedback")]
    facts = topic_facts(settings, names)
    store.bind(
        {name: facts[names[i]].topic_id for i, name in enumerate(("transactions", "feedback"))}
    )
    with TopicReader(settings) as reader:
        ends = {p: high for p, (_, high) in reader.bounds(names[0]).items()}
    status = Status()
    cost = Cost(client)
    Rebuild(settings, store, (facts[names[0]], facts[names[1]]), status).run(
        lambda: ends, lambda: None
    )
    wall, server, own = cost.read()
    n = status.rebuild_done
    taken = take_snapshot(
        store.state, folder / "copy.features", environment="bench", now_ms=now_ms()
    )
    client.flushall()
    store.adopt()
    lease = Lease.take(store.state)
    assert lease is not None
    begun = monotonic_s()
    fill(store.state, folder / "copy.features", lambda: None)
    return {
        "transactions": n,
        "rebuild_per_s": round(n / wall),
        "server_us_per_tx": round(server / n * 1e6, 1),
        "client_us_per_tx": round(own / n * 1e6, 1),
        "keys": taken.keys,
        "snapshot_bytes": taken.bytes,
        "snapshot_pause_s": taken.pause_s,
        "restore_s": round(monotonic_s() - begun, 2),
    }


if __name__ == "__main__":
    main()
