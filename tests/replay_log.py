"""What a replay left in the topics, read back by kafka-python, and what must hold of it."""

import time
from bisect import bisect_right
from collections import Counter, defaultdict
from typing import Any

import msgspec
from kafka import KafkaConsumer, TopicPartition

from fraudstream.core.settings import Settings
from fraudstream.core.topics import topic_name
from fraudstream.core.transaction import decode_feedback, decode_transaction


class Read(msgspec.Struct, frozen=True):
    """One record as an outsider sees it."""

    partition: int
    offset: int
    key: bytes
    value: bytes
    headers: dict[str, str]

    @property
    def row(self) -> int:
        return int(self.headers["row"])


def read_all(settings: Settings, topic: str) -> list[Read]:
    """Return every committed record of a topic of the environment, partition after partition."""
    name = topic_name(settings.environment, topic)
    consumer = KafkaConsumer(
        bootstrap_servers=settings.kafka_bootstrap,
        isolation_level="read_committed",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
    )
    try:
        places = [TopicPartition(name, p) for p in sorted(consumer.partitions_for_topic(name))]
        ends = consumer.end_offsets(places)
        consumer.assign(places)
        found: list[Any] = []
        deadline = time.monotonic() + 30
        while any(consumer.position(place) < ends[place] for place in places):
            assert time.monotonic() < deadline, "the topic could not be read to its end"
            for records in consumer.poll(timeout_ms=500).values():
                found.extend(records)
    finally:
        consumer.close()
    found.sort(key=lambda record: (record.partition, record.offset))
    return [
        Read(r.partition, r.offset, r.key, r.value, {k: v.decode() for k, v in r.headers})
        for r in found
    ]


def rows_by_partition(records: list[Read]) -> dict[int, list[int]]:
    rows: dict[int, list[int]] = defaultdict(list)
    for record in records:
        rows[record.partition].append(record.row)
    return dict(rows)


def assert_each_row_once_in_order(records: list[Read], rows: range) -> None:
    for of_partition in rows_by_partition(records).values():
        assert of_partition == sorted(of_partition)
    assert Counter(record.row for record in records) == Counter(rows)


def assert_labels_precede(settings: Settings, records: list[Read]) -> int:
    """All labels known by a transaction's time stand up to its `after_feedback`; return how many have any."""
    labels = read_all(settings, "feedback")
    known = [(decode_feedback(r.value).labelled_at_ms, r.offset) for r in labels]
    assert known == sorted(known)
    assert len({(r.row, r.headers.get("pass")) for r in labels}) == len(labels)
    needing = 0
    for record in records:
        moment = decode_transaction(record.value).event_time_ms
        needed = bisect_right(known, (moment, 2**62))
        after = int(record.headers.get("after_feedback", -1))
        assert after < len(labels)
        assert not needed or after >= known[needed - 1][1]
        needing += bool(needed)
    return needing
