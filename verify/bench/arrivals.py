"""Notes when each score can be read by a consumer of committed records.

Run as a process of its own: `python -m verify.bench.arrivals SETTINGS-AS-JSON FIRST COUNT FILE`. Says `ready`
when nothing can be missed any more; ends when the scores of transactions FIRST to FIRST + COUNT - 1 were
read, or nothing came for a while, and leaves the arrays in FILE.
"""

import gc
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
    gc.disable()  # what is kept grows all the time, and looking through it takes 40 ms
    settings = msgspec.json.decode(sys.argv[1], type=Settings)
    first, count = int(sys.argv[2]), int(sys.argv[3])
    consumer = scores_from_now(settings)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    found = _read(consumer, range(first, first + count))
    arrived = [score for _, score in found.values()]
    np.savez(
        Path(sys.argv[4]),
        numbers=np.array(list(found), np.int64),
        received_ns=np.array([at for at, _ in found.values()], np.int64),
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
    first = consumer.poll(0.2)
    if first is None:
        return now_ns(), []
    found = [first, *consumer.consume(MOST_AT_ONCE, 0.0)]
    at = now_ns()
    return at, [_decode(each.value() or b"") for each in found if each.error() is None]


def _read(consumer: Consumer, wanted: range) -> dict[int, tuple[int, Arrived]]:
    """Return the wanted scores by number, and when each was there first, in nanoseconds since 1970."""
    found: dict[int, tuple[int, Arrived]] = {}
    heard_s = monotonic_s()
    while len(found) < len(wanted) and monotonic_s() - heard_s < QUIET_S:
        at, scores = hear(consumer)
        if scores:
            heard_s = monotonic_s()
        for score in scores:
            number = number_of(score)
            if number in wanted:
                found.setdefault(number, (at, score))
    return found


if __name__ == "__main__":
    main()
