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
from fraudstream.core.settings import Settings
from verify.bench.rebuild import log_of, rebuild_all


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
    with log_of(values.days) as settings, tempfile.TemporaryDirectory() as folder:
        figures = measure(settings, Path(folder))
    text = json.dumps(figures, indent=2)
    print(text)
    if values.json:
        values.json.write_text(text)


def measure(settings: Settings, folder: Path) -> dict[str, object]:
    """Rebuild an empty state from the log, copy it, flush it, and restore the copy."""
    client = Redis.from_url(settings.redis_url)
    cost = Cost(client)
    store, rebuild = rebuild_all(settings)
    _, server, own = cost.read()
    n = rebuild.transactions
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
        "rebuild_per_s": rebuild.per_s,
        "server_us_per_tx": round(server / n * 1e6, 1),
        "client_us_per_tx": round(own / n * 1e6, 1),
        "keys": taken.keys,
        "snapshot_bytes": taken.bytes,
        "snapshot_pause_s": taken.pause_s,
        "restore_s": round(monotonic_s() - begun, 2),
    }


if __name__ == "__main__":
    main()
