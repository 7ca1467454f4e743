"""How fast two workers go through a history whose partitions must stay together, and what a pause costs.

    .venv/bin/python -m benchmarks.catch_up --rounds 5

Starts a stack of its own. `pause_s`: seconds from the end of a pause of all partitions to the first record,
as a worker ends it and, beside it, by the client's `resume` alone. `catch_up_tx_per_s`: transactions a second
from the first commits to the last, of one worker and of two, on the same days of the generator's history in
turn. They pause partitions, since none may be further ahead of the slowest than the label delay allows.
"""

import argparse
import json
import statistics
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from confluent_kafka import Consumer, Producer

from fraudstream.clients.clock import monotonic_s
from fraudstream.clients.kafka import TopicFacts, worker_consumer
from fraudstream.clients.log_bounds import LogBounds
from fraudstream.clients.topic_admin import create_topics
from fraudstream.core.settings import Settings
from fraudstream.core.topics import topic_name
from fraudstream.stack import embedded
from fraudstream.stack.addresses import with_addresses
from producer.generator import make_parameters, source
from producer.pace import Unpaced
from producer.replay import ReplayPlan, replay_table
from scorer.assignment import Assignment, group_name
from scorer.lost_marks import LostMarks
from verify.bench.rate import Watched, timed
from verify.demo.children import Children

TOPICS_MS = 20_000
DAYS = 40
PAUSES = 12


def main() -> None:
    """Run the benchmark and print its figures as one JSON object."""
    arguments = argparse.ArgumentParser(description=main.__doc__)
    arguments.add_argument("--rounds", type=int, default=5)
    rounds = arguments.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        bare = Settings(state_dir=folder, environment="bench")
        try:
            embedded.up(bare)
            settings = with_addresses(bare)
            rates = [
                catch_up(settings, workers, seed) for seed in range(rounds) for workers in (1, 2)
            ]
            figures = {
                "pause_s": {
                    "worker": pause(settings, wakes=True),
                    "resume": pause(settings, wakes=False),
                },
                "catch_up_tx_per_s": {
                    "one_worker": statistics.median(rates[::2]),
                    "two_workers": statistics.median(rates[1::2]),
                    "each": {"one_worker": rates[::2], "two_workers": rates[1::2]},
                },
            }
            print(json.dumps(figures, indent=2))
        finally:
            embedded.down(bare, wipe=True)


def catch_up(settings: Settings, workers: int, seed: int) -> int:
    """Return the rate of so many workers on a history of their own."""
    own = msgspec.structs.replace(settings, environment=f"bench{seed}-{workers}")
    create_topics(own.kafka_bootstrap, own.environment, own.partitions, timeout_ms=TOPICS_MS)
    history = source(
        make_parameters({"customers": 1_000, "terminals": 2_000, "days": DAYS, "seed": seed})
    )
    replay_table(own, history, ReplayPlan(pace=Unpaced(), client="confluent"))
    with Children(own, Path(own.state_dir) / own.environment, bars=False) as children:
        for number in range(workers):
            children.start(f"scorer-{number}", "scorer")
        return timed(own, Watched(group_name(own), "scorer", children.check)).tx_per_s


def pause(settings: Settings, *, wakes: bool) -> dict[str, float]:
    """Pause everything again and again, each time a little longer; a record waits when that ends."""
    own = msgspec.structs.replace(settings, environment=f"pause-{wakes}".lower())
    create_topics(own.kafka_bootstrap, own.environment, own.partitions, timeout_ms=TOPICS_MS)
    name = topic_name(own.environment, "transactions")
    producer = Producer({"bootstrap.servers": own.kafka_bootstrap, "linger.ms": 0})
    seconds = []
    with reading(own, name) as (consumer, assignment):
        producer.produce(name, b"{}", partition=0)
        producer.flush()
        while consumer.poll(0.1) is None:
            pass
        for number in range(PAUSES):
            places = consumer.assignment()
            consumer.pause(places)
            until_s = monotonic_s() + 1 + number / PAUSES
            while monotonic_s() < until_s:
                consumer.poll(0.02)
            producer.produce(name, b"{}", partition=0)
            producer.flush()
            begun_s = monotonic_s()
            consumer.resume(places)
            if wakes:
                assignment.wake(assignment.positions)
            while consumer.poll(0.01) is None:
                pass
            seconds.append(monotonic_s() - begun_s)
    return {"median": round(statistics.median(seconds), 3), "most": round(max(seconds), 3)}


@contextmanager
def reading(settings: Settings, name: str) -> Iterator[tuple[Consumer, Assignment]]:
    """Yield what a worker reads with, once it has all partitions."""
    group = group_name(settings)
    consumer = worker_consumer(settings, group=group, slot=0)
    lost_marks = LostMarks(settings, group, 0, settings.partitions)
    topic = TopicFacts(name, "id", settings.partitions)
    assignment = Assignment(consumer, topic, lost_marks, LogBounds(settings))
    try:
        assignment.subscribe()
        while len(assignment.positions) < settings.partitions:
            consumer.poll(0.1)
        yield consumer, assignment
    finally:
        consumer.close()


if __name__ == "__main__":
    main()
