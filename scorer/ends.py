"""Where partitions end, asked of Kafka beside the worker's consumer, which knows it of fetched ones only."""

from collections.abc import Iterable

from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]

from fraudstream.clients.kafka import Asking
from fraudstream.core.settings import Settings

LATEST: OffsetSpec = OffsetSpec.latest()  # type: ignore[no-untyped-call]
ANSWER_S = 0.5
"""An answer is waited for so long; it is wanted for a page that is to come while Kafka is away, too."""


class Ends:
    """The ends of a topic's partitions, as they are now or as they were last told.

    Not asked of the consumer: its calls wait for each other, those that only look as well
    (confluent-kafka 2.16), so that whoever asks it would wait for records that do not come.
    """

    def __init__(self, settings: Settings, topic: str) -> None:
        self._asking = Asking(settings, log_level=0)
        self._topic = topic
        self._known: dict[int, int] = {}

    def now(self, partitions: Iterable[int]) -> dict[int, int]:
        """Return the end of each partition, within `ANSWER_S`; one that was never told is left out."""
        wanted = list(partitions)
        client = self._asking.client
        try:
            self._known |= _ends(client, [TopicPartition(self._topic, each) for each in wanted])
        except KafkaException:
            self._asking.renew()
        return {each: self._known[each] for each in wanted if each in self._known}


def _ends(client: AdminClient, places: list[TopicPartition]) -> dict[int, int]:
    if not places:
        return {}
    asked = client.list_offsets(dict.fromkeys(places, LATEST), request_timeout=ANSWER_S)
    return {place.partition: int(answer.result().offset) for place, answer in asked.items()}
