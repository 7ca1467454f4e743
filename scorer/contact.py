"""Ends a worker whose Kafka client has lost its broker for good, though that answers everybody else.

A broker that is alone and was away for longer than its session tells for a moment that there are no brokers.
librdkafka 2.10 and later then forgets the one it knows and asks nobody any more (confluentinc/librdkafka
#5301): the worker would stand idle until somebody starts it again. Its end is harmless at any point.
"""

import logging
import os
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from msgspec import Struct

from fraudstream.clients.kafka import common
from fraudstream.core.settings import Settings

logger = logging.getLogger(__name__)

EACH_S = 1.0
ANSWER_S = 1.0
FAILING_LOOKS = 3
"""After so many in a row without an answer a new client asks as well: one that reconnects is done by then."""
AGREEING_LOOKS = 5
"""So many times in a row that one must be answered, and this worker not. Looks are counted, not seconds: a
process that was frozen has lost nothing yet."""


class Watched(Struct, frozen=True):
    """A consumer, and where to ask it for the end of a log; `gate` is held meanwhile.

    Other calls of that consumer wait for the answer (confluent-kafka 2.16), which may come only after the
    fetch that is there already.
    """

    consumer: Consumer
    place: TopicPartition
    gate: AbstractContextManager[object] = nullcontext()


class Contact:
    """Watches over consumers in a thread of its own, which asks each for the ends of a log; use it `with`."""

    def __init__(
        self,
        watched: Sequence[Watched],
        answers_others: Callable[[], bool],
        lost: Callable[[], None],
    ) -> None:
        self._watched = watched
        self._answers_others = answers_others
        self._lost = lost
        self._failing = self._agreeing = 0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="contact", daemon=True)

    def __enter__(self) -> None:
        """Look each second from now on."""
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        """Look no more, so that the consumers may be closed."""
        self._stopped.set()
        self._thread.join()

    def look(self) -> None:
        """Look once; call `lost` when it is certain."""
        if all(_answers(each) for each in self._watched):
            self._failing = self._agreeing = 0
            return
        self._failing += 1
        if self._failing > FAILING_LOOKS:
            self._agreeing = self._agreeing + 1 if self._answers_others() else 0
        if self._agreeing >= AGREEING_LOOKS:
            self._lost()

    def _watch(self) -> None:
        while not self._stopped.wait(EACH_S):
            self.look()


def answers_new_client(settings: Settings) -> bool:
    """Return whether a client made for the purpose is told of a broker."""
    try:
        admin = AdminClient(common(settings) | {"log_level": 0})
        return bool(admin.list_topics(timeout=ANSWER_S).brokers)
    except KafkaException:
        return False


def end_at_once() -> None:
    """End the process: what is in hand is read again by the next one."""
    logger.critical(
        "Kafka answers, but the client of this worker has lost it for good (librdkafka #5301): this worker "
        "ends at once, what it had in hand is read again; start it again"
    )
    os._exit(1)


def _answers(watched: Watched) -> bool:
    try:
        with watched.gate:
            watched.consumer.get_watermark_offsets(watched.place, timeout=ANSWER_S)
    except KafkaException:
        return False
    return True
