"""The two Kafka clients a replay sends with: both idempotent, so that a log has no gap and nothing twice.

What is in the log of a partition is at any moment a prefix of what was handed over for it. For that
no record ever expires in a client (its successors would go on without it): a broker that stays away
is noticed here, and ends the producer with what is still outstanding.
"""

import logging
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol

from confluent_kafka import KafkaError, KafkaException, Message, Producer
from kafka import KafkaProducer
from kafka.errors import KafkaError as KafkaPythonError
from kafka.producer.future import FutureRecordMetadata, RecordMetadata

from fraudstream.clients.clock import monotonic_s
from fraudstream.core.errors import FraudstreamError, KafkaUnreachable
from fraudstream.core.settings import Settings

logger = logging.getLogger(__name__)

Header = tuple[str, str | bytes | None]
Outgoing = tuple[bytes, bytes, int, list[Header]]
"""Key, value, partition, headers."""

MAX_OUTSTANDING = 100_000
BATCH_BYTES = 65_536
"""Two batches fit into what a scorer fetches of a partition at once. With librdkafka's own 1 MB a fetch
brings one batch of one partition, and a catch-up reads the partitions one after the other."""
WAIT_S = 0.05
TOLD_AFTER_S = 2.0
STOPPING_S = 4.0
"""A replay that was told to stop waits so long for a broker that is silent."""
NO_EXPIRY_MS = 2**31 - 1
PURGED = (KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT)  # noqa: SLF001


class DeliveryFailed(FraudstreamError):
    """Kafka did not take a record; nothing after it was sent to its partition."""


class RecordProducer(Protocol):
    """Sends records in order; every method raises `DeliveryFailed` once a record was not taken.

    A broker that takes nothing for `connect_timeout_ms` is a `DependencyUnreachable`.
    """

    client: str

    def silent_s(self) -> float:
        """Return for how long the broker has taken nothing of what is outstanding; any thread may ask."""

    def send(self, topic: str, records: Iterable[Outgoing]) -> None:
        """Hand over the records; waits where the broker does not keep up."""

    def send_and_wait(self, topic: str, records: list[Outgoing]) -> int:
        """Send the records, wait for them and return the offset of the last, -1 if the broker kept it."""

    def check(self) -> None:
        """Raise if a delivery failed or the broker has been silent for too long."""

    def flush(self, wait_s: float) -> int:
        """Wait until all is delivered, or so long; return the number of records outstanding."""

    def close(self) -> None:
        """Drop what is outstanding and let go."""


def open_producer(settings: Settings, client: str, stop: threading.Event) -> RecordProducer:
    """Return a producer of `client`: kafka-python or confluent. Once `stop` is set it waits for less.

    Raises:
        DependencyUnreachable: no broker answers within `connect_timeout_ms`.
    """
    silence = _Silence(settings, stop)
    if client == "confluent":
        return _Confluent(settings, silence)
    return _KafkaPython(settings, silence)


class _Silence:
    """Tells a broker that is slow from one that takes nothing any more."""

    def __init__(self, settings: Settings, stop: threading.Event) -> None:
        self._address = settings.kafka_bootstrap
        self._most_s = settings.connect_timeout_ms / 1000
        self._stop = stop
        self._delivered = 0
        self._since_s = monotonic_s()
        self._told = False
        self._waits = False

    def seconds(self) -> float:
        """Return how long nothing was delivered, if something is outstanding; any thread may ask."""
        return monotonic_s() - self._since_s if self._waits else 0.0

    def seen(self, delivered: int, outstanding: int) -> None:
        """Note the numbers of records delivered and outstanding now.

        Raises:
            DependencyUnreachable: something is outstanding, and nothing was delivered for too long.
        """
        now_s = monotonic_s()
        if not outstanding or delivered > self._delivered:
            self._delivered, self._since_s, self._told = delivered, now_s, False
            self._waits = outstanding > 0
            return
        self._waits = True
        silent_s = now_s - self._since_s
        if silent_s > TOLD_AFTER_S and not self._told:
            self._told = True
            logger.warning(
                "Kafka at %s takes nothing: waiting for it up to %.0f s (%d records outstanding)",
                self._address,
                self._most_s,
                outstanding,
            )
        if silent_s > (min(self._most_s, STOPPING_S) if self._stop.is_set() else self._most_s):
            raise KafkaUnreachable(
                f"Kafka at {self._address} took nothing for {silent_s:.0f} s with {outstanding} records"
                " outstanding: see that it runs (`fraudstream stack status`) and start again, it goes"
                " on where it stopped"
            )


class _Failures:
    """Counts what was not delivered; callbacks write, the sending thread looks."""

    def __init__(self, settings: Settings) -> None:
        self._address = settings.kafka_bootstrap
        self.count = 0
        self._first = ""

    def add(self, topic: str, partition: int, reason: str) -> None:
        """Note one record that was not delivered."""
        self.count += 1
        self._first = self._first or f"first: {topic} partition {partition}: {reason}"

    def fatal(self, reason: str) -> None:
        """Note that the client gave up, with what it holds."""
        self.count += 1
        self._first = self._first or reason

    def check(self) -> None:
        """Raise `DeliveryFailed` if there is one."""
        if self.count:
            raise self.error()

    def error(self) -> DeliveryFailed:
        """Return the error that says how many and why the first."""
        return DeliveryFailed(
            f"Kafka at {self._address} did not take {self.count:,} records ({self._first}); nothing"
            " was skipped: remove the cause and start again, it goes on where it stopped"
        )


class _Confluent:
    """librdkafka: the one for high rates. Only failures are reported, labels apart."""

    client = "confluent"

    def __init__(self, settings: Settings, silence: _Silence) -> None:
        config = _librdkafka(settings)
        self._failures = _Failures(settings)
        self._silence = silence
        quiet = {"delivery.report.only.error": True, "on_delivery": self._on_failure}
        self._producer = Producer(config | quiet)
        self._waited = Producer(config)
        self._handed_over = 0

    def silent_s(self) -> float:
        return self._silence.seconds()

    def send(self, topic: str, records: Iterable[Outgoing]) -> None:
        produce = self._producer.produce
        count = 0
        with self._translated():
            for key, value, partition, headers in records:
                count += 1
                try:
                    produce(topic, value, key, partition, headers=headers)
                except BufferError:
                    self._make_room()
                    produce(topic, value, key, partition, headers=headers)
            self._producer.poll(0)
        self._handed_over += count
        self.check()

    def send_and_wait(self, topic: str, records: list[Outgoing]) -> int:
        offsets: list[int] = []

        def on_delivery(error: KafkaError | None, message: Message) -> None:
            if error is None:
                offsets.append(message.offset() or 0)
            else:
                self._on_failure(error, message)

        with self._translated():
            for key, value, partition, headers in records:
                self._waited.produce(
                    topic, value, key, partition, headers=headers, on_delivery=on_delivery
                )
            while left := self._waited.flush(WAIT_S):
                self._failures.check()
                left += len(self._producer)
                self._silence.seen(self._handed_over + len(records) - left, left)
        self._failures.check()
        self._handed_over += len(records)
        return max(offsets[-1], -1)

    def check(self) -> None:
        self._failures.check()
        outstanding = len(self._producer)
        self._silence.seen(self._handed_over - outstanding, outstanding)

    def flush(self, wait_s: float) -> int:
        deadline_s = monotonic_s() + wait_s
        with self._translated():
            while left := self._producer.flush(WAIT_S):
                self.check()
                if monotonic_s() > deadline_s:
                    return left
        self.check()
        return 0

    def close(self) -> None:
        # A purge would count as a gap, a fatal error; what is let go is dropped without one.
        del self._producer, self._waited

    def _make_room(self) -> None:
        """Wait until a good part of the queue is free, so that the waiting is not paid per record."""
        while len(self._producer) > MAX_OUTSTANDING * 3 // 4:
            self._producer.poll(WAIT_S / 5)
            self.check()

    def _on_failure(self, error: KafkaError, message: Message) -> None:
        if error.code() not in PURGED:
            self._failures.add(message.topic() or "", message.partition() or 0, error.str())

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Turn librdkafka's fatal error (it guarantees no gap by taking nothing more) into ours."""
        try:
            yield
        except KafkaException as exc:
            if not self._failures.count:
                self._failures.fatal(exc.args[0].str())
            raise self._failures.error() from exc


class _KafkaPython:
    """kafka-python: the independent client, for rates that need no C."""

    client = "kafka-python"

    def __init__(self, settings: Settings, silence: _Silence) -> None:
        self._failures = _Failures(settings)
        self._silence = silence
        self._lock = threading.Condition()
        self._handed_over = self._delivered = 0
        timeout_ms = settings.connect_timeout_ms
        try:
            self._producer = KafkaProducer(
                bootstrap_servers=settings.kafka_bootstrap.split(","),
                client_id="fraudstream-replay",
                acks="all",
                enable_idempotence=True,
                # One request at a time: after a failure none behind it can overtake.
                max_in_flight_requests_per_connection=1,
                linger_ms=5,
                batch_size=BATCH_BYTES,
                delivery_timeout_ms=NO_EXPIRY_MS,
                request_timeout_ms=settings.request_timeout_ms,
                max_block_ms=timeout_ms,
                bootstrap_timeout_ms=timeout_ms,
                reconnect_backoff_max_ms=1_000,
                allow_auto_create_topics=False,
            )
        except KafkaPythonError as exc:
            raise KafkaUnreachable(
                f"Kafka at {settings.kafka_bootstrap} does not answer ({exc}): start it with"
                " `fraudstream stack up`, or set FRAUDSTREAM_KAFKA_BOOTSTRAP to a broker that runs"
            ) from exc

    def silent_s(self) -> float:
        return self._silence.seconds()

    def send(self, topic: str, records: Iterable[Outgoing]) -> None:
        for record in records:
            if self._handed_over - self._delivered >= MAX_OUTSTANDING // 5:
                self._wait(MAX_OUTSTANDING // 10)
            self._hand_over(topic, record)
        self.check()

    def send_and_wait(self, topic: str, records: list[Outgoing]) -> int:
        futures = [self._hand_over(topic, record) for record in records]
        self._wait(0)
        return int(futures[-1].get(timeout=0).offset)

    def check(self) -> None:
        with self._lock:
            self._failures.check()
            self._silence.seen(self._delivered, self._handed_over - self._delivered)

    def flush(self, wait_s: float) -> int:
        self._wait(0, monotonic_s() + wait_s)
        return self._handed_over - self._delivered

    def close(self) -> None:
        if self._handed_over > self._delivered:
            _force_close(self._producer)
        try:
            self._producer.close(timeout=2)
        except KafkaPythonError:
            logger.debug("kafka-python closed with records outstanding", exc_info=True)

    def _hand_over(self, topic: str, record: Outgoing) -> FutureRecordMetadata:
        key, value, partition, headers = record
        self._failures.check()
        self._handed_over += 1
        try:
            future = self._producer.send(
                topic, value=value, key=key, headers=headers, partition=partition
            )
        except KafkaPythonError as exc:
            # Where the sending thread has just ended, the record that ended it is the first reason.
            self._failures.add(topic, partition, f"{type(exc).__name__}: {exc}")
            raise self._failures.error() from exc
        future.add_callback(self._on_delivery)
        future.add_errback(self._on_failure, topic, partition)
        return future

    def _wait(self, outstanding: int, deadline_s: float = float("inf")) -> None:
        """Wait until at most so many records are outstanding."""
        while self._handed_over - self._delivered > outstanding and monotonic_s() < deadline_s:
            with self._lock:
                self._lock.wait(WAIT_S)
            self.check()
        self.check()

    def _on_delivery(self, _: RecordMetadata) -> None:
        self._delivered += 1  # only the sending thread writes it
        if self._delivered == self._handed_over:
            with self._lock:
                self._lock.notify()

    def _on_failure(self, topic: str, partition: int, reason: BaseException) -> None:
        """Stop the sending thread at once (this runs in it): nothing behind the failure goes out."""
        with self._lock:
            self._failures.add(topic, partition, f"{type(reason).__name__}: {reason}")
            self._lock.notify()
        _force_close(self._producer)


def _force_close(producer: KafkaProducer) -> None:
    """End the sending thread without sending what it holds: `close(timeout=0)` would flush first."""
    producer._sender.force_close()  # noqa: SLF001


def _librdkafka(settings: Settings) -> dict[str, object]:
    return {
        "bootstrap.servers": settings.kafka_bootstrap,
        "client.id": "fraudstream-replay",
        "log_level": 2,  # a broker that is away is told by _Silence, once
        "logger": logger,
        "enable.idempotence": True,
        "enable.gapless.guarantee": True,
        "acks": "all",
        "message.timeout.ms": 0,
        "partitioner": "murmur2_random",
        "linger.ms": 5,
        "batch.size": BATCH_BYTES,
        "queue.buffering.max.messages": MAX_OUTSTANDING,
        "reconnect.backoff.max.ms": 1_000,
        "allow.auto.create.topics": False,
    }
