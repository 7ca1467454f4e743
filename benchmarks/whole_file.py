"""A whole file through Kafka, Redis and the scorer, unpaced: what is lost, how fast, and what limits it.

    .venv/bin/python -m benchmarks.whole_file --data handbook.parquet --workers 1

Starts a stack of its own, sends all transactions and labels, lets the workers log their features, counts
by position with another client, and gives the CPU of each process by transaction and as a share of a
core. Beside it, in the same run, the floor: the same records read with the same client, nothing done.
"""

import argparse
import json
import math
import re
import socket
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

from fraudstream.clients.clock import monotonic_s
from fraudstream.clients.kafka import reader
from fraudstream.clients.kafka_producers import Outgoing, open_producer
from fraudstream.clients.topic_admin import create_topics
from fraudstream.core.settings import Settings
from fraudstream.core.topics import topic_name
from fraudstream.core.transaction import Feedback, encode
from fraudstream.stack import embedded
from fraudstream.stack.addresses import with_addresses
from producer.pace import Unpaced
from producer.replay import ReplayPlan, ReplayStats, replay_table
from producer.sources import Source, read_source
from verify.demo.children import Children
from verify.demo.scored import await_scored
from verify.ledger import Log, count

NAMES = {"scorer": "scorer", "valkey-server": "redis", "kafka.Kafka": "kafka"}


def main() -> None:
    """Run the benchmark and print its figures as one JSON object."""
    arguments = argparse.ArgumentParser(description=main.__doc__)
    arguments.add_argument("--data", type=Path, required=True, help="parquet or jsonl file")
    arguments.add_argument("--workers", type=int, default=1)
    values = arguments.parse_args()
    with own_stack() as settings:
        print(json.dumps(measure(settings, values.data, values.workers), indent=2))


@contextmanager
def own_stack() -> Iterator[Settings]:
    """Run servers of its own for the length of the block; nothing of them stays."""
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(state_dir=folder, environment="bench")
        try:
            embedded.up(settings)
            yield with_addresses(settings)
        finally:
            embedded.down(settings, wipe=True)


def measure(settings: Settings, data: Path, workers: int) -> dict[str, object]:
    """Send everything, score everything, count everything."""
    sent = send(settings, read_source(data))
    floor_per_s = read_only(settings, sent.sent)
    say(f"floor: read at {floor_per_s:,.0f}/s")
    web_port = free_port()
    cpu_before = cpu_seconds(settings.state_dir)
    began = monotonic_s()
    with scorers(settings, workers, web_port=web_port):
        seconds = monotonic_s() - began
        cpu_after = cpu_seconds(settings.state_dir)
        hops = seconds_by_hop(web_port)
    say(f"scored in {seconds:.0f} s; counting")
    cpu_s = {name: cpu_after[name] - cpu_before.get(name, 0.0) for name in cpu_after}
    with Log(settings) as log:
        ledger = count(log, f"{settings.environment}.scorer")
    return {
        "transactions": ledger.transactions,
        "labels": sent.labels,
        "scored": ledger.scored,
        "dead_letters": ledger.dead_letters,
        "lost": ledger.lost + ledger.waiting,
        "duplicates": ledger.duplicates,
        "workers": workers,
        "sent_per_s": sent.rate_per_s,
        "floor_read_per_s": round(floor_per_s),
        "scored_per_s": round(ledger.scored / seconds),
        "seconds": round(seconds, 1),
        "cpu_us_per_transaction": {n: round(s / ledger.scored * 1e6, 1) for n, s in cpu_s.items()},
        "share_of_a_core": {n: round(s / seconds, 2) for n, s in cpu_s.items()},
        "machine_busy": round(sum(cpu_s.values()) / seconds / (psutil.cpu_count() or 1), 2),
        "share_of_the_workers_time": {
            hop: round(s / sum(hops.values()), 2) for hop, s in hops.items()
        },
        "limited_by": limit({n: s / seconds for n, s in cpu_s.items()}, hops),
    }


def send(settings: Settings, source: Source, early: Sequence[Feedback] = ()) -> ReplayStats:
    """Make the topics, send the labels `early`, then all transactions and labels of `source`, unpaced."""
    create_topics(
        settings.kafka_bootstrap, settings.environment, settings.partitions, timeout_ms=20_000
    )
    producer = open_producer(settings, "confluent", threading.Event())
    records: list[Outgoing] = [(e.transaction_id.encode(), encode(e), 0, []) for e in early]
    producer.send(topic_name(settings.environment, "feedback"), records)
    producer.flush(math.inf)
    producer.close()
    plan = ReplayPlan(pace=Unpaced(), client="confluent", resume=False)
    sent = replay_table(settings, source, plan)
    say(f"sent {sent.sent:,} at {sent.rate_per_s:,.0f}/s")
    return sent


@contextmanager
def scorers(settings: Settings, workers: int, *, web_port: int = 0) -> Iterator[None]:
    """Start workers, wait until everything is scored, and end them after the block."""
    with Children(settings, Path(settings.state_dir) / "logs", bars=True) as children:
        for number in range(workers):
            children.start(f"scorer-{number}", "--set", f"web_port={web_port}", "scorer")
        await_scored(settings, children, worker="scorer-0")
        yield


def read_only(settings: Settings, total: int) -> float:
    """Return the transactions/s of reading the topic with the scorer's client, doing nothing with them."""
    consumer = reader(settings, group=f"{settings.environment}.floor")
    consumer.subscribe([topic_name(settings.environment, "transactions")])
    read, began = 0, None
    while read < total:
        found = consumer.consume(500, 0.5)
        began = began or (monotonic_s() if found else None)
        read += len(found)
    consumer.close()
    return total / (monotonic_s() - (began or 0.0))


def cpu_seconds(state_dir: str) -> dict[str, float]:
    """Return the CPU seconds used so far by the processes of this state folder, by name."""
    used: dict[str, float] = {}
    for process in psutil.process_iter(["cmdline", "cpu_times"]):
        line = " ".join(process.info["cmdline"] or ())
        name = next((name for part, name in NAMES.items() if part in line), None)
        if name and (state_dir in line or str(state_dir) in str(_folder(process))):
            times = process.info["cpu_times"]
            used[name] = used.get(name, 0.0) + times.user + times.system
    return used


def limit(shares: dict[str, float], hops: dict[str, float]) -> str:
    """Name what keeps it from being faster: a process whose core is full, or the hop waited for most."""
    busiest = max(shares, key=lambda name: shares[name])
    if shares[busiest] > 0.85:
        return f"the core of {busiest}"
    longest = max(hops, key=lambda hop: hops[hop])
    return f"the worker's hops come one after the other; the longest is {longest}"


def seconds_by_hop(web_port: int) -> dict[str, float]:
    """Return the seconds that the worker of slot 0 has spent in each hop."""
    with urllib.request.urlopen(f"http://127.0.0.1:{web_port}/metrics", timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    found = (
        re.match(r'fraudstream_scorer_seconds_total{hop="(\w+)"} (.*)', line) for line in lines
    )
    return {match[1]: float(match[2]) for match in found if match}


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        port: int = chosen.getsockname()[1]
        return port


def say(line: str) -> None:
    """Tell of a step on standard error."""
    print(line, file=sys.stderr)


def _folder(process: psutil.Process) -> str:
    try:
        return process.cwd()
    except psutil.Error:
        return ""


if __name__ == "__main__":
    main()
