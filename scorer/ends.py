"""Where partitions end, asked of Kafka beside the worker's consumer, which knows it of fetched ones only."""

import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, wait
from contextlib import suppress

from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import ListOffsetsResultInfo  # type: ignore[attr-defined]

from fraudstream.clients.asking import Asking
from fraudstream.clients.log_bounds import LATEST, offset_of
from fraudstream.core.settings import Settings

ANSWER_S = 0.5
"""An answer is waited for so long: the page that wants it is to come while Kafka is away or slow, too."""


class Ends:
    """The ends of a topic's partitions, as they are now or as they were last told. Thread-safe.

    Not asked of the consumer: its calls wait for each other, those that only look as well
    (confluent-kafka 2.16), so that whoever asks it would wait for records that do not come.
    """

    def __init__(self, settings: Settings, topic: str) -> None:
        self._asking = Asking(settings, log_level=0)
        self._timeout_s = settings.request_timeout_ms / 1000
        self._topic = topic
        self._turn = threading.Lock()
        self._asked: Mapping[TopicPartition, Future[ListOffsetsResultInfo]] = {}
        """The question that is on its way; who asks next takes a late answer up, and asks anew."""
        self._known: dict[int, int] = {}

    def now(self, partitions: Iterable[int]) -> dict[int, int]:
        """Return the end of each partition, after some `ANSWER_S` at most; one never told is left out."""
        wanted = list(partitions)
        with self._turn:
            self._take()
            if wanted and not self._asked:
                places = [TopicPartition(self._topic, each) for each in wanted]
                self._asked = self._asking.client.list_offsets(
                    dict.fromkeys(places, LATEST), request_timeout=self._timeout_s
                )
            wait(self._asked.values(), ANSWER_S)
            self._take()
            return {each: self._known[each] for each in wanted if each in self._known}

    def _take(self) -> None:
        """Take what has been answered; where a partition was not, a new client asks next.

        The old one may have lost its broker for good, or bring an old leader epoch for ever.
        """
        over = {place: answer for place, answer in self._asked.items() if answer.done()}
        told: dict[int, int] = {}
        for place, answer in over.items():
            with suppress(KafkaException):
                told[place.partition] = offset_of(answer)
        self._known |= told
        if len(over) == len(self._asked):
            self._asked = {}
            if len(told) < len(over):
                self._asking.renew()
