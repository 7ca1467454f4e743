"""How long a new Kafka client takes to tell where partitions end: asked at once, or once it is connected.

    .venv/bin/python -m benchmarks.first_question --rounds 150 --busy 3

Starts a stack of its own. In each round one client of either kind is made and asked for the ends of eight
partitions, beside processes that take the machine's cores for random moments: librdkafka puts the
question off where it meets a connection that is just being made (docs/adr/0033).
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from fraudstream.clients.clock import monotonic_s
from fraudstream.clients.kafka import common
from fraudstream.clients.log_bounds import LATEST, LogBounds
from fraudstream.clients.topic_admin import create_topics
from fraudstream.clients.topic_log import TopicReader
from fraudstream.core.settings import Settings
from fraudstream.core.topics import topic_name
from fraudstream.stack import embedded
from fraudstream.stack.addresses import with_addresses

TIMEOUT_S = 30.0
PARTITIONS = 8
BUSY = """
import random, time
while True:
    until = time.monotonic() + random.random() / 2
    while time.monotonic() < until:
        pass
    time.sleep(random.random() / 3)
"""


def main() -> None:
    """Run the benchmark and print its figures as one JSON object."""
    arguments = argparse.ArgumentParser(description=main.__doc__)
    arguments.add_argument("--rounds", type=int, default=150)
    arguments.add_argument("--busy", type=int, default=3, help="processes beside it")
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bare = Settings(state_dir=folder, environment="bench", partitions=PARTITIONS)
        try:
            embedded.up(bare)
            settings = with_addresses(bare)
            create_topics(
                settings.kafka_bootstrap, settings.environment, PARTITIONS, timeout_ms=20_000
            )
            with beside(given.busy):
                print(json.dumps(measure(settings, given.rounds), indent=2))
        finally:
            embedded.down(bare, wipe=True)


def measure(settings: Settings, rounds: int) -> dict[str, dict[str, float]]:
    """Return milliseconds from making a client to its first answer, by when it was asked."""
    topic = topic_name(settings.environment, "transactions")
    with TopicReader(settings) as reader:
        places = [TopicPartition(topic, each) for each in reader.bounds(topic)]  # all have leaders
    ways: dict[str, Callable[[], None]] = {
        "at_once": lambda: _ask_at_once(settings, places),
        "connected_first": lambda: _ask_connected(settings, places),
    }
    took_ms: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, ask in ways.items():
            begun_s = monotonic_s()
            ask()
            took_ms[name].append((monotonic_s() - begun_s) * 1000)
    return {
        name: {
            "median_ms": round(statistics.median(found), 1),
            "p90_ms": round(statistics.quantiles(found, n=10)[-1], 1),
            "most_ms": round(max(found), 1),
            "over_half_a_second": sum(each > 500 for each in found),
            "of": rounds,
        }
        for name, found in took_ms.items()
    }


def _ask_at_once(settings: Settings, places: list[TopicPartition]) -> None:
    client = AdminClient(common(settings))
    asked = client.list_offsets(dict.fromkeys(places, LATEST), request_timeout=TIMEOUT_S)
    for answer in asked.values():
        answer.result()


def _ask_connected(settings: Settings, places: list[TopicPartition]) -> None:
    LogBounds(settings).written(places, timeout_s=TIMEOUT_S)


@contextmanager
def beside(number: int) -> Iterator[None]:
    """Keep so many processes busy for the length of the block."""
    busy = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(number)]
    try:
        yield
    finally:
        for each in busy:
            each.kill()
            each.wait()


if __name__ == "__main__":
    main()
