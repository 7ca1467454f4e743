"""Back-pressure: while a server or the features are waited for, partitions are paused, membership kept."""

import logging
import threading
from collections.abc import Callable, Iterable
from typing import TypeVar, cast

from confluent_kafka import Consumer, KafkaError, KafkaException
from confluent_kafka import Message as KafkaMessage

from fraudstream.clients.clock import monotonic_s
from fraudstream.core.errors import DependencyUnreachable, FraudstreamError, Refused
from scorer.assignment import WAYS_OUT, Assignment
from scorer.batch import Message
from scorer.output import fenced
from scorer.same_topics import SILENT_S
from scorer.status import Status

logger = logging.getLogger(__name__)
T = TypeVar("T")

STOOD_STILL = KafkaError._MAX_POLL_EXCEEDED  # noqa: SLF001 - for max.poll.interval.ms: 5 min
MOST_BACK_OFF_S = 0.2
PATIENCE_S = 120.0
"""How long a server that does not answer is waited for before the worker gives up."""


class Abandoned(FraudstreamError):
    """The batch in hand is not this worker's any more, or it is asked to stop: nothing was emitted."""


class Failing:
    """How long batches have been failing one after the other; success, or a long calm, ends that."""

    def __init__(self) -> None:
        self._since_s: float | None = None
        self._last_s = 0.0

    def over(self) -> None:
        """Take note that something succeeded."""
        self._since_s = None

    def for_s(self, now_s: float) -> float:
        """Take note of one more failure; return the seconds since the first of them."""
        if self._since_s is None or now_s - self._last_s > PATIENCE_S:
            self._since_s = now_s
        self._last_s = now_s
        return now_s - self._since_s


class Waiting:
    """How one worker waits; `stopping` ends every wait. `resumed` is called when all partitions go on.

    `kafka_silent` tells whether Kafka has not answered for a while.
    """

    def __init__(
        self,
        consumer: Consumer,
        assignment: Assignment,
        *,
        status: Status,
        stopping: threading.Event,
        resumed: Callable[[], None],
        kafka_silent: Callable[[], bool],
    ) -> None:
        self._consumer = consumer
        self._assignment = assignment
        self._status = status
        self._stopping = stopping
        self._resumed = resumed
        self._kafka_silent = kafka_silent
        self._heard_s = 0.0

    def patiently(self, call: Callable[[], T]) -> T:
        """Repeat `call` while a server is away, with a bounded back-off.

        Raises:
            Abandoned: the worker stops, or its partitions changed meanwhile.
            DependencyUnreachable: the server was away for longer than `PATIENCE_S`.
        """
        self._heard_s = monotonic_s()
        back_off_s, paused = 0.05, False
        generation = self._assignment.generation
        while True:
            try:
                result = call()
            except DependencyUnreachable as exc:
                if monotonic_s() > self._heard_s + PATIENCE_S:
                    raise
                if self._status.state != "waiting":
                    logger.warning("%s; partitions are paused", exc)
                self._status.wait_for(exc.what)
                paused = True
                self._pause(back_off_s)
                back_off_s = min(back_off_s * 2, MOST_BACK_OFF_S)
            else:
                if paused and generation == self._assignment.generation:
                    self._assignment.wake(self._assignment.positions)
                self._answered()
                return result

    def keep(self, seconds: float) -> None:
        """Wait for the feature state while the servers answer, whatever becomes of the partitions.

        They are paused, and those that come meanwhile, until `go_on`; then the worker must go back to
        what is committed.

        Raises:
            Abandoned: the worker stops.
        """
        self._heard_s = monotonic_s()
        self._consumer.pause(self._consumer.assignment())
        self._stopping.wait(seconds)
        self._poll()
        if self._stopping.is_set():
            raise Abandoned("asked to stop while the features were waited for")

    def go_on(self) -> None:
        """End the pause that `keep` began."""
        self._consumer.resume(self._consumer.assignment())
        self._resumed()

    def _answered(self) -> None:
        """Be ready, unless it is Kafka that does not answer: without records nothing else would tell."""
        if not self._kafka_silent():
            self._status.go_on(owns=bool(self._assignment.positions))
            return
        if self._status.waiting_for != "kafka":
            logger.warning("Kafka has not answered for %.0f s; it is waited for", SILENT_S)
        self._status.wait_for("kafka")

    def _pause(self, seconds: float) -> None:
        generation = self._assignment.generation
        owned = self._consumer.assignment()
        self._consumer.pause(owned)
        self._stopping.wait(seconds)
        self._poll()
        # Before anything else: a pause outlives the assignment in which it was asked for.
        self._consumer.resume(owned)
        self._resumed()
        if generation != self._assignment.generation:
            raise Abandoned("the partitions changed while a server was away")
        if self._stopping.is_set():
            raise Abandoned("asked to stop while a server was away")

    def _poll(self) -> None:
        self._status.move()
        message = self._consumer.poll(0.0)
        error = None if message is None else message.error()
        if error is not None:
            raise_for(error)


def sound(found: Iterable[KafkaMessage]) -> list[Message]:
    """Return the messages among what a consumer gives, in order.

    Raises:
        Refused, KafkaException: an error among them means so; see `raise_for`.
    """
    messages = []
    for each in found:
        error = each.error()
        if error is None:
            messages.append(each)
        else:
            raise_for(error)
    return cast("list[Message]", messages)


def raise_for(error: KafkaError) -> None:
    """Raise what an error of the consumer means for the worker; what passes by itself is only logged.

    Raises:
        Refused: an offset is gone.
        Fenced: another process has the slot.
    """
    if error.code() == KafkaError._AUTO_OFFSET_RESET:  # noqa: SLF001
        raise Refused(f"an offset to read is gone from the log ({error.str()}); {WAYS_OUT}")
    if error.fatal() or error.code() == KafkaError._FATAL:  # noqa: SLF001
        raise fenced(error)
    if error.code() == STOOD_STILL:
        logger.warning(
            "this worker stood still for too long (%s), its partitions may be another's: it joins again",
            error.str(),
        )
        return
    if not error.retriable() and error.code() != KafkaError._TRANSPORT:  # noqa: SLF001
        raise KafkaException(error)
    logger.warning("Kafka: %s", error.str())
