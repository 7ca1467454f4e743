"""The topic `dead-letters` read to its end, and records of it sent to `transactions` again, each once."""

from collections.abc import Iterator, Sequence

import msgspec
from confluent_kafka import KafkaError, KafkaException, Producer

from fraudstream.clients import audit_log
from fraudstream.clients.clock import now_ms
from fraudstream.clients.kafka import transactional_producer, unreachable
from fraudstream.clients.topic_log import read_to_end, record_of
from fraudstream.core.dead_letters import (
    REPLAY,
    Letter,
    Replay,
    headers_of_replay,
    read_letter,
    replays_in,
)
from fraudstream.core.errors import Refused
from fraudstream.core.model import model_name
from fraudstream.core.scores import AuditEvent
from fraudstream.core.settings import Settings
from fraudstream.core.topics import topic_name

MOST_RECORDS = 500
MOST_BYTES = 4 * 1024 * 1024
"""Of one Kafka transaction; a single record may be larger."""
COMMIT_S = 10.0

FENCED = (
    KafkaError._FENCED,  # noqa: SLF001
    KafkaError.INVALID_PRODUCER_EPOCH,
    KafkaError.PRODUCER_FENCED,
)


def read_letters(settings: Settings) -> Iterator[Letter]:
    """Yield the dead letters of the environment as far as they are committed, in order by partition.

    Raises:
        DependencyUnreachable: no broker answers.
        FraudstreamError: the topic does not exist.
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


class Resender:
    """Sends records again, with the note that they were in the same Kafka transaction.

    One at a time: it fences any other of the environment, and sees what that has done.
    """

    def __init__(self, settings: Settings) -> None:
        """Fence a predecessor, wait for the end of what it or a worker left open, and read what was sent.

        Raises:
            DependencyUnreachable: no broker answers, or a Kafka transaction stays open.
        """
        self._settings = settings
        self._producer = transactional_producer(
            settings, transactional_id=f"{settings.environment}.dead-letters.replay"
        )
        try:
            self._producer.init_transactions(settings.connect_timeout_ms / 1000)
        except KafkaException as exc:
            raise unreachable(settings, exc) from exc
        self.sent_before = read_replays(settings)

    def send(self, letters: Sequence[Letter], *, actor: str, why: str) -> Iterator[int]:
        """Send those that were not sent before; yield the number of each Kafka transaction once it is there.

        Raises:
            Refused: another replay has begun meanwhile; it goes on, this one has ended.
            DependencyUnreachable: the broker did not take a transaction; nothing of it was sent.
        """
        new = [each for each in letters if each.name not in self.sent_before]
        for part in _parts(new):
            try:
                self._send(part, actor=actor, why=why)
            except KafkaException as exc:
                raise self._ended(exc) from exc
            yield len(part)

    def _send(self, letters: Sequence[Letter], *, actor: str, why: str) -> None:
        names = {
            each: topic_name(self._settings.environment, each) for each in ("transactions", "audit")
        }
        producer: Producer = self._producer
        producer.begin_transaction()
        for each in letters:
            producer.produce(
                names["transactions"],
                each.value,
                each.key,
                each.partition,
                headers=headers_of_replay(each),  # type: ignore[arg-type]
            )
        event = self._event(letters, actor=actor, why=why)
        producer.produce(names["audit"], msgspec.json.encode(event), event.model_name)
        producer.commit_transaction(COMMIT_S)

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

    def _ended(self, exc: KafkaException) -> Exception:
        error = exc.args[0]
        if error.code() in FENCED:
            return Refused(
                "another `fraudstream dead-letters replay` of this environment has begun: it goes on, this "
                "one has ended; what either has sent is known to the next"
            )
        return unreachable(self._settings, exc)


class _Identified(msgspec.Struct):
    transaction_id: str


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
