"""Which partitions of a worker are held, told by what it has read; a stand-in plays the broker."""

from types import SimpleNamespace
from typing import Any, cast

from confluent_kafka import Consumer, TopicPartition

from fraudstream.clients.kafka import TopicFacts
from fraudstream.core.feature_set import DAY_MS
from fraudstream.core.transaction import Entities, Transaction
from scorer.assignment import Assignment
from scorer.batch import Batch, Part
from scorer.evenness import MOST_REST_S, Evenness
from scorer.neighbours import Neighbours, Note, write_note
from tests.unit.test_neighbours import Worker

UNASKED: Any = None
NOW_MS = 1_700_000_000_000
LEAD_MS = 2 * DAY_MS


class Log:
    """A consumer whose partitions always have more to read."""

    def __init__(self) -> None:
        self.paused: set[int] = set()
        self.sought: dict[int, int] = {}
        self.end = 1_000

    def get_watermark_offsets(self, _place: TopicPartition, *, cached: bool) -> tuple[int, int]:
        assert cached
        return 0, self.end

    def pause(self, places: list[TopicPartition]) -> None:
        self.paused |= {each.partition for each in places}

    def resume(self, places: list[TopicPartition]) -> None:
        self.paused -= {each.partition for each in places}

    def position(self, places: list[TopicPartition]) -> list[TopicPartition]:
        return [TopicPartition(each.topic, each.partition, 7) for each in places]

    def seek(self, place: TopicPartition) -> None:
        self.sought[place.partition] = place.offset


class Reader:
    """A worker that owns both partitions of a topic."""

    def __init__(self, neighbours: Neighbours | None = None) -> None:
        self.log = Log()
        consumer = cast("Consumer", self.log)
        self.assignment = Assignment(consumer, TopicFacts("topic", "id", 2), UNASKED, UNASKED)
        self.assignment.positions, self.assignment.generation = {0: 0, 1: 0}, 1
        self.evenness = Evenness(consumer, "topic", LEAD_MS, neighbours or Worker().neighbours)

    def read(self, times: dict[int, int], now_s: float = 1.0) -> set[int]:
        """Read a transaction a partition with these event times; return the partitions that are held."""
        parts = [
            Part(partition, 0, 1, [], [transaction(time_ms)])
            for partition, time_ms in times.items()
        ]
        self.evenness.look(Batch(parts, [], -1, NOW_MS), self.assignment, now_s)
        return self.log.paused


def transaction(event_time_ms: int) -> Transaction:
    return Transaction(1, "id", event_time_ms, "purchase", 100, "EUR", Entities("c", "t"))


def test_a_partition_too_far_ahead_is_held_until_it_is_half_as_far() -> None:
    reader = Reader()
    begin = NOW_MS - 9 * DAY_MS
    assert reader.read({0: begin, 1: begin + 3 * DAY_MS}) == {1}
    assert reader.read({0: begin + DAY_MS}) == {1}
    assert reader.read({0: begin + 2 * DAY_MS}) == set()


def test_where_all_were_held_those_that_go_on_are_fetched_at_once() -> None:
    slowest = [NOW_MS - 9 * DAY_MS]
    neighbours = SimpleNamespace(
        forget=lambda: None, look=lambda *_, **__: None, hold_at=lambda: slowest
    )
    reader = Reader(cast("Neighbours", neighbours))
    reader.read({0: slowest[0] + 3 * DAY_MS, 1: slowest[0] + 4 * DAY_MS})
    assert reader.evenness.rests, "a short hold throws away nothing that was fetched"
    assert reader.read({}, now_s=1.0 + MOST_REST_S) == {0, 1}
    slowest[0] += 3 * DAY_MS // 2 + DAY_MS
    assert reader.read({}, now_s=2.0) == {1}
    assert reader.log.sought == {0: 7}
    slowest[0] += DAY_MS
    assert reader.read({}, now_s=3.0) == set()
    assert reader.log.sought == {0: 7}, "of others something was fetched all along"


def test_a_late_transaction_holds_nobody() -> None:
    reader = Reader()
    reader.read({0: NOW_MS, 1: NOW_MS})
    assert reader.read({0: NOW_MS - 5 * DAY_MS}) == set()


def test_a_transaction_of_a_year_to_come_does_not_hold_its_partition() -> None:
    assert Reader().read({0: NOW_MS - DAY_MS, 1: NOW_MS + 300 * DAY_MS}) == set()


def test_what_was_read_and_not_committed_does_not_count() -> None:
    reader = Reader()
    begin = NOW_MS - 9 * DAY_MS
    assert reader.read({0: begin, 1: begin + 3 * DAY_MS}) == {1}
    reader.assignment.notes = {1: write_note(Note(begin))}
    assert reader.read({}) == set()
