"""Reading alerts: also the example for people who consume them with kafka-python.

Two things matter to any reader of `alerts`, `scores` and `dead-letters`: `isolation_level=
"read_committed"` (kafka-python's default shows records of aborted transactions, which never
happened), and committing your own offsets only after you have acted on an alert.
"""

from collections.abc import Callable, Generator, Iterable, Iterator

import msgspec
from kafka import KafkaConsumer, TopicPartition
from kafka.consumer.fetcher import ConsumerRecord
from kafka.errors import KafkaError

from fraudstream.clients.kafka_python import AWAY
from fraudstream.core.errors import FraudstreamError, KafkaUnreachable, Refused
from fraudstream.core.scores import Alert
from fraudstream.core.settings import Settings
from fraudstream.core.topics import topic_name

_decoder = msgspec.json.Decoder(Alert)


def alerts(
    settings: Settings, *, from_beginning: bool, follow: bool, on_broken: Callable[[str], None]
) -> Generator[Alert, None, None]:
    """Yield committed alerts: from now on, or from the beginning; `follow` waits for more at the end.

    A record that is no alert is left out; `on_broken` hears where it stands and what is wrong.

    Raises:
        DependencyUnreachable: no broker answers within `connect_timeout_ms`.
        Refused: the topic does not exist.
        FraudstreamError: kafka-python cannot read a record (its compression, or it is corrupt).
    """
    consumer = _connect(settings)
    try:
        places = _places(consumer, topic_name(settings.environment, "alerts"))
        ends = consumer.end_offsets(places)
        consumer.assign(places)
        if from_beginning:
            consumer.seek_to_beginning(*places)
        else:
            consumer.seek_to_end(*places)
        while follow or any(consumer.position(place) < ends[place] for place in places):
            for records in consumer.poll(timeout_ms=200).values():
                yield from _decoded(records, on_broken)
    except AWAY as exc:
        raise KafkaUnreachable(
            f"Kafka at {settings.kafka_bootstrap} does not answer any more ({type(exc).__name__}): start "
            "again when it does; `--from-beginning` shows what came meanwhile"
        ) from exc
    except KafkaError as exc:
        raise FraudstreamError(
            f"the alerts on {settings.kafka_bootstrap} cannot be read with kafka-python ({exc}): for records "
            "in lz4, snappy or zstd install the package of that codec"
        ) from exc
    finally:
        consumer.close()


def _decoded(
    records: Iterable[ConsumerRecord], on_broken: Callable[[str], None]
) -> Iterator[Alert]:
    for record in records:
        try:
            alert = _decoder.decode(record.value or b"")
        except (ValueError, RecursionError) as exc:
            place = f"{record.topic} {record.partition}:{record.offset}"
            reason = "no value" if record.value is None else str(exc)
            on_broken(f"no alert at {place} (partition:offset), left out: {reason}")
        else:
            yield alert


def _connect(settings: Settings) -> KafkaConsumer:
    try:
        return KafkaConsumer(
            bootstrap_servers=settings.kafka_bootstrap,
            isolation_level="read_committed",
            enable_auto_commit=False,
            bootstrap_timeout_ms=settings.connect_timeout_ms,
        )
    except (KafkaError, OSError) as exc:
        raise KafkaUnreachable(
            f"Kafka at {settings.kafka_bootstrap} does not answer ({type(exc).__name__}): start it "
            "with `fraudstream stack up`, or set FRAUDSTREAM_KAFKA_BOOTSTRAP"
        ) from exc


def _places(consumer: KafkaConsumer, topic: str) -> list[TopicPartition]:
    partitions = consumer.partitions_for_topic(topic)
    if not partitions:
        raise Refused(f"topic {topic} does not exist: make it with `fraudstream topics create`")
    return [TopicPartition(topic, partition) for partition in sorted(partitions)]
