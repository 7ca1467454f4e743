"""What was paused goes on where it stood, whatever came before: nothing is passed over or read twice."""

import math
import random
import threading
from collections.abc import Iterator

import pytest
from confluent_kafka import Consumer, TopicPartition

from fraudstream.clients.kafka import TopicFacts, worker_consumer
from fraudstream.clients.kafka_producers import open_producer
from fraudstream.clients.log_bounds import LogBounds
from fraudstream.core.settings import Settings
from fraudstream.core.topics import topic_name
from scorer.assignment import Assignment, group_name
from scorer.batch import Message
from scorer.lost_marks import LostMarks
from scorer.waiting import sound
from tests.processes import wait_until

RECORDS = 2_000
STEPS = 60


class Reader:
    """What a worker reads with, and beside it the offsets that came, by partition."""

    def __init__(self, settings: Settings) -> None:
        name = topic_name(settings.environment, "transactions")
        group = group_name(settings)
        self.consumer: Consumer = worker_consumer(settings, group=group, slot=0)
        topic = TopicFacts(name, "id", settings.partitions)
        lost_marks = LostMarks(settings, group, 0, settings.partitions)
        self.assignment = Assignment(self.consumer, topic, lost_marks, LogBounds(settings))
        self.places = [TopicPartition(name, p) for p in range(settings.partitions)]
        self.read: dict[int, list[int]] = {each.partition: [] for each in self.places}
        self.assignment.subscribe()
        wait_until(lambda: self.take(10) > 0, timeout_s=30, what="reads")

    def take(self, most: int) -> int:
        """Read; what comes must be what is next in its partition."""
        found: list[Message] = sound(self.consumer.consume(most, 0.05))
        for each in found:
            partition, offset = each.partition(), each.offset()
            assert offset == len(self.read[partition]), "passed over, or read twice"
            self.read[partition].append(offset)
        return len(found)

    def go_back(self, partition: int, offset: int) -> None:
        """Read on from an earlier offset, as after a batch that failed."""
        self.assignment.seek(TopicPartition(self.places[partition].topic, partition, offset))
        del self.read[partition][offset:]

    def is_through(self) -> bool:
        """Read on; tell whether everything was."""
        self.take(100)
        return sum(map(len, self.read.values())) == RECORDS

    def pause_and_wake(self) -> None:
        self.consumer.pause(self.places)
        assert not sound(self.consumer.consume(10, 0.02))
        self.consumer.resume(self.places)
        self.assignment.wake(self.assignment.positions)


@pytest.fixture
def reader(topics: Settings) -> Iterator[Reader]:
    """Yield a reader of `RECORDS` records."""
    producer = open_producer(topics, "confluent", threading.Event())
    name = topic_name(topics.environment, "transactions")
    producer.send(name, [(b"%d" % i, b"%d" % i, 0, []) for i in range(RECORDS)])
    producer.flush(math.inf)
    producer.close()
    made = Reader(topics)
    yield made
    made.consumer.close()


@pytest.mark.parametrize("seed", range(3))
def test_every_record_comes_once_and_in_order_however_often_reading_is_paused(
    reader: Reader, seed: int
) -> None:
    chosen = random.Random(seed)
    for _ in range(STEPS):
        what = chosen.choice(["take", "take", "pause", "back", "both"])
        if what in ("back", "both"):
            partition = chosen.choice(list(reader.read))
            reader.go_back(partition, chosen.randint(0, len(reader.read[partition])))
        if what in ("pause", "both"):
            reader.pause_and_wake()
        reader.take(chosen.randint(1, 40))
    reader.pause_and_wake()
    wait_until(reader.is_through, timeout_s=30, what="all was read")


def test_what_was_taken_away_meanwhile_is_no_error(reader: Reader) -> None:
    reader.consumer.unassign()
    reader.assignment.wake(reader.assignment.positions)
