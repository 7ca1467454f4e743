"""How fast the features are rebuilt from the log, how long a snapshot halts scoring, what a restore takes.

    .venv/bin/python -m benchmarks.rebuild [--days 62] [--json FILE]

Starts a stack of its own (about a minute in all), sends the generator's stream, and rebuilds an empty state
as a worker does. CPU time of the server is from INFO, that of this process from its own clock: on a busy
machine they say more than the rates.
"""

import argparse
import json
import tempfile
from pathlib import Path

import msgspec
from redis import Redis

from fraudstream.clients.clock import monotonic_s, now_ms
from fraudstream.clients.feature_snapshot import fill, take_snapshot
from fraudstream.clients.feature_state import Lease
from fraudstream.core.settings import Settings
from verify.bench.rebuild import log_of, rebuild_all


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
    store, rebuild = rebuild_all(settings)
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
        "rebuild": msgspec.structs.asdict(rebuild),
        "keys": taken.keys,
        "snapshot_bytes": taken.bytes,
        "snapshot_pause_s": taken.pause_s,
        "restore_s": round(monotonic_s() - begun, 2),
    }


if __name__ == "__main__":
    main()
