"""The topic `dead-letters` read to its end, and records of it sent to `transactions` again, each once."""

from collections.abc import Iterator, Sequence

import msgspec
from confluent_kafka import KafkaError, KafkaException

from fraudstream.clients import audit_log
from fraudstream.clients.clock import monotonic_s, now_ms
from fraudstream.clients.kafka import (
    abort_transaction,
    init_transactions,
    transactional_producer,
    unreachable,
)
from fraudstream.clients.kafka_producers import PURGED
from fraudstream.clients.topic_limits import room_of, topic_limits
from fraudstream.clients.topic_log import TIMED_OUT, read_to_end, record_of
from fraudstream.core.dead_letters import (
    REPLAY,
    Letter,
    Replay,
    headers_of_replay,
    read_letter,
    replays_in,
)
from fraudstream.core.errors import FraudstreamError, KafkaUnreachable, Refused
from fraudstream.core.model import model_name
from fraudstream.core.scores import AuditEvent
from fraudstream.core.settings import Settings
from fraudstream.core.topics import topic_name
from fraudstream.core.transaction import Identifier

MOST_RECORDS = 500
MOST_BYTES = 4 * 1024 * 1024
"""Of one Kafka transaction; a single record may be larger."""
COMMIT_S = 10.0

ABORT_S = 10.0
LOOK_S = 0.1

FENCED = (
    KafkaError._FENCED,  # noqa: SLF001
    KafkaError.INVALID_PRODUCER_EPOCH,
    KafkaError.PRODUCER_FENCED,
)


def read_letters(settings: Settings) -> Iterator[Letter]:
    """Yield the dead letters of the environment as far as they are committed, in order by partition.

    Raises:
        DependencyUnreachable: no broker answers.
        Refused: the topic does not exist.
    """
    for batch in read_to_end(settings, topic_name(settings.environment, "dead-letters")):
        for record in map(record_of, batch):
            place = record.partition, record.offset
            letter = read_letter(place, record.sent_at_ms, record.key, record.value, record.headers)
            if letter is not None:
                yield letter


def read_replays(settings: Settings) -> dict[str, Replay]:
    """Return by name the dead letters that were sent again.

    Raises:
        DependencyUnreachable: no broker answers, or a Kafka transaction stays open.
    """
    return replays_in(audit_log.read_all(settings))


def most_bytes_again(settings: Settings) -> int:
    """Return the bytes that `transactions` takes of a record sent again: `room_again` must not be above.

    Raises:
        DependencyUnreachable: no broker answers.
        Refused: the topic does not exist.
    """
    return _limits(settings)["transactions"]


def room_again(letter: Letter) -> int:
    """Return the bytes that a letter's record takes when it is sent again, at most; nothing is compressed."""
    return room_of(letter.key, letter.value, headers_of_replay(letter))


class Resender:
    """Sends records again, with the note that they were in the same Kafka transaction.

    One at a time: it fences any other of the environment, and sees what that has done.
    """

    def __init__(self, settings: Settings) -> None:
        """Fence a predecessor, wait for the end of what it or a worker left open, and read what was sent.

        Raises:
            DependencyUnreachable: no broker answers, or a Kafka transaction stays open.
            Refused: a topic does not exist.
        """
        self._settings = settings
        self._refused: list[KafkaError] = []
        limits = _limits(settings)
        self.most_bytes = limits["transactions"]
        """As `most_bytes_again` says."""
        self._producer = transactional_producer(
            settings,
            transactional_id=f"{settings.environment}.dead-letters.replay",
            most_bytes=min(limits.values()),
        )
        try:
            init_transactions(self._producer, settings.connect_timeout_ms / 1000)
        except KafkaException as exc:
            raise unreachable(settings, exc) from exc
        self.sent_before = read_replays(settings)

    def send(self, letters: Sequence[Letter], *, actor: str, why: str) -> Iterator[int]:
        """Send those that were not sent before; yield the number of each Kafka transaction once it is there.

        Raises:
            Refused: another replay has begun meanwhile; it goes on, this one has ended.
            DependencyUnreachable: the broker does not answer; nothing of the transaction was sent. If it was
                being committed, it may be there or not: the next Resender ends what is open, and sees.
            FraudstreamError: the broker refuses a record; nothing of its Kafka transaction was sent.
        """
        new = [each for each in letters if each.name not in self.sent_before]
        for part in _parts(new):
            self._send(part, actor=actor, why=why)
            yield len(part)

    def _send(self, letters: Sequence[Letter], *, actor: str, why: str) -> None:
        """Send in one Kafka transaction; nothing of it stays but where Kafka is silent about its commit."""
        self._refused.clear()
        committing = False
        try:
            self._producer.begin_transaction()
            self._produce(letters, self._event(letters, actor=actor, why=why))
            self._await_delivery()
            committing = True
            self._producer.commit_transaction(COMMIT_S)
        except KafkaException as exc:
            is_open = committing and not exc.args[0].txn_requires_abort()
            over = None if is_open else self._abort()
            error = over or (self._refused[0] if self._refused else exc.args[0])
            raise self._ended(error, len(letters), is_open=is_open) from exc

    def _produce(self, letters: Sequence[Letter], event: AuditEvent) -> None:
        names = {
            each: topic_name(self._settings.environment, each) for each in ("transactions", "audit")
        }
        for each in letters:
            self._producer.produce(
                names["transactions"],
                each.value,
                each.key,
                each.partition,
                headers=headers_of_replay(each),  # type: ignore[arg-type]
                on_delivery=self._hear,
            )
        self._producer.produce(
            names["audit"], msgspec.json.encode(event), event.model_name, on_delivery=self._hear
        )

    def _hear(self, error: KafkaError | None, _: object) -> None:
        """Take note of a refusal; what was then dropped for its sake tells nothing."""
        if error is not None and error.code() not in PURGED:
            self._refused.append(error)

    def _await_delivery(self) -> None:
        """Return once the broker has all: a commit would wait for what cannot come after a refusal."""
        deadline_s = monotonic_s() + COMMIT_S
        while left := self._producer.flush(LOOK_S):
            if self._refused or monotonic_s() > deadline_s:
                break
        if self._refused or left:
            raise KafkaException(self._refused[0] if self._refused else KafkaError(TIMED_OUT))

    def _abort(self) -> KafkaError | None:
        """Let nobody wait for what is not committed; if this fails, too, the next Resender ends it.

        Returns:
            Why this producer can do nothing any more, if so: the step that failed may only say that it is so.
        """
        try:
            abort_transaction(self._producer, ABORT_S)
        except KafkaException as exc:
            return exc.args[0] if exc.args[0].fatal() else None
        return None

    def _event(self, letters: Sequence[Letter], *, actor: str, why: str) -> AuditEvent:
        ids = [found for each in letters if (found := _id_in(each.value)) is not None]
        return AuditEvent(
            event=REPLAY,
            model_name=model_name(self._settings.environment),
            model_version="",
            at_ms=now_ms(),
            actor=actor,
            why=why,
            evidence={
                "dead_letters": [each.name for each in letters],
                "transaction_ids": ids,
            },
        )

    def _ended(self, error: KafkaError, count: int, *, is_open: bool) -> FraudstreamError:
        """Return what to say; `is_open`: it was given up while Kafka may have committed, or still does."""
        if error.code() in FENCED:
            return Refused(
                "another `fraudstream dead-letters replay` of this environment has begun: it goes on, this "
                "one has ended; what either has sent is known to the next"
            )
        if is_open:
            return KafkaUnreachable(
                f"Kafka at {self._settings.kafka_bootstrap} does not say whether the last {count:,} records "
                f"were sent ({error.str()}): run it again once Kafka answers, it looks at what was sent"
            )
        if error.code() < 0:  # librdkafka's own: no answer
            return unreachable(self._settings, KafkaException(error))
        return FraudstreamError(
            f"Kafka refuses the records ({error.str()}): nothing of the last {count:,} was sent; run it "
            "again, it asks anew what the topics take"
        )


def _limits(settings: Settings) -> dict[str, int]:
    timeout_s = settings.connect_timeout_ms / 1000
    return topic_limits(settings, ("transactions", "audit"), timeout_s=timeout_s)


class _Identified(msgspec.Struct):
    transaction_id: Identifier


def _id_in(value: bytes | None) -> str | None:
    try:
        return msgspec.json.decode(value or b"", type=_Identified).transaction_id
    except (ValueError, RecursionError):
        return None


def _parts(letters: Sequence[Letter]) -> Iterator[list[Letter]]:
    part: list[Letter] = []
    size = 0
    for letter in letters:
        if part and (len(part) == MOST_RECORDS or size + letter.size_bytes > MOST_BYTES):
            yield part
            part, size = [], 0
        part.append(letter)
        size += letter.size_bytes
    if part:
        yield part
