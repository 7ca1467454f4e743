"""Notes when each score can be read by a consumer of committed records.

Run as a process of its own: `python -m verify.bench.arrivals SETTINGS-AS-JSON FIRST COUNT FILE`. Says `ready`
when nothing can be missed any more; ends when COUNT scores were read, or nothing came for a while, and leaves
the arrays of transactions FIRST to FIRST + COUNT - 1, each once, in FILE. What is read is decoded at the end:
the reader's own work is not to be measured.
"""

import sys
from pathlib import Path

import msgspec
import numpy as np
from confluent_kafka import Consumer, TopicPartition

from fraudstream.clients.clock import monotonic_s, now_ns
from fraudstream.clients.kafka import reader
from fraudstream.core.scores import Stages
from fraudstream.core.settings import Settings
from fraudstream.core.topics import topic_name

MOST_AT_ONCE = 2_000
QUIET_S = 8.0
"""After so long without a score the rest is lost."""


class Arrived(msgspec.Struct):
    """The part of a score, or of the floor's copy of a transaction, that is looked at."""

    transaction_id: str
    source_timestamp_ms: int = 0
    age_ms: int = 0
    stages: Stages = Stages(0.0, 0.0, 0.0, 0.0)


_decode = msgspec.json.Decoder(Arrived).decode


def main() -> None:
    """Read until all wanted scores are there."""
    settings = msgspec.json.decode(sys.argv[1], type=Settings)
    first, count = int(sys.argv[2]), int(sys.argv[3])
    consumer = scores_from_now(settings)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    received_ns, values = _read(consumer, count)
    arrived = [_decode(value) for value in values]
    numbers, firsts = np.unique([number_of(each) for each in arrived], return_index=True)
    firsts = firsts[(numbers >= first) & (numbers < first + count)]
    arrived = [arrived[each] for each in firsts]
    np.savez(
        Path(sys.argv[4]),
        numbers=np.array([number_of(each) for each in arrived], np.int64),
        received_ns=np.array(received_ns, np.int64)[firsts],
        sent_ms=np.array([each.source_timestamp_ms for each in arrived], np.int64),
        age_ms=np.array([each.age_ms for each in arrived], np.int64),
        stages=np.array([msgspec.structs.astuple(each.stages) for each in arrived]),
    )


def scores_from_now(settings: Settings) -> Consumer:
    """Return a consumer of the committed scores that come from now on; its first fetches are under way."""
    consumer = reader(settings, group="bench.arrivals")
    topic = topic_name(settings.environment, "scores")
    places = [TopicPartition(topic, p) for p in range(settings.partitions)]
    for place in places:
        place.offset = consumer.get_watermark_offsets(place, timeout=10.0)[1]
    consumer.assign(places)
    consumer.poll(0.5)
    return consumer


def number_of(arrived: Arrived) -> int:
    """Return the number in an id of the benchmark's load."""
    return int(arrived.transaction_id.rpartition("-")[2])


def hear(consumer: Consumer) -> tuple[int, list[Arrived]]:
    """Return the scores that can be read within 0.2 s, and when, in nanoseconds since 1970."""
    at, values = _take(consumer)
    return at, [_decode(each) for each in values]


def _take(consumer: Consumer) -> tuple[int, list[bytes]]:
    first = consumer.poll(0.2)
    if first is None:
        return now_ns(), []
    found = [first, *consumer.consume(MOST_AT_ONCE, 0.0)]
    at = now_ns()
    return at, [each.value() or b"" for each in found if each.error() is None]


def _read(consumer: Consumer, count: int) -> tuple[list[int], list[bytes]]:
    """Return `count` scores, encoded, and when each was there, in nanoseconds since 1970."""
    received_ns: list[int] = []
    values: list[bytes] = []
    heard_s = monotonic_s()
    while len(values) < count and monotonic_s() - heard_s < QUIET_S:
        at, fresh = _take(consumer)
        if fresh:
            heard_s = monotonic_s()
        values += fresh
        received_ns += [at] * len(fresh)
    return received_ns, values


if __name__ == "__main__":
    main()
