"""Where partitions begin and end, asked of all at once on a connection of its own.

On the connection of a consumer each such question waits behind the fetch that is there already, for up to
`fetch.wait.max.ms`: eight partitions without new records took 0.75 s (docs/adr/0028).
"""

from collections.abc import Sequence
from concurrent.futures import Future

from confluent_kafka import IsolationLevel, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    ListOffsetsResultInfo,
    OffsetSpec,
)

from fraudstream.clients.kafka import answered, common
from fraudstream.core.settings import Settings

EARLIEST: OffsetSpec = OffsetSpec.earliest()  # type: ignore[no-untyped-call]
LATEST: OffsetSpec = OffsetSpec.latest()  # type: ignore[no-untyped-call]


class LogBounds:
    """A client that asks for the ends of partitions. Not thread-safe."""

    def __init__(self, settings: Settings) -> None:
        self._config = common(settings)
        self._client: AdminClient | None = None
        """One that has had an answer: a question for partitions that meets a connection just being made is
        put off for 1 or 3 s by librdkafka (docs/adr/0033)."""

    def ask(
        self, partitions: Sequence[TopicPartition], *, timeout_s: float
    ) -> list[tuple[int, int]]:
        """Return of each the first offset and the end for who reads committed records only.

        Raises:
            KafkaException: the broker does not tell all within `timeout_s`, or not yet; ask again.
        """
        places = [TopicPartition(each.topic, each.partition) for each in partitions]
        committed = IsolationLevel.READ_COMMITTED
        first, end = self._asked(places, (EARLIEST, LATEST), committed, timeout_s)
        return list(zip(first, end, strict=True))

    def written(self, partitions: Sequence[TopicPartition], *, timeout_s: float) -> list[int]:
        """Return the end of each, records of transactions included that are still open.

        Raises:
            KafkaException: as `ask` does.
        """
        return self._asked(partitions, (LATEST,), IsolationLevel.READ_UNCOMMITTED, timeout_s)[0]

    def readable(self, partitions: Sequence[TopicPartition], *, timeout_s: float) -> list[int]:
        """Return the end of each for who reads committed records only.

        Raises:
            KafkaException: as `ask` does.
        """
        return self._asked(partitions, (LATEST,), IsolationLevel.READ_COMMITTED, timeout_s)[0]

    def _asked(
        self,
        places: Sequence[TopicPartition],
        specs: Sequence[OffsetSpec],
        isolation: IsolationLevel,
        timeout_s: float,
    ) -> list[list[int]]:
        """Return for each question the offsets of all places."""
        try:
            self._client = self._client or answered(self._config, timeout_s)
            asked = [
                self._client.list_offsets(
                    dict.fromkeys(places, spec),
                    isolation_level=isolation,
                    request_timeout=timeout_s,
                )
                for spec in specs
            ]
            return [[offset_of(answers[each]) for each in places] for answers in asked]
        except KafkaException:
            # Also where a broker said no: this client would bring the same old leader epoch for ever.
            self._client = None
            raise


def offset_of(answer: "Future[ListOffsetsResultInfo]") -> int:
    """Return an offset.

    Raises:
        KafkaException: it did not come; librdkafka may also answer with a negative number then.
    """
    offset = int(answer.result().offset)
    if offset < 0:
        raise KafkaException(KafkaError(KafkaError._TIMED_OUT))  # noqa: SLF001
    return offset
