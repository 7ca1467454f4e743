"""The floor of the pipeline: read, produce as much, commit exactly once; no decoding, features or model.

Run as a process of its own: `python -m verify.bench.floor SETTINGS-AS-JSON [TOPIC]`, which writes to `scores`
or to another topic of the environment.
"""

import sys

import msgspec
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

from fraudstream.clients.gather import gather
from fraudstream.clients.kafka import init_transactions, transactional_producer, worker_consumer
from fraudstream.core.settings import Settings
from fraudstream.core.topics import topic_name

GROUP = "floor.scorer"
SCORE_BYTES = 690
"""A score of the nine features is as long."""


def main() -> None:
    """Read the environment's transactions to the end of time; whoever started this ends it."""
    settings = msgspec.json.decode(sys.argv[1], type=Settings)
    source = topic_name(settings.environment, "transactions")
    target = topic_name(settings.environment, *(sys.argv[2:] or ["scores"]))
    consumer = worker_consumer(settings, group=GROUP, slot=0)
    producer = transactional_producer(settings, transactional_id="floor.0")
    init_transactions(producer, 20.0)
    consumer.subscribe([source], on_assign=_from_the_beginning)
    while True:
        found = gather(
            consumer,
            lambda: settings.batch_max_records,
            wait_s=settings.batch_max_wait_ms / 1000,
        )
        messages = [each for each in found if each.error() is None]
        if not messages:
            continue
        producer.begin_transaction()
        ends: dict[int, int] = {}
        for message in messages:
            value = (message.value() or b"").ljust(SCORE_BYTES)
            producer.produce(target, value, message.key())
            ends[message.partition() or 0] = (message.offset() or 0) + 1
        places = [TopicPartition(source, partition, end) for partition, end in ends.items()]
        producer.send_offsets_to_transaction(places, consumer.consumer_group_metadata(), 10.0)
        producer.commit_transaction(10.0)


def _from_the_beginning(consumer: Consumer, partitions: list[TopicPartition]) -> None:
    for place in partitions:
        place.offset = OFFSET_BEGINNING
    consumer.assign(partitions)


if __name__ == "__main__":
    main()
